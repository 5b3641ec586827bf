"""Measured prefill and decode on this device, with a KV cache, beside the roofline floor.

A prefill reads a whole prompt at once and is bound by FLOPs; a decode step adds one token to each sequence, reads every
weight it touches for it, and is bound by bytes. Times are of whole calls: the call is waited for, compilation and the
first calls are left out, and the process should have the device to itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling import cost, data, hardware
from scaling.config import RunConfig
from scaling.data.batches import TrainBatches
from scaling.models import transformer
from scaling.models.transformer import Output, Transformer, empty_caches
from scaling.tasks.lm import versions
from scaling.training import host
from scaling.training.loop import initial_params

WARMUP = 3


def measure(config: RunConfig) -> list[dict[str, Any]]:
    """Latency rows of one shape, without `run_id`: both phases at every batch and context of `config.bench`.

    The weights are those of the seed before training, so the routing is that of an untrained router (column `weights`);
    the prompts are text of the corpus. Decode measures the step that brings the cache to `context` tokens.
    """
    host.set_up()
    corpus = data.prepare(config.data)
    model, bench = config.model, config.bench
    network = Transformer(model, corpus.vocab_size)
    params = initial_params(model, corpus.vocab_size, 8, config.seed)
    device = jax.devices()[0]
    shared = {
        "shape_id": config.shape_id(),
        "repeats": bench.repeats,
        "warmup": WARMUP,
        "weights": "initial",
        "platform": device.platform,
        "device_kind": device.device_kind,
        "dtype": "float32",
        "threads": host.threads(),
        "versions": versions(),
    }

    def call(tokens: jax.Array, caches: Any, start: jax.Array) -> Any:
        output = transformer.apply(network, params, tokens, caches, start)
        return output.logits_BxTxV[:, -1], output.caches, _distinct(output)

    run = jax.jit(call)
    rows = []
    for context in bench.context:
        for batch in bench.batch:
            prompt = jnp.asarray(TrainBatches(corpus.tokens(), context, batch, config.seed)(0)[:, :context])
            caches = empty_caches(model, batch, context)
            for phase, tokens, start in (("prefill", prompt, 0), ("decode", prompt[:, -1:], context - 1)):
                new = tokens.shape[1]
                attended = context if phase == "decode" else (context + 1) / 2
                flops = batch * new * sum(cost.forward_flops_by_group(model, corpus.vocab_size, attended).values())
                n_bytes = cost.bytes_read(model, corpus.vocab_size, batch=batch, new_tokens=new, context=context)
                times, compile_s, last = _time(run, (tokens, caches, jnp.int32(start)), bench.repeats)
                median = float(np.median(times))
                rows.append(
                    shared
                    | {
                        "phase": phase,
                        "batch": batch,
                        "context": context,
                        "time_ms": median * 1e3,
                        "time_q25_ms": float(np.quantile(times, 0.25)) * 1e3,
                        "time_q75_ms": float(np.quantile(times, 0.75)) * 1e3,
                        "compile_s": compile_s,
                        "tokens_per_s": batch * new / median,
                        "flops": flops,
                        "bytes": n_bytes,
                        "roofline_ms": floor_ms(flops, n_bytes, device),
                        "distinct_experts": float(last[2]),
                    }
                )
                if phase == "prefill":
                    caches = last[1]  # decode goes on from a cache that holds the prompt
    return rows


def _distinct(output: Output) -> jax.Array:
    """Experts that the call touched, mean over layers; 1 for a dense model."""
    counts = [
        jnp.sum(jnp.any(one.chosen_TxK.reshape(-1, 1) == jnp.arange(one.gates_TxE.shape[-1]), axis=0))
        for one in output.routings
    ]
    return jnp.mean(jnp.stack(counts).astype(jnp.float32)) if counts else jnp.float32(1)


def _time(run: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> tuple[list[float], float, Any]:
    """Seconds of each of `repeats` calls, seconds of compilation, and the last result."""
    started = time.perf_counter()
    program = run.lower(*arguments).compile()  # type: ignore[attr-defined]
    compile_s = time.perf_counter() - started
    for _ in range(WARMUP):
        result = jax.block_until_ready(program(*arguments))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - started)
    return times, compile_s, result


def floor_ms(flops: float, n_bytes: float, device: Any) -> float | None:
    """No call can be faster: the roofline of the device in milliseconds, None where the device is not in the table.

    On a CPU what fits in the last-level cache need not come from memory, so there the bytes of a small model are no floor.
    """
    if device.platform == "cpu":
        known = hardware.device("cpu")
        cache = os.sysconf("SC_LEVEL3_CACHE_SIZE") if "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names else 0
        return hardware.roofline_seconds(flops, n_bytes if n_bytes > cache else 0.0, known) * 1e3
    kind = device.device_kind.upper()
    names = [name for name in hardware.NAMES if name != "cpu" and name.split("-")[0].upper() in kind]
    return hardware.roofline_seconds(flops, n_bytes, hardware.device(names[-1])) * 1e3 if names else None
