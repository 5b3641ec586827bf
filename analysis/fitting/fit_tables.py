"""Fits as tables: the parameters of one, and what it predicts of the models in a DataFrame."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np
import pandas as pd

from analysis.laws import Law
from analysis.tables.readers import numbers
from analysis.tables.reading_log import rows_named
from scaling.arrays import Array
from scaling.columns import LOSS
from scaling.errors import InputError
from scaling.formatting import listed

Ends = tuple[Array, Array] | None


def parameter_rows(
    law: Law,
    params: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    pinned: Container[str],
) -> list[tuple[str, str, str, str]]:
    """A row for each parameter: its name, value, 95 % interval and meaning."""

    def interval(name: str) -> str:
        if name in intervals:
            return "{:.5g} to {:.5g}".format(*intervals[name])
        return "pinned" if name in pinned else "-"

    return [
        (name, f"{params[name]:.6g}" if name in params else "-", interval(name), law.parameter(name).meaning)
        for name in law.names
    ]


def columns_of_frame(frame: pd.DataFrame, law: Law, settings: Mapping[str, float]) -> dict[str, Array]:
    """What the law reads of each row; a column of `settings` may be missing.

    Raises InputError for another that is missing, and for cells that are no positive numbers.
    """
    columns = {}
    for name in law.columns:
        if name not in frame and name not in settings:
            raise InputError(
                f"DataFrame: no column {name!r}, which law {law.name} needs; it has {listed(frame.columns)}"
            )
        values = numbers(frame[name]).floats if name in frame else np.full(len(frame), settings[name])
        wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(wrong):
            raise InputError(f"DataFrame: {name} is no positive number {rows_named(pd.Index(wrong))}")
        columns[name] = values
    return columns


def prediction_table(law: Law, loss: Array, of_law: Ends, of_run: Ends, outside: Array) -> pd.DataFrame:
    """A predicted loss in each row, the intervals of law and run (NaN where there are none), and `outside`."""
    unknown = np.full(len(loss), np.nan)
    (low, high), (least, largest) = (ends or (unknown, unknown) for ends in (of_law, of_run))
    target = "loss" if law.target == LOSS else law.target
    values = {target: loss, f"{target}_low": low, f"{target}_high": high, "run_low": least, "run_high": largest}
    return pd.DataFrame({**values, "outside": outside})


def columns_outside(columns: Mapping[str, Array], domain: Mapping[str, tuple[float, float]]) -> Array:
    """In each row the names of the columns whose value lies outside the range of the fitted runs, "" for none."""
    out = {
        name: (columns[name] < low * (1 - 1e-9)) | (columns[name] > high * (1 + 1e-9))
        for name, (low, high) in domain.items()
        if name in columns
    }
    rows = len(next(iter(columns.values())))
    return np.array(
        [", ".join(name for name, beyond in out.items() if beyond[row]) for row in range(rows)], dtype=object
    )
