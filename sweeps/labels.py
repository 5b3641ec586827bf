"""Short labels of cells."""

from __future__ import annotations

from typing import Any

from scaling.config.run import RunConfig
from scaling.formatting import si
from sweeps.grid import AXES, Grid, axis_value

_SHORT = {"n_experts": "E", "d_model": "d", "tokens": "D"}


def cell_labels(grid: Grid) -> dict[RunConfig, str]:
    """A label of each cell with the axes that vary and that its model uses: `E=8 d=64 D=4M seed=1`."""
    named = {*grid.axes}
    values = {cell: {name: axis_value(cell, name) for name in named | {*_SHORT}} for cell in grid.cells}
    shown = [*_SHORT, *(name for name in AXES if name in named and name not in _SHORT)]
    shown = [name for name in shown if name in _SHORT or len({cell[name] for cell in values.values()}) > 1]
    words = {}
    for cell, fields in values.items():
        read = cell.model.identity()
        own = [name for name in shown if name in _SHORT or AXES[name] != "model" or name in read]
        words[cell] = " ".join(f"{_SHORT.get(name, name)}={_short(fields[name])}" for name in own)
    return words


def _short(value: Any) -> str:
    return si(value) if isinstance(value, int | float) and value >= 10_000 else str(value)
