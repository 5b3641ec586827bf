"""How long cells of another task than the language model train: as such cells took, or as is assumed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from scaling.config.cell import Cell
from scaling.errors import InputError, WorkError
from scaling.formatting import plural
from scaling.tasks.costs import train_flops
from sweeps.store import GRID, Store, StoredCell

# Assumed until cells have been measured: a core on small products, and a process that starts and compiles.
FLOPS_PER_S, OVERHEAD_S = 1e9, 5.0
_HEAD = 20_000  # characters of a grid in which its task stands


def task_seconds(
    cells: Sequence[Cell], parts: Mapping[Cell, StoredCell], beside: Path | None = None
) -> tuple[dict[Cell, float], str]:
    """Seconds of each cell, and what they rest on.

    Seconds are a + b FLOPs, by the finished cells among `parts`; without any by those of the same task in the studies
    of the folder `beside`; else a and b are assumed.
    """
    timed = [part for cell in cells if cell in parts for part in _timed([parts[cell]])]
    basis = f"as {plural(len(timed), 'cell')} of the study took"
    if not timed and beside is not None and cells:
        timed, names = _of_studies(beside, cells[0].task)
        basis = f"as {plural(len(timed), 'cell')} of the same task took in {', '.join(names)}"
    if timed:
        overhead_s, per_flop = line([part.train_flops for part in timed], [part.wall_s for part in timed])
        basis += f": {overhead_s:.2g} s" + (f" and {1 / per_flop:.2g} FLOP/s" if per_flop else "") + " a cell"
    else:
        overhead_s, per_flop = OVERHEAD_S, 1.0 / FLOPS_PER_S
        basis = f"assumed: {OVERHEAD_S:g} s and {FLOPS_PER_S:.0e} FLOP/s a cell, until a cell of this task has been run"
    return {cell: overhead_s + per_flop * train_flops(cell) for cell in cells}, basis


def line(flops: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """a and b, not negative, of seconds = a + b FLOPs, by least squares of relative errors.

    Cells of one number of FLOPs do not tell a from b: then a is 0.
    """
    x, y = np.asarray(flops, dtype=float), np.asarray(seconds, dtype=float)
    if np.ptp(x) > 0:
        scale = float(x.max())
        design = np.stack([1 / y, x / (scale * y)], axis=1)
        a, b = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0] / [1.0, scale]
        if a >= 0 and b >= 0:
            return float(a), float(b)
        if b < 0:  # more FLOPs took no longer
            return float(np.sum(1 / y) / np.sum(1 / y**2)), 0.0
    return 0.0, float(np.sum(x / y) / np.sum((x / y) ** 2))


def _timed(parts: Iterable[StoredCell]) -> list[StoredCell]:
    return [part for part in parts if part.ok and part.wall_s > 0 and part.train_flops > 0]


def _of_studies(folder: Path, task: str) -> tuple[list[StoredCell], list[str]]:
    """The timed cells of a task in the studies of a folder, and the names of these."""
    found, names = [], []
    for study in _studies(folder, task):
        try:
            timed = [part for part in _timed(Store(study).survey().cells.values()) if part.task == task]
        except (InputError, WorkError):  # a damaged study says nothing of the time
            continue
        found += timed
        names += [study.name] if timed else []
    return found, names


def _studies(folder: Path, task: str) -> Iterator[Path]:
    """The studies whose grid names this task, by its text: grids of tasks that are not installed lie there too."""
    named = re.compile(rf"^task:\s*['\"]?{re.escape(task)}['\"]?\s*(#.*)?$", re.MULTILINE)
    for grid in sorted(folder.glob(f"*/{GRID}")):
        try:
            with grid.open(encoding="utf-8", errors="replace") as text:
                if named.search(text.read(_HEAD)):
                    yield grid.parent
        except OSError:
            continue
