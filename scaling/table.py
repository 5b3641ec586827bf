"""Tables: columns and rows made once, which the terminal, the report and a notebook each render."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "–"


@dataclass(frozen=True)
class Column:
    """A column: `field` is where a row has its value (`cost.total` for an attribute of an attribute).

    `label` and `unit` head it, `write` makes a value text (`scaling.formatting`); a value that is None is shown as a
    dash. Numbers are aligned right, texts left.
    """

    field: str
    label: str
    write: Callable[[Any], str] = str
    unit: str = ""
    text: bool = False

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def name(self) -> str:
        """The name of this column in a data frame."""
        return self.field.replace(".", "_")


@dataclass(frozen=True, repr=False)
class Table:
    """A title, columns, rows of values in their order, and notes that say how to read them.

    Render it with `cells` (texts, with `columns` for heading and alignment), or as `frame` (the values themselves) or
    HTML.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, title: str, columns: Iterable[Column], items: Iterable[Any], notes: Iterable[str] = ()) -> Table:
        """The table of these items, one a row, by their attributes."""
        columns = tuple(columns)
        getters = [attrgetter(column.field) for column in columns]
        rows = tuple(tuple(getter(item) for getter in getters) for item in items)
        return cls(title, columns, rows, tuple(notes))

    def without_empty_columns(self) -> Table:
        """Without the columns that have no value in any row."""
        values = zip(*self.rows, strict=True)
        return self.without(
            *(column.field for column, of in zip(self.columns, values, strict=False) if all(v is None for v in of))
        )

    def without(self, *fields: str) -> Table:
        """Without the columns of these fields."""
        kept = [i for i, column in enumerate(self.columns) if column.field not in fields]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
        )

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        """Every value as text, row by row."""
        return [
            [UNKNOWN if value is None else column.write(value) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    @property
    def frame(self) -> pd.DataFrame:
        """The values as numbers, columns named as in files and tables."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=[column.name for column in self.columns])

    def __str__(self) -> str:
        lines = [self.headings, *self.cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        aligned = [
            "  ".join(
                cell.ljust(width) if column.text else cell.rjust(width)
                for cell, width, column in zip(line, widths, self.columns, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*([self.title] if self.title else []), *aligned, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            sides = ["left" if column.text else "right" for column in self.columns]
            filled = zip(cells, sides, strict=True)
            return (
                "<tr>"
                + "".join(f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>' for cell, side in filled)
                + "</tr>"
            )

        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        body = "".join(row("td", cells) for cells in self.cells)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table>{title}<thead>{row('th', self.headings)}</thead><tbody>{body}</tbody></table>{notes}"
