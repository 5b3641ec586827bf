"""Mapping: our columns from those of any table, by name or by arithmetic (`map` COLUMN=EXPRESSION)."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.laws import LAWS
from analysis.tables.expressions import ColumnsOf, as_term
from analysis.tables.reading_log import ReadingLog
from scaling.errors import InputError
from scaling.expression import Expression, Texts
from scaling.numbers import parse_number
from scaling.schema import RUNS

TIED = "tied_embeddings"  # 1 where embedding and head share one matrix; only `analysis.tables.counts` reads it
OUR_COLUMNS = frozenset({*RUNS, *(name for law in LAWS.own.values() for name in (*law.columns, law.target)), TIED})
_TEXTS = frozenset(name for name, column in RUNS.items() if column.type == pa.string())


def mapped(
    frame: pd.DataFrame, mapping: Mapping[str, str], source: str, log: ReadingLog, of_law: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame with our columns, and the term behind each of them as an expression would contain it.

    `mapping` is {our name: right side}; `of_law` are columns of a law beyond `OUR_COLUMNS`. A column of the table on
    the right is renamed; a number (`300B`) or a text in quotes makes a constant column; anything else is an expression
    (`scaling.expression`) on the table's own columns, with a note. An existing column of our name is replaced. The
    sides are swapped where the right one is a name of ours that the table lacks and the left one a column of it. Raises
    InputError for a column that the table lacks and for what is no expression.
    """
    known = OUR_COLUMNS | {*of_law}
    columns: dict[str, pd.Series[Any]] = {}
    terms: dict[str, str] = {}
    renamed: set[str] = set()
    for left, right in mapping.items():
        swapped = right in known and right not in frame and left in frame and left not in known
        ours, theirs = (right, left) if swapped else (left, right)
        if ours in columns or theirs in renamed:
            raise InputError(f"{source}: `map` {left}={right}: a column is mapped twice")
        if theirs in frame:
            columns[ours], terms[ours] = frame[theirs], as_term(theirs)
            renamed.add(theirs)
        else:
            columns[ours] = _computed(frame, ours, theirs, f"{source}: `map` {left}={right}", log)
            terms[ours] = f"({theirs})"
            log.notes.append(f"{ours} computed as {theirs}, as asked")
        if ours not in known:
            alike = difflib.get_close_matches(ours, sorted(known), n=1)
            hint = f" (did you mean {alike[0]}?)" if alike else ""
            unused = f"no fit or import reads a column {ours!r}{hint}; only `where` can use it"
            log.notes.append(f"`map` {left}={right}: {unused}")
    replaced = [name for name in frame.columns if name in columns or name in renamed]
    return frame.drop(columns=replaced).assign(**columns), terms


def _computed(frame: pd.DataFrame, ours: str, text: str, place: str, log: ReadingLog) -> pd.Series[Any]:
    """An expression's value by row; a row with an unreadable operand keeps that text, to be reported by the reader."""
    with contextlib.suppress(ValueError):
        return pd.Series(parse_number(text), index=frame.index, dtype=float)
    expression = Expression(text, place)
    columns = ColumnsOf(frame, place)
    result = expression.value(columns)
    if isinstance(result, Texts):
        if ours in RUNS and ours not in _TEXTS:
            raise InputError(f"{place}: {text!r} is text, and {ours} is a number")
        return pd.Series(np.broadcast_to(result.values, len(frame)).copy(), index=frame.index, dtype=object)
    if ours in _TEXTS and "+" in text and not re.search(r"[-*/%(0-9]", text):
        first, *_, last = expression.names
        joined = f"{as_term(first)} + '-' + {as_term(last)}"
        raise InputError(f"{place}: a sum of numbers is no name: join them as texts, {ours}={joined}")
    log.notes += columns.conventions
    values = pd.Series(np.broadcast_to(np.asarray(result, dtype=float), len(frame)).copy(), index=frame.index)
    undefined = np.flatnonzero(values.isna().to_numpy() & ~columns.missing)
    faults = dict.fromkeys(undefined.tolist(), f"undefined: {text}") | columns.unreadable
    if faults:
        values = values.astype(object)
        values.iloc[list(faults)] = list(faults.values())
    return values
