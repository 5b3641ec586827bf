"""Training steps of this package on this computer over width, depth, E, k and batch: the rows of a training-speed law.

    python -m benchmarks.training_speed --out training.parquet [--rounds N]

One thread, as a cell of a sweep. Shapes take turns in rounds of a few steps each, after one that settles the heap,
because a shared computer's speed drifts by a fifth over minutes. `step_time_ms` is the time that the process has a
core for a step, median over rounds of the median step: with one thread that is what the step takes where no other
process wants the core. `wall_time_ms` is the same by the clock, and `busy_cores` how busy others were.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scaling.config.bench import Resources
from scaling.config.counts import parameters
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.serving.calibration import cpu_cores
from scaling.serving.device import Device
from scaling.serving.devices import device
from scaling.training import malloc
from sweeps import worker

STEPS, MOST_S = 5, 0.6  # of a round: steps of a shape, and seconds after which it has had its turn
_EXPERTS = (1, 2, 4, 8, 16, 32)


def shapes() -> list[RunConfig]:
    """The measured shapes: width and E crossed at two layers, k = 1 and 1,024 tokens; then depth, k and the batch."""
    crossed = [(d, 2, e, 1, 1024) for d in (32, 64, 128, 256) for e in _EXPERTS]
    deeper = [(d, 4, e, 2, 512) for d in (64, 128) for e in (1, 8, 32)]
    larger = [(d, 2, e, 2, 2048) for d in (32, 128) for e in (1, 8, 32)]
    smaller = [(64, 2, e, 1, 256) for e in (1, 4, 16)]
    return [_cell(*shape) for shape in (*crossed, *deeper, *larger, *smaller)]


def _cell(d_model: int, n_layers: int, n_experts: int, top_k: int, batch_tokens: int) -> RunConfig:
    return RunConfig(
        model=ModelConfig(d_model=d_model, n_layers=n_layers, n_experts=n_experts, top_k=top_k, router="topk"),
        train=TrainConfig(batch_tokens=batch_tokens, seq_len=128, warmup_tokens=0),
        resources=Resources(cpus=1),
    )


class _Timed:
    """A shape, its program and its times so far, by round."""

    def __init__(self, config: RunConfig) -> None:
        import jax

        from scaling.training.kernel_choice import kernel_of

        self.config, self.kernel = config, kernel_of(config, jax.devices()[0])
        self.rounds: list[list[tuple[float, float]]] = []  # of steps: seconds on a core, and by the clock
        self.busy: list[float] = []
        started = time.perf_counter()
        self._program()
        self.compile_s = time.perf_counter() - started

    def _program(self) -> Any:
        from scaling.training.trunk import program_of

        return program_of(self.config, self.config.data.vocab_size, self.kernel)

    def round(self) -> None:
        """Some steps from the first weights on, the first of them untimed."""
        import jax

        from scaling.training.inference_bench import others_busy

        program, train = self._program(), self.config.train
        state, rng = program.first([0]), np.random.default_rng(len(self.rounds))
        times: list[tuple[float, float]] = []
        while len(times) <= STEPS and (len(times) < 2 or sum(core for core, _ in times) < MOST_S):
            batch = rng.integers(
                self.config.data.vocab_size - 1, size=(train.sequences, train.seq_len + 1), dtype=np.int32
            )
            started = time.process_time(), time.perf_counter()
            state, reported = program.step(state, batch, np.float32(1e-3))
            jax.block_until_ready((state, reported))
            times.append((time.process_time() - started[0], time.perf_counter() - started[1]))
        self.rounds.append(times[1:])
        self.busy.append(others_busy(0.1) or 0.0)

    def row(self) -> dict[str, Any]:
        """The measurement, in the columns of the run table where it has one."""
        import jax

        from scaling.training import host
        from scaling.training.language_model import versions

        model, train = self.config.model, self.config.train
        sizes = parameters(model, self.config.data.vocab_size)
        names = ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_expert")
        medians = np.array([np.median(times, axis=0) for times in self.rounds])
        quartiles = np.quantile(medians[:, 0], [0.25, 0.75])
        return {
            **{name: getattr(model, name) for name in names},
            "vocab_size": self.config.data.vocab_size,
            "n_active": sizes.n_active,
            "n_total": sizes.n_total,
            "n_router": sizes.router,
            "dispatch": model.dispatch if model.n_experts > 1 else "dense",
            "kernel": self.kernel or None,
            "batch_tokens": train.batch_tokens,
            "seq_len": train.seq_len,
            "platform": jax.devices()[0].platform,
            "dtype": model.dtype,
            "threads": host.threads(),
            "devices": 1,
            "step_time_ms": 1e3 * float(np.median(medians[:, 0])),
            "step_time_q25_ms": 1e3 * float(quartiles[0]),
            "step_time_q75_ms": 1e3 * float(quartiles[1]),
            "wall_time_ms": 1e3 * float(np.median(medians[:, 1])),
            "rounds": len(medians),
            "busy_cores": float(np.median(self.busy)),
            "compile_s": self.compile_s,
            "versions": versions(),
        }


def device_beside_other_work() -> Device:
    """This computer's CPU, its peak and bandwidth from the time on a core of float32 products and of reading 256 MB, so
    that what other processes take is not in them; times the cores."""
    import jax
    import jax.numpy as jnp

    product, sides = jax.jit(lambda a, b: a @ b), (256, 512, 1024)
    squares = {side: jax.random.normal(jax.random.key(0), (side, side)) for side in sides}
    weights = jnp.ones(2**26, jnp.float32)
    read = jax.jit(jnp.max)
    peak = max(2 * side**3 / _fastest(partial(product, square, square)) for side, square in squares.items())
    bandwidth = weights.nbytes / _fastest(partial(read, weights))
    cores = cpu_cores()
    return replace(device("cpu"), peak_flops=cores * peak, bandwidth=cores * bandwidth)


def _fastest(call: Callable[[], Any], calls: int = 12) -> float:
    """Seconds on a core of the fastest call, after one that compiles."""
    call().block_until_ready()
    times = []
    for _ in range(calls):
        started = time.process_time()
        call().block_until_ready()
        times.append(time.process_time() - started)
    return min(times)


def measure(configs: Sequence[RunConfig], rounds: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Times of a training step of each shape, all shapes in turn, so many rounds in orders of their own."""
    malloc.keep()
    timed = []
    for config in configs:
        timed.append(_Timed(config))
        model = config.model
        say(f"E={model.n_experts} d={model.d_model} L={model.n_layers}: compiled in {timed[-1].compile_s:.1f} s")
    order = np.random.default_rng(0)
    for number in range(rounds):
        for index in order.permutation(len(timed)):
            timed[index].round()
        say(f"round {number + 1} of {rounds}")
    on = json.dumps(asdict(device_beside_other_work()))
    return [shape.row() | {"device": on} for shape in timed]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="where the rows go, as Parquet")
    parser.add_argument("--rounds", metavar="N", type=int, default=6)
    options = parser.parse_args(arguments)
    os.environ |= worker.environment(1, 0)  # before JAX is imported
    import pandas as pd

    rows = measure(shapes(), options.rounds, lambda text: print(text, file=sys.stderr, flush=True))
    pd.DataFrame(rows).to_parquet(options.out)
    print(json.dumps({"shapes": len(rows), "out": str(options.out)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
