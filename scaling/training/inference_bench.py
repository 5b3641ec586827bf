"""Measured prefill and decode times on this device with a KV cache, and their roofline.

A prefill processes a whole prompt and is limited by FLOPs; a decode step reads every weight it uses for one token per
sequence and is limited by bytes. Times are those of complete calls, without compilation and warm-up. The process should
have the device to itself; the load by other processes is recorded.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling import data
from scaling.config import counts
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.data.batches import TrainBatches
from scaling.model import transformer
from scaling.model.attention import implementation, joined
from scaling.model.moe import routing
from scaling.model.transformer import Output, Transformer, empty_caches
from scaling.serving import devices
from scaling.serving.device import Device, roofline_seconds
from scaling.training import host, malloc
from scaling.training.executable_cache import is_enabled, load_or_compile
from scaling.training.kernel_choice import kernel_of_call
from scaling.training.language_model import versions
from scaling.training.step import initial_params

WARMUP, ROUNDS = 2, 5
PHASES = ("prefill", "decode")
_FLOPS = {"prefill": counts.prefill_flops_per_token, "decode": counts.decode_flops_per_token}


def measure(*configs: RunConfig, progress: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Latency rows of shapes, without `run_id`: both phases of each at every batch and context of its `bench`.

    Weights are untrained (column `weights`), and so is the routing; prompts come from the corpus. Decode measures the
    step that brings the cache to `context` tokens. FLOPs and bytes are those of the experts that the call activated.

    Repeats are split into rounds. Each round measures all shapes in a random order with newly allocated weights, so
    that drift of the machine's speed and the placement in memory affect all shapes alike. Between rounds, weights stay
    in host memory and programs on disk, because a process cannot hold those of many shapes. `progress` is called with a
    line for each shape and round.
    """
    malloc.keep()
    # Hold the programs of a single shape; without a cache on disk hold all, to avoid compiling them in every round.
    shapes = [_BenchedShape(config, hold=len(configs) == 1 or not is_enabled()) for config in configs]
    for number, shape in enumerate(shapes, 1):
        shape.programs()
        model = shape.config.model
        progress(f"[{number}/{len(shapes)}] E={model.n_experts} d={model.d_model}: compiled")
    order = np.random.default_rng(0)
    for number in range(ROUNDS):
        for index in order.permutation(len(shapes)):
            shapes[index].time(_rounds(shapes[index].config.bench.repeats)[number])
        progress(f"round {number + 1} of {ROUNDS}")
    return [row for shape in shapes for row in shape.rows()]


@dataclass(frozen=True)
class _Measurement:
    """One call to time: a phase at a batch and a context."""

    phase: str
    batch: int
    context: int

    @property
    def new_tokens(self) -> int:
        """New tokens of every sequence."""
        return self.context if self.phase == "prefill" else 1


