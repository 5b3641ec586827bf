"""The quickstart sweep as a clock: its training phase by the command line, from caches that are empty or warm.

The command is stopped when training is over and the measuring of latency begins; nothing of ours needs that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sweeps.grid import load_grid

GRID = "quickstart"
INTERRUPTED = 130


@dataclass(frozen=True)
class Sweep:
    """One training of the grid. Seconds.

    wall_s, compile_s: summed over the rows.   phase_s: from the line that says training begins, which comes before Ray
    is started, to the last row on disk.   whole_s: from the start of the command to there.
    """

    wall_s: float
    compile_s: float
    phase_s: float
    whole_s: float

    @property
    def compile_share(self) -> float:
        return self.compile_s / self.wall_s


@dataclass(frozen=True)
class Sweeps:
    """Trainings of a grid: by two workers from an empty cache, which leaves the warm one; by two workers from that; and
    one cell after another in one process from that, where it was asked for."""

    cold: Sweep
    warm: Sweep
    alone: Sweep | None

    @property
    def parallel_efficiency(self) -> float:
        """The cells' wall time one by one over twice the training phase of two workers."""
        assert self.alone is not None
        return self.alone.wall_s / (2 * self.warm.phase_s)


def run_sweeps(grid: str, say: Callable[[str], None], *, alone: bool = True) -> Sweeps:
    """Train a grid cold, warm and, if wanted, one cell after another. Raises RuntimeError unless every cell is ok."""
    with tempfile.TemporaryDirectory() as folder:
        cache, place = Path(folder) / "cache", Path(folder)
        say(f"the sweep of {grid} from an empty cache")
        cold = run(grid, place / "cold", cache, "ray", say)
        say("the same from a warm cache")
        warm = run(grid, place / "warm", cache, "ray", say)
        if not alone:
            return Sweeps(cold, warm, None)
        say("the same, one cell after another")
        return Sweeps(cold, warm, run(grid, place / "alone", cache, "inline", say))


def run(grid: str, out: Path, cache: Path, executor: str, say: Callable[[str], None]) -> Sweep:
    """Train a whole grid into an empty folder. Raises RuntimeError unless every cell is ok."""
    command = [sys.executable, "-m", "scaling.cli.main", "sweep", "run", grid]
    command += ["--out", str(out), "--executor", executor]
    started = time.time()
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SCALING_CACHE": str(cache)},
    )
    begun, last = started, deque[str](maxlen=5)
    assert child.stderr is not None
    with child:
        try:
            stopped = False
            for line in child.stderr:
                if stopped:
                    continue  # a measuring process may complain of its early end
                last.append(line.rstrip())
                say(f"  {executor}: {last[-1]}")
                if line.startswith("training "):
                    begun = time.time()
                if line.startswith("measuring latency"):
                    child.send_signal(signal.SIGINT)
                    stopped = True
        except BaseException:
            child.send_signal(signal.SIGINT)
            raise
    if child.returncode not in (0, INTERRUPTED):
        raise RuntimeError(f"the sweep ended with code {child.returncode}: " + " | ".join(last))
    return read(grid, out, started, begun)


def read(grid: str, out: Path, started: float, begun: float) -> Sweep:
    """What the rows of a finished training say. `started`, `begun`: when the command started and when training began,
    as the file system counts seconds."""
    parts = sorted((out / "runs").glob("*.parquet"))
    rows = pd.concat([pd.read_parquet(part, columns=["status", "wall_s", "compile_s"]) for part in parts])
    expected, well = len(load_grid(grid).cells), int((rows["status"] == "ok").sum())
    if well != expected:
        raise RuntimeError(f"{well} of {expected} cells of {grid} are ok")
    ended = max(part.stat().st_mtime for part in parts)
    return Sweep(float(rows["wall_s"].sum()), float(rows["compile_s"].sum()), ended - begun, ended - started)
