"""Small cells trained side by side in one program against one at a time: a GPU is mostly idle with one of them."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.record import Record
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.training.kernel_choice import kernel_of
from scaling.training.program import Program
from scaling.training.trunk import program_of

TOGETHER = (1, 4, 16, 64)
EXPERTS = (8, 1)
VOCAB = 512
_NEEDS_S = 3.0
_WARM, _TIMED = 3, 40


def measure(record: Record, tiny: bool) -> None:
    """A case for each E and number of cells: `step_ms` of all together, `cells_per_step_s`, and `speedup`, the time
    that as many cells take one after another over that of all at once."""
    for n_experts in EXPERTS[: 1 if tiny else None]:
        model = ModelConfig(
            d_model=16 if tiny else 64, n_layers=1 if tiny else 2, n_experts=n_experts, top_k=2, router="topk"
        )
        train = TrainConfig(batch_tokens=64 if tiny else 2048, seq_len=16 if tiny else 128, warmup_tokens=0)
        config = RunConfig(model=model, train=train)
        numbers = {f"E={n_experts} {number} together": number for number in TOGETHER[: 2 if tiny else None]}
        programs = _compiled(config, [number for name, number in numbers.items() if record.owes(name)])
        alone = None
        for name, number in numbers.items():
            of = functools.partial(_timed, config, number, programs.get(number), alone)
            row = record.case(name, of, needs=_NEEDS_S)
            alone = alone or row.get("step_ms")


def _compiled(config: RunConfig, numbers: Sequence[int]) -> dict[int, Future[Program]]:
    """The programs for so many cells, compiled beside each other because nothing is being timed; kernels are chosen
    before, because that is a measurement."""
    kernels = {number: kernel_of(config, jax.devices()[0], number) for number in numbers}
    with ThreadPoolExecutor(4) as pool:
        programs = {n: pool.submit(program_of, config, VOCAB, kernels[n], n) for n in numbers}
        wait(programs.values())
    return programs


def _timed(config: RunConfig, number: int, compiled: Future[Program] | None, alone_ms: float | None) -> dict[str, Any]:
    """Steps are sent without waiting, as `training.trunk` does."""
    assert compiled is not None, "a case that is owed was compiled"
    program, started = compiled.result(), 0.0
    shape = (number, config.train.sequences, config.train.seq_len + 1)
    batch = np.random.default_rng(0).integers(VOCAB - 1, size=shape).astype(np.int32)
    inputs = (batch[0], np.float32(1e-3)) if number == 1 else (batch, np.full(number, 1e-3, np.float32))
    state, reported = program.first(range(number)), None
    for step in range(_WARM + _TIMED):
        if step == _WARM:
            jax.block_until_ready(reported)
            started = time.perf_counter()
        state, reported = program.step(state, *inputs)
    jax.block_until_ready((state, reported))
    step_ms = 1e3 * (time.perf_counter() - started) / _TIMED
    return {
        "n_experts": config.model.n_experts,
        "together": number,
        "kernel": kernel_of(config, jax.devices()[0], number),
        "step_ms": step_ms,
        "cells_per_step_s": 1e3 * number / step_ms,
        "speedup": None if alone_ms is None else number * alone_ms / step_ms,
        "peak_bytes": program.peak_bytes,
    }
