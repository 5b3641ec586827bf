"""The quickstart sweep as a clock: its training phase by the command line, from caches that are empty or warm.

The command is stopped when training is over and the measuring of latency begins; nothing of ours needs that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sweeps.grid import load_grid

GRID = "quickstart"
INTERRUPTED = 130
_PREPARE = f"from scaling import data; from sweeps.grid import load; [data.prepare(c) for c in load('{GRID}').corpora]"


@dataclass(frozen=True)
class Sweep:
    """One training of the grid. Seconds.

    wall_s, compile_s: summed over the rows.   phase_s: from the line that says training begins, which comes before Ray
    is started, to the last row on disk.
    """

    wall_s: float
    compile_s: float
    phase_s: float

    @property
    def compile_share(self) -> float:
        return self.compile_s / self.wall_s


def prepare(cache: Path) -> None:
    """Tokenise the corpus into a cache that has nothing else."""
    subprocess.run([sys.executable, "-c", _PREPARE], env=os.environ | {"SCALING_CACHE": str(cache)}, check=True)


def run(out: Path, cache: Path, executor: str, say: Callable[[str], None]) -> Sweep:
    """Train the whole grid into an empty folder. Raises RuntimeError unless every cell is ok."""
    command = [sys.executable, "-m", "scaling.cli.main", "sweep", "run", GRID]
    command += ["--out", str(out), "--executor", executor]
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SCALING_CACHE": str(cache)},
    )
    begun, last = time.time(), deque[str](maxlen=5)
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
    return read(out, begun)


def read(out: Path, begun: float) -> Sweep:
    """What the rows of a finished training say. `begun`: when it began, as the file system counts seconds."""
    parts = sorted((out / "runs").glob("*.parquet"))
    rows = pd.concat([pd.read_parquet(part, columns=["status", "wall_s", "compile_s"]) for part in parts])
    expected, well = len(load_grid(GRID).cells), int((rows["status"] == "ok").sum())
    if well != expected:
        raise RuntimeError(f"{well} of {expected} cells of {GRID} are ok")
    ended = max(part.stat().st_mtime for part in parts)
    return Sweep(float(rows["wall_s"].sum()), float(rows["compile_s"].sum()), ended - begun)
