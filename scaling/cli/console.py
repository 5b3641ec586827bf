"""Sentences and plain tables for a person: at a terminal as wide as that is, in a file or a pipe wide enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from scaling.cli.output import with_options

if TYPE_CHECKING:
    from scaling.table import Table as Rows


class Terminal(Console):
    """Standard output: text as it is, without markup, in which fields carry the names of the command's options."""

    def __init__(self, width_in_file: int = 0, **style: Any) -> None:
        super().__init__(highlight=False, markup=False, **{"soft_wrap": True} | style)
        if not self.is_terminal:  # there nothing needs to be narrow
            self.width = max(self.width, width_in_file)

    def print(self, *objects: Any, **style: Any) -> None:
        """Print strings, which only `soft_wrap=False` breaks into lines, or a table, which fits the width."""
        wrap = {"soft_wrap": self.soft_wrap and all(isinstance(item, str) for item in objects)}
        super().print(*(with_options(item) if isinstance(item, str) else item for item in objects), **wrap | style)


class PlainTable(Table):
    """A table without lines, whose cells carry the names of the command's options."""

    def __init__(self, *headings: str, **style: Any) -> None:
        super().__init__(*headings, **{"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)} | style)

    def add_row(self, *cells: Any, **style: Any) -> None:
        """Add a row of strings."""
        super().add_row(*(with_options(cell) if isinstance(cell, str) else cell for cell in cells), **style)


def shown(rows: Rows) -> PlainTable:
    """A table of values as one for the terminal, without its title and notes."""
    table = PlainTable()
    for column in rows.columns:
        side: Literal["left", "right"] = "left" if column.text else "right"
        table.add_column(column.heading, justify=side)
    for cells in rows.cells:
        table.add_row(*cells)
    return table
