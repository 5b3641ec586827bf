"""Measured prefill and decode on this device, with a KV cache, beside the roofline floor.

A prefill reads a whole prompt at once and is bound by FLOPs; a decode step adds one token to each sequence, reads every
weight it touches for it, and is bound by bytes. Times are of whole calls: the call is waited for, compilation and the
first calls are left out, and the process should have the device to itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling import cost, data, hardware
from scaling.config import RunConfig
from scaling.data.batches import TrainBatches
from scaling.layers.moe import routing
from scaling.models import transformer
from scaling.models.transformer import Output, Transformer, empty_caches
from scaling.tasks.lm import versions
from scaling.training import host
from scaling.training.kernel import kernel_of
from scaling.training.step import initial_params

WARMUP = 3
PHASES = ("prefill", "decode")
_FLOPS = {"prefill": cost.prefill_flops_per_token, "decode": cost.decode_flops_per_token}


def measure(config: RunConfig) -> list[dict[str, Any]]:
    """Latency rows of one shape, without `run_id`: both phases at every batch and context of `config.bench`.

    The weights are those of the seed before training, so the routing is that of an untrained router (column `weights`);
    the prompts are text of the corpus. Decode measures the step that brings the cache to `context` tokens. FLOPs and
    bytes are those of the experts that the call reached.
    """
    host.set_up()
    corpus = data.prepare(config.data)
    model, bench = config.model, config.bench
    device = jax.devices()[0]
    network = Transformer(model, corpus.vocab_size, kernel_of(config, device))
    held = jax.tree.map(
        lambda leaf: leaf.astype(model.dtype) if leaf.ndim > 1 else leaf,
        initial_params(model, corpus.vocab_size, config.seed),
    )
    shared = {
        "shape_id": config.shape_id(),
        "repeats": bench.repeats,
        "warmup": WARMUP,
        "weights": "initial",
        "platform": device.platform,
        "device_kind": device.device_kind,
        "dtype": model.dtype,
        "threads": host.threads(),
        "versions": versions(),
    }

    def call(tokens: jax.Array, caches: Any, start: jax.Array) -> Any:
        output = transformer.apply(network, held, tokens, caches, start)
        return output.logits_BxTxV[:, -1], output.caches, _reached(output)

    run = jax.jit(call)
    phases = PHASES if model.causal else PHASES[:1]  # what looks at later tokens cannot produce them one by one
    points = [_Point(phase, batch, context) for context in bench.context for batch in bench.batch for phase in phases]

    def arguments(point: _Point, caches: Any = None) -> tuple[Any, ...]:
        prompt = jnp.asarray(
            TrainBatches(corpus.tokens(), point.context, point.batch, config.seed)(0)[:, : point.context]
        )
        if caches is None:
            caches = empty_caches(model, point.batch, point.context)
        if point.phase == "prefill":
            return prompt, caches, jnp.int32(0)
        return prompt[:, -1:], caches, jnp.int32(point.context - 1)

    def compiled(point: _Point) -> tuple[Any, float]:
        started = time.perf_counter()
        return run.lower(*arguments(point)).compile(), time.perf_counter() - started

    with ThreadPoolExecutor(2) as pool:  # nothing is timed yet, so programs may compile side by side
        programs = dict(zip(points, pool.map(compiled, points), strict=True))
    rows, caches = [], None
    for point in points:
        program, compile_s = programs[point]
        # Decode goes on from the cache that the prefill before it has filled.
        times, last = _time(program, arguments(point, caches if point.phase == "decode" else None), bench.repeats)
        caches, (touched, per_token) = last[1], (float(value) for value in last[2])
        new = point.context if point.phase == "prefill" else 1
        flops_per_token = _FLOPS[point.phase](model, corpus.vocab_size, point.context, per_token)
        flops = point.batch * new * flops_per_token
        n_bytes = cost.bytes_read(
            model, corpus.vocab_size, batch=point.batch, new_tokens=new, context=point.context, experts=touched
        )
        median = float(np.median(times))
        rows.append(
            shared
            | {
                "phase": point.phase,
                "batch": point.batch,
                "context": point.context,
                "time_ms": median * 1e3,
                "time_q25_ms": float(np.quantile(times, 0.25)) * 1e3,
                "time_q75_ms": float(np.quantile(times, 0.75)) * 1e3,
                "compile_s": compile_s,
                "tokens_per_s": point.batch * new / median,
                "flops": flops,
                "bytes": n_bytes,
                "roofline_ms": floor_ms(flops, n_bytes, device),
                "distinct_experts": touched,
            }
        )
    return rows


@dataclass(frozen=True)
class _Point:
    """One thing to measure."""

    phase: str
    batch: int
    context: int


def _reached(output: Output) -> tuple[jax.Array, jax.Array]:
    """Experts that the call touched, and experts per token; means over layers, 1 for a dense model."""
    if not output.routings:
        return jnp.float32(1), jnp.float32(1)
    chosen_LxTxE = jnp.stack([routing.chosen_by_expert(one) for one in output.routings])
    return jnp.mean(jnp.sum(jnp.any(chosen_LxTxE, axis=1), axis=-1)), jnp.mean(jnp.sum(chosen_LxTxE, axis=-1))


def _time(program: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> tuple[list[float], Any]:
    """Seconds of each of `repeats` calls after the warm-up, and the last result."""
    for _ in range(WARMUP):
        jax.block_until_ready(program(*arguments))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - started)
    return times, result


def floor_ms(flops: float, n_bytes: float, device: Any) -> float | None:
    """No call can be faster: the roofline of the device in milliseconds, None where the device is not in the table.

    On a CPU what fits in the last-level cache need not come from memory, so bytes are a floor only beyond its size
    (and nowhere where the size is unknown); what is left is the floor of the FLOPs.
    """
    if device.platform == "cpu":
        cache = last_level_cache()
        beyond = cache is not None and n_bytes > cache
        return hardware.roofline_seconds(flops, n_bytes if beyond else 0.0, hardware.device("cpu")) * 1e3
    kind = device.device_kind.upper()
    names = [name for name in hardware.NAMES if name != "cpu" and name.split("-")[0].upper() in kind]
    return hardware.roofline_seconds(flops, n_bytes, hardware.device(names[-1])) * 1e3 if names else None


def last_level_cache() -> int | None:
    """Bytes of this CPU's largest cache as Linux tells, None where it does not."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20}
    known = [int(size[:-1]) * units[size[-1]] for size in sizes if size[:-1].isdigit() and size[-1] in units]
    return max(known, default=None)
