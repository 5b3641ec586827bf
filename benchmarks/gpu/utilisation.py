"""MFU of training steps, dense and routed: counted FLOPs over the bf16 peak of the data sheet.

d = 2048, four layers, 16 heads of 128, an active MLP of width 4096, vocabulary 32,768, sequences of 2,048 tokens. A
short search over what a user would set: batch, parts of a batch, recomputing activations.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

from benchmarks.gpu.record import Record
from benchmarks.gpu.timing import Peak, peak_of
from scaling.config import counts
from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model import attention
from scaling.training import kernel_choice
from scaling.training import program as program_module
from scaling.training.program import Program
from scaling.training.step import StepFunction

EXPERTS = (1, 8, 32)
_NEEDS_S = 20.0
_WARM, _TIMED = 3, 8


@dataclass(frozen=True)
class Setting:
    """How a step is computed.   attention: plain products even where the device has the fused kernel."""

    sequences: int = 16
    accumulate: int = 1
    remat: bool = False
    plain_attention: bool = False

    def __str__(self) -> str:
        parts = [f"{self.sequences} sequences"]
        parts += [f"in {self.accumulate} parts"] if self.accumulate > 1 else []
        parts += ["recomputed"] if self.remat else []
        parts += ["plain attention"] if self.plain_attention else []
        return ", ".join(parts)


# In the order of what they tell: every model once before any is searched further.
ROUNDS = (
    (Setting(),),
    (Setting(sequences=32),),
    (Setting(sequences=32, remat=True), Setting(sequences=64, accumulate=2)),
    (Setting(plain_attention=True),),
)


@dataclass(frozen=True)
class Sizes:
    """What is trained."""

    d_model: int = 2048
    d_head: int = 128
    n_layers: int = 4
    vocab_size: int = 32_768
    seq_len: int = 2048
    side: int = 8192  # of the product that is measured beside


_TINY = Sizes(d_model=32, d_head=16, n_layers=1, vocab_size=64, seq_len=16, side=64)


def measure(record: Record, tiny: bool) -> None:
    """A case for each E and setting: `mfu`, by the data sheet; `of_product`, by the product measured here;
    `tokens_per_s`, `step_ms`, `peak_bytes` as compiled, `kernel`, `attention`, `loss` after the steps."""
    sizes = _TINY if tiny else Sizes()
    peak = peak_of(jax.devices()[0], sizes.side)
    record.case("product", lambda: {"of_peak": peak.product / peak.flops, "flops_per_s": peak.product})
    for settings in ROUNDS[: 1 if tiny else None]:
        cases = {f"E={e} {s}": (e, s) for s in settings for e in EXPERTS[: 2 if tiny else None]}
        cases = {name: case for name, case in cases.items() if record.owes(name)}
        if record.left < _NEEDS_S:
            for name in cases:
                record.case(name, dict, needs=_NEEDS_S)
            continue
        compiled = _compiled(sizes, cases, plain_attention=settings[0].plain_attention)
        for name, case in cases.items():
            record.case(name, functools.partial(_timed, compiled.pop(name), sizes, case, peak))


Case = tuple[int, Setting]


def _compiled(sizes: Sizes, cases: Mapping[str, Case], *, plain_attention: bool) -> dict[str, Future[Any]]:
    """The programs of some cases, compiled beside each other because nothing is being timed, and anew; kernels are
    chosen before, because that is a measurement."""
    kernels = {n_experts: _kernel(sizes, n_experts) for n_experts, _ in cases.values()}
    with ExitStack() as patches, ThreadPoolExecutor(3) as pool:
        patches.enter_context(
            patch.object(program_module, "load_or_compile", lambda name, key, on, compile_: compile_())
        )
        if plain_attention:
            patches.enter_context(patch.object(attention, "implementation", lambda dtype, width: "xla"))
        futures = {name: pool.submit(_program, sizes, *case, kernels[case[0]]) for name, case in cases.items()}
        wait(futures.values())
        return futures


def _model(sizes: Sizes, n_experts: int) -> ModelConfig:
    return ModelConfig(
        d_model=sizes.d_model, d_head=sizes.d_head, n_layers=sizes.n_layers, n_experts=n_experts, top_k=2,
        router="topk", dtype="bfloat16",
    )  # fmt: skip


@functools.lru_cache
def _kernel(sizes: Sizes, n_experts: int) -> str:
    """The fastest at the first setting's tokens, for all settings."""
    device = jax.devices()[0]
    if n_experts == 1 or device.platform == "cpu":
        return kernel_choice.ON_CPU
    return kernel_choice.fastest(_model(sizes, n_experts), ROUNDS[0][0].sequences * sizes.seq_len, device)


def _program(sizes: Sizes, n_experts: int, setting: Setting, kernel: str) -> tuple[StepFunction, Program, float]:
    train = TrainConfig(
        batch_tokens=setting.sequences * sizes.seq_len, seq_len=sizes.seq_len, accumulate=setting.accumulate,
        remat=setting.remat,
    )  # fmt: skip
    started = time.perf_counter()
    function = StepFunction(_model(sizes, n_experts), sizes.vocab_size, train, kernel=kernel)
    return function, Program(function, jax.devices()[:1]), time.perf_counter() - started


def _timed(compiled: Future[Any], sizes: Sizes, case: Case, peak: Peak) -> dict[str, Any]:
    (n_experts, setting), (function, program, compile_s) = case, compiled.result()
    shape = (_WARM + _TIMED, function.train.sequences, sizes.seq_len + 1)
    batches = np.random.default_rng(0).integers(sizes.vocab_size - 1, size=shape).astype(np.int32)
    state, rate, reported, started = program.first([0]), np.float32(1e-4), None, 0.0
    for number, batch in enumerate(batches):
        if number == _WARM:
            jax.block_until_ready(reported)
            started = time.perf_counter()
        state, reported = program.step(state, batch, rate)
    jax.block_until_ready((state, reported))
    step_s = (time.perf_counter() - started) / _TIMED
    tokens = function.train.batch_tokens
    flops = 3.0 * counts.prefill_flops_per_token(function.model, sizes.vocab_size, sizes.seq_len) * tokens
    return {
        "n_experts": n_experts,
        "setting": str(setting),
        "mfu": flops / step_s / peak.flops,
        "of_product": flops / step_s / peak.product,
        "tokens_per_s": tokens / step_s,
        "step_ms": 1e3 * step_s,
        "flops": flops,
        "compile_s": compile_s,
        "peak_bytes": program.peak_bytes,
        "kernel": function.kernel if n_experts > 1 else "",
        "attention": "xla" if setting.plain_attention else attention.implementation("bfloat16", sizes.d_head),
        "loss": float(np.asarray(reported)[0]),
    }
