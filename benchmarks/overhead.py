"""What Ray costs a sweep: seconds per trial that does nothing, and the share of their time that workers work.

`python -m benchmarks.overhead [--json] [empty] [working]` sweeps stub cells, one trial each, which write rows of real
size: `empty` without any work on one worker, `working` with cells that sleep on two. The clock runs from the start of
the first cell to the end of the last; the start of Ray is given apart. The driver's CPU seconds tell more than wall
seconds where the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scaling import data
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from sweeps.execute import run_sweep
from sweeps.grid import load_grid
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.worker import CellFunctions

FUNCTIONS = CellFunctions("benchmarks.overhead:train", "benchmarks.overhead:measure")
WORK = "OVERHEAD_CELL_S"
MOST_S, LEAST_SHARE = 0.1, 0.9
PARTS: dict[str, Callable[[float], tuple[int, float]]] = {
    "empty": lambda cell_s: (1, 0.0),
    "working": lambda cell_s: (2, cell_s),
}
"""Workers and seconds of a cell."""


def train(cells: Sequence[RunConfig], checkpoints: Path, observer: Any) -> Iterator[Any]:
    """Rows without training, after as many seconds as the environment says."""
    for cell in cells:
        time.sleep(float(os.environ[WORK]))
        row = describe(cell, data.prepare(cell.data).hash) | {"status": "ok", "error": "", "loss_val": 3.0}
        evals = [{"document": f"{i}", "n_tokens": 100, "n_bytes": 100, "loss": 3.0} for i in range(100)]
        curves = [{"step": i, "tokens": i, "lr": 0.1, "loss": 3.0} for i in range(1, 41)]
        yield SimpleNamespace(run=row | {"train_s": 0.0, "wall_s": 0.0}, evals=evals, curves=curves)


def measure(cell: RunConfig) -> list[dict[str, Any]]:
    """A latency row without measuring."""
    return [{"shape_id": cell.shape_id(), "phase": "decode", "batch": 1, "context": 16, "time_ms": 1.0}]


@dataclass(frozen=True)
class Overhead:
    """Of a sweep of `trials` cells of `cell_s` seconds on `workers`: seconds to the first cell, from then to the end of
    the last, CPU seconds of the driver, and the load of the machine."""

    trials: int
    workers: int
    cell_s: float
    start_s: float
    wall_s: float
    driver_cpu_s: float
    load: float

    def __str__(self) -> str:
        what = f"{self.trials} cells of {self.cell_s:g} s on {self.workers} workers"
        busy = f", busy {self.efficiency:.1%} (goal {LEAST_SHARE:.0%})" if self.cell_s else ""
        cpu_ms = 1e3 * self.driver_cpu_s / self.trials
        costs = f"{self.per_trial_s:.3f} s a trial beside its work (goal {MOST_S}), {cpu_ms:.0f} ms of the driver's CPU"
        return f"{what}: {costs}{busy}; load {self.load:.1f}"

    @property
    def per_trial_s(self) -> float:
        """Wall seconds of a worker beyond its cells, per trial."""
        return self.wall_s * self.workers / self.trials - self.cell_s

    @property
    def efficiency(self) -> float:
        """Share of the workers' time in which cells worked."""
        return self.trials * self.cell_s / (self.workers * self.wall_s)


def overhead(folder: Path, trials: int, workers: int, cell_s: float) -> Overhead:
    """Sweep once."""
    os.environ[WORK] = str(cell_s)
    grid = folder / "grid.yaml"
    grid.write_text(
        "study: overhead\n"
        f"data: {{corpus: files, paths: ['{folder}/docs/*.txt'], heldout_docs: 100, eval_windows: 2}}\n"
        f"grid: {{d_model: 16, tokens: 1K, seed: {list(range(trials))}}}\n"
        "model: {n_layers: 1, d_head: 8, n_experts: 2}\n"
        "train: {batch_tokens: 64, seq_len: 16, warmup_tokens: 128}\nbench: {batch: [1], context: [16], repeats: 5}\n"
    )
    began, cpu = time.monotonic(), time.process_time()
    clock = _Clock(began)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        progress = _Timed(clock, stream=nowhere)
        run_sweep(
            load_grid(grid), folder / f"study-{trials}-{cell_s:g}", Options(max_concurrent=workers), progress, FUNCTIONS
        )
    wall_s = clock.last - clock.first
    return Overhead(trials, workers, cell_s, clock.first - began, wall_s, time.process_time() - cpu, os.getloadavg()[0])


@dataclass
class _Clock:
    first: float
    last: float = 0.0
    started: bool = False


class _Timed(Progress):
    """Notes when the first cell started and the last one ended."""

    def __init__(self, clock: _Clock, stream: Any) -> None:
        super().__init__(stream=stream)
        self._clock = clock

    def cell_started(self) -> None:
        if not self._clock.started:
            self._clock.started, self._clock.first = True, time.monotonic()
        super().cell_started()

    def cell_ended(self, label: str, status: str, *rest: Any, **more: Any) -> None:
        if not label.startswith("latency"):
            self._clock.last = time.monotonic()
        super().cell_ended(label, status, *rest, **more)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and end with status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="empty, working; both by default")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--cell-seconds", type=float, default=1.0, help="of a cell that works")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "docs").mkdir()
        os.environ["SCALING_CACHE"] = str(folder / "cache")
        for i in range(250):
            (folder / "docs" / f"{i:03}.txt").write_text(f"document {i} counts to {i + 1}, then to {i * i}.\n" * 2)
        found = [overhead(folder, asked.trials, *PARTS[part](asked.cell_seconds)) for part in asked.parts or PARTS]
    if asked.json:
        print(
            json.dumps([asdict(one) | {"per_trial_s": one.per_trial_s, "efficiency": one.efficiency} for one in found])
        )
    else:
        for one in found:
            print(one)
    if any(one.per_trial_s > MOST_S or (one.cell_s and one.efficiency < LEAST_SHARE) for one in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
