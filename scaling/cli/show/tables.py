"""A table as lines of text, no wider than asked: columns that are too wide are wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from scaling.table import Column, Table

_GAP = 2


def text_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()) -> Table:
    """A table of texts. The columns named in `left` are aligned left, the others right, as numbers are."""
    columns = tuple(Column(heading, heading, text=heading in left) for heading in headings)
    return Table(title, columns, tuple(tuple(row) for row in rows))


def table_lines(table: Table, width: int) -> tuple[list[str], list[list[str]]]:
    """The heading's lines, and the lines of each row; words longer than a column allows are kept whole."""
    lines = [table.headings, *table.cells]
    columns = [[line[i] for line in lines] for i in range(len(table.columns))]
    widths = _widths(columns, [column.text for column in table.columns], width - _GAP * (len(columns) - 1))
    heading, *rows = ([*_wrapped(table, line, widths)] for line in lines)
    return heading, rows


def _widths(columns: Sequence[Sequence[str]], wrapping: Sequence[bool], room: int) -> list[int]:
    """The width of each column: its longest cell, less where the widest have to wrap. Numbers do not, headings do."""
    widths = [max(map(len, column)) for column in columns]
    least = [
        max(
            len(part) for i, cell in enumerate(column) for part in (cell.split() if wraps or i == 0 else [cell]) or [""]
        )
        for column, wraps in zip(columns, wrapping, strict=True)
    ]
    while sum(widths) > room:
        spare = [i for i, width in enumerate(widths) if width > least[i]]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def _wrapped(table: Table, line: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    """The lines that one row takes."""
    cells = [
        textwrap.wrap(cell, max(1, width), break_long_words=False, break_on_hyphens=False)
        for cell, width in zip(line, widths, strict=True)
    ]
    for i in range(max(1, *map(len, cells))):
        parts = (cell[i] if i < len(cell) else "" for cell in cells)
        aligned = (
            part.ljust(width) if column.text else part.rjust(width)
            for part, width, column in zip(parts, widths, table.columns, strict=True)
        )
        yield (" " * _GAP).join(aligned).rstrip()
