"""Fits as tables: the parameters of one, and what it predicts of the models in a DataFrame."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.laws import Law
from analysis.tables.numbers import numbers
from analysis.tables.reading_log import rows_named
from scaling.arrays import Array
from scaling.columns import LOSS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.table import Column, Table

Ends = tuple[Array, Array] | None
AT_BOUND = "*"


class ParameterEnds(NamedTuple):
    """An interval of a parameter; an end that is None is unbounded. The flags mark ends at the parameter's bound."""

    low: float | None
    high: float | None
    low_at_bound: bool = False
    high_at_bound: bool = False

    def __str__(self) -> str:
        ends = ((self.low, self.low_at_bound), (self.high, self.high_at_bound))
        return " to ".join("unbounded" if end is None else f"{end:.4g}{AT_BOUND * at}" for end, at in ends)


def parameter_table(
    law: Law,
    params: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    pinned: Container[str],
    by_profile: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> Table:
    """A row for each parameter: name, value, 95 % interval ("fixed" where it is pinned), interval by profile where any
    was made, and meaning. A note explains the star at an end that is the parameter's bound."""
    ends = {name: _marked(law, name, interval) for name, interval in intervals.items()}
    shapes = {name: ParameterEnds(*interval) for name, interval in (by_profile or {}).items()}
    columns = (
        Column("parameter", "parameter", text=True),
        Column("value", "value", "{:.6g}".format),
        Column("interval", "95 % interval", text=True),
        Column("by_profile", "by profile", text=True),
        Column("meaning", "meaning", text=True),
    )
    rows = tuple(
        (
            name,
            params.get(name),
            "fixed" if name in pinned else ends.get(name),
            shapes.get(name),
            law.parameter(name).meaning,
        )
        for name in law.names
    )
    marked = any(at for interval in ends.values() for at in interval[2:])
    note = f"{AT_BOUND} at the bound of the parameter: these runs do not limit it there"
    table = Table(f"{law.name}: {law.formula}", columns, rows, (note,) if marked else ())
    return table if shapes else table.without("by_profile")


def _marked(law: Law, name: str, interval: tuple[float, float]) -> ParameterEnds:
    near = (
        math.isclose(end, bound, rel_tol=1e-4, abs_tol=1e-9)
        for end, bound in zip(interval, law.parameter(name).bounds, strict=True)
    )
    return ParameterEnds(*interval, *near)


def frame_of_models(models: Any) -> pd.DataFrame:
    """Models as a frame, one a row: a DataFrame, or a mapping of columns to numbers or to sequences of them.

    Raises InputError for anything else, for sequences of several lengths, for no row, and for a repeated column.
    """
    if isinstance(models, Mapping):
        lengths = {name: len(values) for name, values in models.items() if np.ndim(values)}
        if len({*lengths.values()}) > 1:
            several = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InputError(f"the models have columns of several lengths: {several}")
        models = pd.DataFrame(dict(models), index=range(max(lengths.values(), default=1)))
    if not isinstance(models, pd.DataFrame):
        raise InputError(
            "models must be a DataFrame, or a mapping such as {'n_active': 1e8, 'tokens': 1e10}, found "
            f"{type(models).__name__}"
        )
    repeated = models.columns[models.columns.duplicated()]
    if len(repeated):
        raise InputError(f"DataFrame: two columns are called {repeated[0]!r}; rename one")
    if models.empty and len(models.columns):
        raise InputError("DataFrame: it has no rows, so there is no model to predict")
    return models


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
            cells = frame[name].astype(object).reset_index(drop=True)
            raise InputError(f"DataFrame: {name} is no positive number {rows_named(pd.Index(wrong), cells)}")
        columns[name] = values
    return columns


def prediction_table(
    law: Law, loss: Array, of_law: Ends, of_run: Ends, outside: Array, refused: Sequence[str]
) -> pd.DataFrame:
    """A predicted loss in each row, both intervals (NaN where there are none), `outside` and `refused`."""
    unknown = np.full(len(loss), np.nan)
    (low, high), (least, largest) = (ends or (unknown, unknown) for ends in (of_law, of_run))
    target = "loss" if law.target == LOSS else law.target
    values = {target: loss, f"{target}_low": low, f"{target}_high": high, "run_low": least, "run_high": largest}
    return pd.DataFrame({**values, "outside": outside, "refused": np.array(refused, dtype=object)})


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
