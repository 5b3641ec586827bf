"""Expressions on a table: its columns as their operands, and the rows that meet a condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.numbers import Numbers, column_of
from analysis.tables.reading_log import ReadingLog, rows_named
from scaling.errors import InputError
from scaling.expression import READINGS, Column, Expression
from scaling.formatting import listed


class ColumnsOf:
    """The columns of a frame for one expression: called with a name, and with the reading of its commas if asked.

    Of all columns that were read: `missing` rows, `unreadable` cells by row, and the `conventions` of their numbers.
    Raises InputError for a column that the frame lacks, and for commas that cannot be read.
    """

    def __init__(self, frame: pd.DataFrame, place: str) -> None:
        self.frame, self.place = frame, place
        self.missing = np.zeros(len(frame), dtype=bool)
        self.unreadable: dict[int, Any] = {}
        self.conventions: list[str] = []

    def __call__(self, name: str, reading: str | None) -> Column:
        if name not in self.frame:
            raise InputError(f"{self.place}: no column {name!r}; it has {listed(self.frame.columns, most=40)}")
        column, read = column_of(self.frame[name], reading)
        if read.doubt and not column.is_text:
            raise InputError(f"{self.place}: {doubt_of(self.frame[name], read, as_term(name))}")
        self.missing |= read.missing
        if not column.is_text:
            rows = np.flatnonzero(read.unreadable)
            self.unreadable |= zip(rows.tolist(), self.frame[name].to_numpy(dtype=object)[rows], strict=True)
        self.conventions += [f"{name}: {convention}" for convention in read.conventions]
        return column


def as_term(name: str) -> str:
    """A column's name as an expression contains it."""
    return name if name.isidentifier() else f"`{name}`"


def doubt_of(cells: pd.Series[Any], read: Numbers, term: str, ours: str = "") -> str:
    """Why the commas of a column cannot be read, with its rows, and how to say what they are; `ours` is its name in a
    `map`."""
    rows = cells.index[read.unreadable]
    choices = [f"{reading}({term})" for reading in READINGS]
    remedy = f"`map` '{ours}={choices[0]}' or '{ours}={choices[1]}'" if ours else f"{choices[0]} or {choices[1]}"
    return f"{term}: {read.doubt} ({rows_named(rows, cells[rows])}); say what a comma is with {remedy}"


def where_selected(frame: pd.DataFrame, where: str | None, log: ReadingLog) -> pd.DataFrame:
    """The rows in which a condition on columns holds (`scaling.expression`); the others are counted.

    Rows in which it cannot be told, because a cell that it compares is missing or no number, are left out too, and
    named. Raises InputError for what is no condition.
    """
    if where is None:
        return frame
    truth = Expression(where, "`where`").condition(ColumnsOf(frame, f"`where` {where!r}"))
    holds, known = (np.broadcast_to(mask, len(frame)) for mask in (truth.holds, truth.known))
    open_ = f"a missing or unreadable cell in {where}"
    log.counts += [(f"not {where}", int((known & ~holds).sum())), (open_, int((~known).sum()))]
    log.name_rows(open_, frame.index[~known])
    return frame[known & holds]
