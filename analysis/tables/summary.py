"""Summaries: a value as one table and what to know about it, text in a console and HTML in a notebook."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass

import pandas as pd

_WIDTH = 100  # columns of text
_MOST_NOTES, _MOST_LETTERS = 3, 240  # of a short form


@dataclass(frozen=True, repr=False)
class Summary:
    """A heading, a table whose cells are texts, and notes to read before its numbers are used."""

    heading: str
    table: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        blocks = [textwrap.fill(self.heading, _WIDTH), _aligned(self.table)]
        if self.notes:
            hanging = "    "
            numbered = (f"[{number}] {note}" for number, note in enumerate(self.notes, start=1))
            blocks.append("\n".join(textwrap.fill(note, _WIDTH, subsequent_indent=hanging) for note in numbered))
        return "\n\n".join(block for block in blocks if block)

    __repr__ = __str__

    @property
    def short(self) -> Summary:
        """The same with at most three notes, cut to a line or two: the form in which values show themselves."""
        notes = [textwrap.shorten(note, _MOST_LETTERS, placeholder=" …") for note in self.notes[:_MOST_NOTES]]
        if len(self.notes) > _MOST_NOTES:
            notes.append(f"{len(self.notes) - _MOST_NOTES} more notes")
        return Summary(textwrap.shorten(self.heading, _MOST_LETTERS, placeholder=" …"), self.table, tuple(notes))

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        table = self.table.to_html(index=False, border=0) if len(self.table) else ""
        return f"<p><b>{html.escape(self.heading)}</b></p>{table}" + (f"<ol>{notes}</ol>" if notes else "")


def _aligned(table: pd.DataFrame) -> str:
    """The table as text, columns flush left and two spaces apart."""
    if table.empty:
        return ""
    lines = [
        [str(name) for name in table.columns],
        *([str(cell) for cell in row] for row in table.itertuples(index=False)),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
