"""Short labels of cells."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from scaling.config.cell import Cell
from scaling.config.run import RunConfig
from scaling.formatting import si
from scaling.tasks import LANGUAGE_MODEL
from sweeps.grid import Grid, axis_value

_SHORT = {"n_experts": "E", "d_model": "d", "tokens": "D"}


def cell_labels(grid: Grid) -> dict[Cell, str]:
    """A label of each cell with the axes that vary and that it uses: `E=8 d=64 D=4M seed=1`; of another task than the
    language model with its budget: `n_experts=8 samples=100K`."""
    axes, named = grid.names.axes, {*grid.axes}
    short = _SHORT if grid.task == LANGUAGE_MODEL else {}
    first, last = (tuple(short), ()) if short else ((), (grid.names.budget[0],))
    values = {cell: {name: axis_value(cell, name) for name in named.union(first, last)} for cell in grid.cells}
    others = [name for name in axes if name in named and name not in (*first, *last)]
    varied = [name for name in others if len({cell[name] for cell in values.values()}) > 1]
    words = {}
    for cell, fields in values.items():
        unused = _unused(cell, varied, grid)
        own = [*first, *(name for name in varied if name not in unused), *last]
        words[cell] = " ".join(f"{short.get(name, name)}={_short(fields[name])}" for name in own)
    return words


def _unused(cell: Cell, names: Collection[str], grid: Grid) -> set[str]:
    """Fields of a model that it does not use."""
    if not isinstance(cell, RunConfig):
        return set()
    read = cell.model.identity()
    return {name for name in names if grid.names.axes[name] == "model" and name not in read}


def _short(value: Any) -> str:
    return si(value) if isinstance(value, int | float) and value >= 10_000 else str(value)
