"""Summaries: how a value shows itself in a console and in a notebook."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import MISSING, fields, replace
from typing import Any

from scaling.formatting import plural
from scaling.table import Column, Table

_WIDTH = 100  # columns of text
_MOST_NOTES, _MOST_LETTERS = 3, 200  # of the short form


class Summarised(ABC):
    """Mixed into a value that has a `summary`: its `repr` and its cell in a notebook are the summary's short form."""

    @abstractmethod
    def summary(self) -> Table:
        """The value as one table, and what to know before its numbers are used."""

    def __repr__(self) -> str:
        return str(_short(self.summary()))

    def _repr_html_(self) -> str:
        return _short(self.summary())._repr_html_()


def summary_table(title: str, headings: Iterable[str], rows: Iterable[tuple[str, ...]], notes: Iterable[str]) -> Table:
    """A table of texts, with notes that are numbered and broken into lines."""
    columns = tuple(Column(heading, heading, text=True) for heading in headings)
    return summarised(Table(title, columns, tuple(rows)), title, notes)


def summarised(table: Table, title: str, notes: Iterable[str]) -> Table:
    """The table under a title, with notes that are numbered and broken into lines."""
    numbered = (f"[{number}] {note}" for number, note in enumerate(notes, start=1))
    return replace(table, title=_lines(title), notes=tuple(_lines(note, "    ") for note in numbered))


def _lines(text: str, indent: str = "") -> str:
    """Broken into lines, but not at a hyphen: names such as `dense-wide` stay whole."""
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _cut(text: str) -> str:
    return textwrap.shorten(text, _MOST_LETTERS, placeholder=" …", break_on_hyphens=False)


class Settings:
    """Mixed into a dataclass of settings: it shows the fields that differ from their defaults, as code sets them."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in _given(self))})"

    def _repr_html_(self) -> str:
        return summary_table(type(self).__name__, ("field", "value"), _given(self), ())._repr_html_()


def _given(value: Any) -> list[tuple[str, str]]:
    given = []
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if (content := getattr(value, field.name)) != default:
            given.append((field.name, repr(content)))
    return given


def _short(table: Table) -> Table:
    """The same with at most three notes, each cut to two lines."""
    notes = [_lines(_cut(note), "    ") for note in table.notes[:_MOST_NOTES]]
    left = len(table.notes) - _MOST_NOTES
    more = [f"and {plural(left, 'more note')}"] if left > 0 else []
    return replace(table, title=_cut(table.title), notes=(*notes, *more))