class _BenchedShape:
    """A shape and its measurements so far.

    Weights are in host memory, those of query, key and value joined, as in a serving engine. Each phase has the kernel
    that is fastest for its largest call.

    hold: keep programs in memory.   busy: the most cores that other processes used after a round.
    """

    def __init__(self, config: RunConfig, hold: bool) -> None:
        host.require_gpu(config)
        model, bench = config.model, config.bench
        self.config = config
        self.busy: float | None = None
        self._corpus, self._device = data.prepare(config.data), jax.devices()[0]
        self._hold = hold
        weights = jax.tree.map(
            lambda leaf: leaf.astype(model.dtype) if leaf.ndim > 1 else leaf,
            initial_params(model, self._corpus.vocab_size, config.seed),
        )
        self._weights = jax.device_get(joined(weights))
        phases = PHASES if model.causal else PHASES[:1]  # a non-causal model cannot decode token by token
        self._points = [_Measurement(phase, b, c) for c in bench.context for b in bench.batch for phase in phases]
        most = {phase: max(p.batch * p.new_tokens for p in self._points if p.phase == phase) for phase in phases}
        self._kernels = {phase: kernel_of_call(model, tokens, self._device) for phase, tokens in most.items()}
        self._times: dict[_Measurement, list[float]] = {point: [] for point in self._points}
        self._reached: dict[_Measurement, tuple[float, float]] = {}
        self._compile_s: dict[_Measurement, float] = {}
        self._held: dict[_Measurement, Any] = {}

    def programs(self) -> dict[_Measurement, Any]:
        """The compiled program of every point, read from disk if compiled before."""
        if self._held:
            return self._held
        key = (self.config.model.model_dump(mode="json"), self._points, self._kernels, self._corpus.vocab_size)
        *compiled, seconds = load_or_compile("latency", key, [self._device], self._compile)
        self._compile_s.update(zip(self._points, seconds, strict=True))
        programs = dict(zip(self._points, compiled, strict=True))
        if self._hold:
            self._held.update(programs)
        return programs

    def _compile(self) -> tuple[Any, ...]:
        """The programs and their seconds of compilation. They are compiled in parallel, as nothing is being timed."""
        model = self.config.model

        def call(kernel: str, weights: Any, tokens: jax.Array, caches: Any, start: jax.Array) -> Any:
            network = Transformer(model, self._corpus.vocab_size, kernel)
            output = transformer.apply(network, weights, tokens, caches, start)
            return output.logits_BxTxV[:, -1], output.caches, _experts_reached(output)

        def program(point: _Measurement) -> tuple[Any, float]:
            started = time.perf_counter()
            tokens, start = self._inputs(point)
            caches = jax.eval_shape(lambda: empty_caches(model, point.batch, point.context))
            of_phase = functools.partial(call, self._kernels[point.phase])
            jitted = jax.jit(of_phase, donate_argnums=2)  # the cache is updated in place, as in a serving engine
            return jitted.lower(self._weights, tokens, caches, start).compile(), time.perf_counter() - started

        with ThreadPoolExecutor(max(2, min(8, host.threads() // 2))) as pool:
            programs, seconds = zip(*pool.map(program, self._points), strict=True)
        return (*programs, seconds)

    def _inputs(self, point: _Measurement) -> tuple[jax.Array, jax.Array]:
        """The new tokens of a call, and the position of the first."""
        prompts = TrainBatches(self._corpus.tokens(), point.context, point.batch, self.config.seed)(0)
        start = point.context - point.new_tokens
        return jnp.asarray(prompts[:, start : point.context]), jnp.int32(start)

    def time(self, repeats: int) -> None:
        """Make `repeats` timed calls of every point after warm-up calls."""
        weights = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), self._weights)
        for point, program in self.programs().items():
            if point.phase == "prefill":
                caches = empty_caches(self.config.model, point.batch, point.context)
            # Decode continues with the cache that the preceding prefill has filled.
            tokens, start = self._inputs(point)
            times, caches, reached = _time(program, (weights, tokens), caches, start, repeats)
            self._times[point] += times
            self._reached[point] = (float(reached[0]), float(reached[1]))
        cores = others_busy()
        self.busy = cores if self.busy is None else max(self.busy, cores or 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """The measurements, one row per point, with the columns of the shape and the machine."""
        model, device = self.config.model, self._device
        sizes, row = counts.parameters(model, self._corpus.vocab_size), device_of(device, model.dtype)
        names = ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_expert")
        shared = {
            "shape_id": self.config.shape_id(),
            **{name: getattr(model, name) for name in names},
            "n_active": sizes.n_active,
            "n_total": sizes.n_total,
            "n_router": sizes.router,
            "dispatch": model.dispatch if model.n_experts > 1 else "dense",
            "attention": implementation(model.dtype, model.d_head),
            "repeats": self.config.bench.repeats,
            "warmup": WARMUP,
            "weights": "initial",
            "platform": device.platform,
            "device_kind": device.device_kind,
            "dtype": model.dtype,
            "threads": host.threads() if device.platform == "cpu" else None,
            "device": json.dumps(asdict(row)) if row else None,
            "versions": versions(),
            "busy_cores": self.busy,
        }
        return [shared | self._columns(point, row) for point in self._points]

    def _columns(self, point: _Measurement, device: Device | None) -> dict[str, Any]:
        model, vocab = self.config.model, self._corpus.vocab_size
        kernel, (experts, per_token) = self._kernels[point.phase], self._reached[point]
        batch, context, new = point.batch, point.context, point.new_tokens
        flops = batch * new * _FLOPS[point.phase](model, vocab, context, per_token)
        n_bytes = counts.bytes_read(model, vocab, batch=batch, new_tokens=new, context=context, experts=experts)
        q25, median, q75 = np.quantile(self._times[point], [0.25, 0.5, 0.75]).tolist()
        return {
            "phase": point.phase,
            "kernel": kernel or None,
            "reads_all": reads_all(model, kernel),
            "batch": batch,
            "context": context,
            "time_ms": median * 1e3,
            "time_q25_ms": q25 * 1e3,
            "time_q75_ms": q75 * 1e3,
            "compile_s": self._compile_s[point],
            "tokens_per_s": batch * new / median,
            "flops": flops,
            "bytes": n_bytes,
            "roofline_ms": roofline_seconds(flops, n_bytes, device) * 1e3 if device else None,
            "distinct_experts": experts,
        }


def _experts_reached(output: Output) -> tuple[jax.Array, jax.Array]:
    """Number of experts that the call activated, and experts per token; means over layers, 1 for a dense model."""
    if not output.routings:
        return jnp.float32(1), jnp.float32(1)
    chosen_LxTxE = jnp.stack([routing.chosen_by_expert(layer) for layer in output.routings])
    return jnp.mean(jnp.sum(jnp.any(chosen_LxTxE, axis=1), axis=-1)), jnp.mean(jnp.sum(chosen_LxTxE, axis=-1))


def _rounds(repeats: int) -> list[int]:
    """Number of timed calls per round, so that a brief disturbance affects only part of a point's calls."""
    return [len(part) for part in np.array_split(range(repeats), ROUNDS)]


def _time(
    program: Callable[..., Any], inputs: tuple[Any, ...], caches: Any, start: Any, repeats: int
) -> tuple[list[float], Any, Any]:
    """Seconds of `repeats` calls after the warm-up, the final caches, and the experts that the last call activated."""
    times, reached = [], None
    for number in range(WARMUP + repeats):
        started = time.perf_counter()
        _, caches, reached = jax.block_until_ready(program(*inputs, caches, start))
        if number >= WARMUP:
            times.append(time.perf_counter() - started)
    return times, caches, reached


def reads_all(model: ModelConfig, kernel: str) -> bool:
    """Whether a call reads every expert, activated or not. Only grouped dispatch skips experts that no token chose,
    except with XLA's kernel `ragged`."""
    return model.n_experts > 1 and (model.dispatch != "grouped" or kernel == "ragged")


@functools.lru_cache(maxsize=4)
def device_of(device: jax.Device, dtype: str) -> Device | None:
    """The row of the device table for a JAX device, or None if the table lacks it.

    A CPU is measured; its peak is the better of NumPy's and XLA's products in `dtype`, as a lower bound must allow for
    both.
    """
    if device.platform == "cpu":
        cpu = devices.device("cpu")
        return replace(cpu, peak_flops=max(cpu.peak_flops, _product_flops(dtype)))
    kind = device.device_kind.upper()
    names = [name for name in devices.names() if name != "cpu" and name.split("-")[0].upper() in kind]
    return devices.device(names[-1]) if names else None


def _product_flops(dtype: str, side: int = 1024, calls: int = 12) -> float:
    """FLOP/s of a matrix product in XLA, the best of a few calls."""
    left = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul).lower(left, left).compile()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        jax.block_until_ready(product(left, left))
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def others_busy(seconds: float = 0.3) -> float | None:
    """Cores used by other processes or guests of the host while this process slept; None without Linux's /proc."""
    before = _busy_ticks()
    time.sleep(seconds)
    after = _busy_ticks()
    if before is None or after is None:
        return None
    return max(0.0, (after - before) / os.sysconf("SC_CLK_TCK") / seconds)


def _busy_ticks() -> float | None:
    """Clock ticks of work of all cores since boot, including time stolen by the host."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(float, stat.read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + irq + softirq + steal
