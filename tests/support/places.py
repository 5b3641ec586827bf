"""The folders of a sweep test, and drivers in separate processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.execute import run_sweep
from sweeps.grid import load_grid
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.status import StudyStatus
from sweeps.store import Store
from sweeps.worker import CellFunctions

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAKE = CellFunctions("fakes:train", "fakes:measure")


@dataclass(frozen=True)
class Place:
    """The folder of a test, the study's folder, the log of the fake work, and the file that stops it from failing."""

    folder: Path
    out: Path
    log: Path
    mercy: Path

    def grid(self, block: str, *, study: str = "tiny", more: str = "") -> Path:
        """A grid file whose only block is `block`."""
        path = self.folder / "grid.yaml"
        path.write_text(
            f"study: {study}\n"
            "data: {corpus: files, paths: [docs/*.txt], heldout_docs: 100, eval_windows: 2}\n"
            f"grid: {block}\n"
            "model: {n_layers: 1, d_head: 8, n_experts: 2}\n"  # routed trunks train apart, dense ones together
            "train: {batch_tokens: 64, seq_len: 16, warmup_tokens: 128}\n"
            "bench: {batch: [1], context: [16], repeats: 5}\n" + more
        )
        return path

    def noted(self, word: str) -> list[str]:
        """The entries of the fake work's log that begin with this word, without it."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.removeprefix(word + " ") for line in lines if line.startswith(word + " ")]

    def drive(self, grid: Path, executor: str = "inline", *flags: str) -> subprocess.Popen[str]:
        """Start a driver with fake work in a separate process."""
        return subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), str(grid), str(self.out), executor, *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )


TIMES = {"started_at", "wall_s", "compile_s", "train_s", "tokens_per_s", "executor"}
TIMINGS = {
    "time_ms",
    "time_q25_ms",
    "time_q75_ms",
    "roofline_ms",
    "busy_cores",
    "repeats",
    "device",
    "distinct_experts",
}
"""Columns of measured latency, which differ from run to run."""


def table(out: Path, name: Any) -> list[dict[str, Any]]:
    """All rows of a table without times, in the order of the cells."""
    files = sorted((out / name).glob("*.parquet"))
    rows = [row for file in files for row in Store(out).read(name, file.stem)]
    return [{column: value for column, value in row.items() if column not in TIMES} for row in rows]


def sweep(path: Path, place: Place, functions: CellFunctions = FAKE, **options: Any) -> StudyStatus:
    """Run a grid here, with fake work unless other functions are given."""
    options = {"executor": "inline"} | options
    return run_sweep(load_grid(path), place.out, Options(**options), Progress(io.StringIO()), functions)
