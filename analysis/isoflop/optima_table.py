"""Compute-optimal models that others report: a table with one row per budget, C and N*, perhaps D* and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.isoflop.valleys import SIZE
from analysis.tables.mapping import mapped
from analysis.tables.numbers import numbers
from analysis.tables.readers import read_table, with_plain_cells
from analysis.tables.reading_log import CheckedTable, ReadingLog, rows_named
from scaling.arrays import Array
from scaling.columns import COMPUTE, EXPERTS, LOSS, TOKENS
from scaling.errors import InputError
from scaling.formatting import listed


@dataclass(frozen=True)
class ReportedOptimum:
    """One row: the compute-optimal model of one E at one budget. `loss` is NaN where it is not reported."""

    n_experts: int
    train_flops: float
    n_opt: float
    d_opt: float
    loss: float
    flags: tuple[str, ...] = ()

    @property
    def loss_deviation(self) -> float:
        """Not reported."""
        return float("nan")


def read_optima(
    source: str | Path | pd.DataFrame, mapping: Mapping[str, str] | None = None, *, n_column: str = SIZE
) -> tuple[tuple[ReportedOptimum, ...], CheckedTable]:
    """The optima of a table, by E and budget, and the table: `train_flops` and N*, perhaps `tokens`, `loss_val`, E.

    `mapping` is {our column: the table's column or arithmetic} (`analysis.tables.mapping.mapped`). Without
    `train_flops`, C = 6 N* D*; without `tokens`, D* = C/(6 N*); without `n_experts`, E = 1. Raises InputError for a
    missing column and for a cell that is no positive number, by row.
    """
    log, name = ReadingLog(), "DataFrame" if isinstance(source, pd.DataFrame) else str(source)
    table = with_plain_cells(source, name) if isinstance(source, pd.DataFrame) else read_table(Path(source))
    frame, _ = mapped(table, mapping or {}, name, log)
    if n_column not in frame or not {COMPUTE, TOKENS} & set(frame.columns):
        raise InputError(
            f"{name}: optima need the columns {COMPUTE} (the budget) and {n_column} (N*); it has "
            f"{listed(frame.columns, most=40)}. Rename with `map` {COMPUTE}=NAME {n_column}=NAME"
        )
    size = _positive(frame, n_column, name)
    given = {column: _positive(frame, column, name) for column in (COMPUTE, TOKENS, LOSS, EXPERTS) if column in frame}
    if COMPUTE not in given:
        log.notes.append(f"{COMPUTE} computed as 6 {n_column} {TOKENS}")
    spent = given.get(COMPUTE, 6.0 * size * given.get(TOKENS, np.nan))
    tokens = given.get(TOKENS, spent / (6.0 * size))
    losses = given.get(LOSS, np.full(len(size), np.nan))
    experts = given.get(EXPERTS, np.ones(len(size)))
    optima = [
        ReportedOptimum(int(e), float(c), float(n), float(d), float(loss))
        for e, c, n, d, loss in zip(experts, spent, size, tokens, losses, strict=True)
    ]
    optima.sort(key=lambda one: (one.n_experts, one.train_flops))
    return tuple(optima), CheckedTable(frame, name, log.dropped, tuple(log.notes))


def _positive(frame: pd.DataFrame, column: str, source: str) -> Array:
    cells = numbers(frame[column])
    bad = ~(np.isfinite(cells.floats) & (cells.floats > 0))
    if bad.any():
        named: pd.Series[Any] = frame[column]
        raise InputError(f"{source}: {column} is no positive number {rows_named(frame.index[bad], named)}")
    return cells.floats
