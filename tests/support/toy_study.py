"""A study of the toy task, written as a sweep writes it, without running one."""

from __future__ import annotations

from pathlib import Path

from toy_task import train_cells

from scaling.config.run import by_trunk
from scaling.observer import UNOBSERVED
from scaling.tasks.cell import TaskCell
from sweeps.grid import parse, resolved
from sweeps.store import Store

GRID = (
    "study: coins\ntask: toy\nsettings: {replicates: 40}\n"
    "grid: {n_experts: [1, 4, 16], samples: [100, 300, 1K, 3K], seed: [0, 1]}\n"
)


def write_study(out: Path, text: str = GRID) -> Path:
    """All cells of a grid with their rows; those that fail have a row too. The toy task has to be registered."""
    grid, store = parse(text, out / "grid.yaml"), Store(out)
    for trunk in by_trunk(grid.cells):
        cells = [cell for cell in trunk if isinstance(cell, TaskCell)]
        for made in train_cells(cells, None, UNOBSERVED):
            took = {"executor": "inline", "started_at": "2026-01-01T00:00:00+00:00", "wall_s": 0.5}
            store.write_cell(made.run | took, made.evals, made.curves)
    store.write_grid(resolved(grid))
    return out
