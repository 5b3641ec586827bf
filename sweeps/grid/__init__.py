"""Grid files: cells said as axes, shorthands, formulas and conditions (docs/grid.md)."""

from sweeps.grid.cells import LeftOut
from sweeps.grid.grid import Grid, axis_value, cell_at, resolved, with_axes
from sweeps.grid.names import AXES, FIXES, SECTIONS, Names, names_of
from sweeps.grid.point import Refusal
from sweeps.grid.read import load_grid, named_grids, parse

__all__ = [
    "AXES",
    "FIXES",
    "SECTIONS",
    "Grid",
    "LeftOut",
    "Names",
    "Refusal",
    "axis_value",
    "cell_at",
    "load_grid",
    "named_grids",
    "names_of",
    "parse",
    "resolved",
    "with_axes",
]
