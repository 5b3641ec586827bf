"""Measured prefill and decode on this device, with a KV cache, beside the roofline floor.

A prefill reads a whole prompt at once and is bound by FLOPs; a decode step adds one token to each sequence, reads every
weight it touches for it, and is bound by bytes. Times are of whole calls: the call is waited for, compilation and the
first calls are left out, and the process should have the device to itself: how busy others kept the processor is recorded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling import cost, data, hardware
from scaling.config import ModelConfig, RunConfig
from scaling.data.batches import TrainBatches
from scaling.layers.moe import routing
from scaling.models import transformer
from scaling.models.transformer import Output, Transformer, empty_caches
from scaling.tasks.lm import versions
from scaling.training import host
from scaling.training.kernel import kernel_of
from scaling.training.step import initial_params

WARMUP, ROUNDS = 2, 3
BUSY = 0.1  # cores kept busy by others that spoil a measurement
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
    known = device_of(device, model.dtype)
    kernel = kernel_of(config, device)
    counts = cost.parameters(model, corpus.vocab_size)
    network = Transformer(model, corpus.vocab_size, kernel)
    held = jax.tree.map(
        lambda leaf: leaf.astype(model.dtype) if leaf.ndim > 1 else leaf,
        initial_params(model, corpus.vocab_size, config.seed),
    )
    shared = {
        "shape_id": config.shape_id(),
        **{name: getattr(model, name) for name in ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "d_expert")},
        "n_active": counts.n_active,
        "n_total": counts.n_total,
        "n_router": counts.router,
        "dispatch": model.dispatch if model.n_experts > 1 else "dense",
        "kernel": kernel or None,
        "reads_all": reads_all(model, kernel),
        "repeats": bench.repeats,
        "warmup": WARMUP,
        "weights": "initial",
        "platform": device.platform,
        "device_kind": device.device_kind,
        "dtype": model.dtype,
        "threads": host.threads(),
        "device": json.dumps(asdict(known)) if known else None,
        "versions": versions(),
    }

    joined, free = _split(held)

    def call(weights: Any, tokens: jax.Array, caches: Any, start: jax.Array) -> Any:
        output = transformer.apply(network, _merged(joined, weights), tokens, caches, start)
        return output.logits_BxTxV[:, -1], output.caches, _reached(output)

    run = jax.jit(call, donate_argnums=2)  # the cache is written in place, as an engine that serves does
    phases = PHASES if model.causal else PHASES[:1]  # what looks at later tokens cannot produce them one by one
    places = [(batch, context) for context in bench.context for batch in bench.batch]
    points = [_Point(phase, batch, context) for batch, context in places for phase in phases]

    def inputs(point: _Point) -> tuple[jax.Array, jax.Array]:
        prompt = TrainBatches(corpus.tokens(), point.context, point.batch, config.seed)(0)[:, : point.context]
        if point.phase == "prefill":
            return jnp.asarray(prompt), jnp.int32(0)
        return jnp.asarray(prompt[:, -1:]), jnp.int32(point.context - 1)

    def compiled(point: _Point) -> tuple[Any, float]:
        started = time.perf_counter()
        tokens, start = inputs(point)
        caches = jax.eval_shape(lambda: empty_caches(model, point.batch, point.context))
        return run.lower(free, tokens, caches, start).compile(), time.perf_counter() - started

    with ThreadPoolExecutor(2) as pool:  # nothing is timed yet, so programs may compile side by side
        programs = dict(zip(points, pool.map(compiled, points), strict=True))
    times: dict[_Point, list[float]] = {point: [] for point in points}
    reached: dict[_Point, tuple[float, float]] = {}
    busy = [others_busy()]
    for repeats in _rounds(bench.repeats):
        for batch, context in places:
            caches = empty_caches(model, batch, context)
            for point in (_Point(phase, batch, context) for phase in phases):
                tokens, start = inputs(point)
                # Decode goes on from the cache that the prefill before it has filled.
                spent, caches, touched = _time(programs[point][0], (free, tokens), caches, start, repeats)
                times[point] += spent
                reached[point] = (float(touched[0]), float(touched[1]))
        busy.append(others_busy())
    seen = max((cores for cores in busy if cores is not None), default=None)
    if seen is not None and seen > BUSY:
        told = f"warning: others kept {seen:.1f} cores busy while latency was measured; give it the machine to itself"
        print(told, file=sys.stderr)
    rows = []
    for point in points:
        touched, per_token = reached[point]
        new = point.context if point.phase == "prefill" else 1
        flops = point.batch * new * _FLOPS[point.phase](model, corpus.vocab_size, point.context, per_token)
        n_bytes = cost.bytes_read(
            model, corpus.vocab_size, batch=point.batch, new_tokens=new, context=point.context, experts=touched
        )
        q25, median, q75 = np.quantile(times[point], [0.25, 0.5, 0.75]).tolist()
        rows.append(
            shared
            | {
                "phase": point.phase,
                "batch": point.batch,
                "context": point.context,
                "time_ms": median * 1e3,
                "time_q25_ms": q25 * 1e3,
                "time_q75_ms": q75 * 1e3,
                "compile_s": programs[point][1],
                "tokens_per_s": point.batch * new / median,
                "flops": flops,
                "bytes": n_bytes,
                "roofline_ms": hardware.roofline_seconds(flops, n_bytes, known) * 1e3 if known else None,
                "distinct_experts": touched,
                "busy_cores": seen,
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


def _split(weights: Any) -> tuple[Any, Any]:
    """The weights that a layer joins before it uses them, and all others; None where the other has one.

    The first are constants of the program, so that they are joined once, when it is compiled, as an engine would load
    them. The others, the experts, are too large to stand in every program.
    """

    def is_joined(path: Any) -> bool:
        return any(getattr(key, "key", None) in ("query", "key", "value") for key in path)

    joined = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if is_joined(path) else None, weights)
    free = jax.tree_util.tree_map_with_path(lambda path, leaf: None if is_joined(path) else leaf, weights)
    return joined, free


def _merged(joined: Any, free: Any) -> Any:
    return jax.tree.map(lambda a, b: b if a is None else a, joined, free, is_leaf=lambda leaf: leaf is None)


def _rounds(repeats: int) -> list[int]:
    """Timed calls of each round over all points: what disturbs the machine for a moment then spoils a part of a point's
    calls, not all of them."""
    return [len(part) for part in np.array_split(range(repeats), min(ROUNDS, repeats))]


def _time(
    program: Callable[..., Any], inputs: tuple[Any, ...], caches: Any, start: Any, repeats: int
) -> tuple[list[float], Any, Any]:
    """Seconds of each of `repeats` calls after the warm-up, the caches as they are then, and what the last call reached."""
    times, reached = [], None
    for number in range(WARMUP + repeats):
        started = time.perf_counter()
        _, caches, reached = jax.block_until_ready(program(*inputs, caches, start))
        if number >= WARMUP:
            times.append(time.perf_counter() - started)
    return times, caches, reached


def reads_all(model: ModelConfig, kernel: str) -> bool:
    """Whether a call reads every expert, touched or not: only grouped dispatch skips those that no token chose, and of its
    kernels XLA's `ragged` does not."""
    return model.n_experts > 1 and (model.dispatch != "grouped" or kernel == "ragged")


@lru_cache(maxsize=4)
def device_of(device: jax.Device, dtype: str) -> hardware.Device | None:
    """The row of the device table that a JAX device is, None where the table lacks it.

    A CPU is measured; its peak is the better of NumPy's and XLA's products in `dtype`, for a floor must lie below both.
    """
    if device.platform == "cpu":
        cpu = hardware.device("cpu")
        return replace(cpu, peak_flops=max(cpu.peak_flops, _product_flops(dtype)))
    kind = device.device_kind.upper()
    names = [name for name in hardware.NAMES if name != "cpu" and name.split("-")[0].upper() in kind]
    return hardware.device(names[-1]) if names else None


def _product_flops(dtype: str, side: int = 1024, calls: int = 12) -> float:
    """FLOP/s of a matrix product by XLA, the best of a few calls."""
    left = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul).lower(left, left).compile()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        jax.block_until_ready(product(left, left))
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def others_busy(seconds: float = 0.3) -> float | None:
    """Cores that other processes, or other guests of the host, kept busy while this one slept; None where Linux does not
    tell."""
    before = _busy_ticks()
    if before is None:
        return None
    time.sleep(seconds)
    after = _busy_ticks()
    return None if after is None else max(0.0, (after - before) / os.sysconf("SC_CLK_TCK") / seconds)


def _busy_ticks() -> float | None:
    """Clock ticks that all cores have worked since the start, time stolen by the host among them."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(float, stat.read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + irq + softirq + steal
