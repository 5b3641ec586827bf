"""Arms: the replicates of a table by the settings that are compared, and within them by level of the axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.rates.question import RateQuestion
from analysis.rates.resampling import Cell
from analysis.rates.table import IDENTITY, VALUE, ReplicateTable
from analysis.tables.expressions import ColumnsOf
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.expression import FUNCTIONS, Expression, Texts
from scaling.formatting import listed, plural

Setting = str | bool | int | float | None
_X, _INSIDE = "value of the axis", "in the stated window"  # columns that no table of runs has
_SHOWN = 3  # rows that are named


@dataclass(frozen=True, eq=False)
class Level:
    """One level of the axis: its value and its cells, one for each value of `optimum_over`, ascending; else one."""

    x: float
    over: Array
    cells: tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class Arm:
    """The replicates of one arm: its settings, its levels by x, which of them the stated window holds, and the columns
    that are constant in it."""

    settings: Mapping[str, Setting]
    levels: tuple[Level, ...]
    inside: Booleans
    constants: pd.DataFrame

    @property
    def name(self) -> str:
        return arm_name(self.settings)


def arm_name(settings: Mapping[str, Setting]) -> str:
    """`gate softmax, order 2`; of an arm that is the whole table `all`."""
    return ", ".join(f"{name} {listed([value])}" for name, value in settings.items()) or "all"


def arms_of(table: ReplicateTable, question: RateQuestion) -> list[Arm]:
    """The arms of a table, in the order of their settings.

    Raises InputError where the axis is no positive number, a column is missing, a value cannot be averaged, the stated
    window is not of neighbouring levels, or one level of an arm pools runs that differ in a setting which `by` lacks.
    """
    frame = table.frame.assign(**{_X: _axis(table, question)})
    of_axis = Expression(question.axis, "`axis`").names
    fixed = {*of_axis, question.optimum_over}
    by = question.by
    if by is None:
        by = tuple(name for name in table.settings if name not in fixed and _varies(frame[name]))
    for name in (*by, *([question.optimum_over] if question.optimum_over else [])):
        if name not in frame:
            known = table.settings or table.columns
            raise InputError(f"{table.source}: no column {name!r}; it has {listed(known, most=40)}")
    _require_average(table, question)
    frame = frame.assign(**{_INSIDE: _inside(frame, table, question)})
    groups = frame.groupby([*by], dropna=False, sort=True) if by else [((), frame)]
    free = [name for name in table.settings if name not in (*by, *fixed)]
    found = []
    for values, rows in groups:
        settings = dict(zip(by, map(_plain, values), strict=True))
        found.append(_arm(settings, rows, free, table, question))
    return found


def theory_of(arm: Arm, question: RateQuestion, source: str) -> float | None:
    """The rate that theory gives for an arm; None where none was given.

    Raises InputError where it rests on a column that is not constant in the arm, or is no finite number.
    """
    if question.theory is None:
        return None
    place = f"`theory` {question.theory!r} for {arm.name}"
    expression = Expression(question.theory, "`theory`")
    lacking = [name for name in expression.names if name not in arm.constants and name not in FUNCTIONS]
    if lacking:
        raise InputError(f"{source}: {place}: {listed(lacking)} has several values in the arm, or is no column")
    value = expression.value(ColumnsOf(arm.constants, f"{source}: {place}"))
    if isinstance(value, Texts) or not np.isfinite(value).all():
        raise InputError(f"{source}: {place} is no finite number")
    return float(np.ravel(value)[0])


def _axis(table: ReplicateTable, question: RateQuestion) -> Array:
    place = f"{table.source}: `axis` {question.axis!r}"
    value = Expression(question.axis, "`axis`").value(ColumnsOf(table.frame[table.columns], place))
    if isinstance(value, Texts):
        raise InputError(f"{place} is text; a rate needs numbers")
    x = np.broadcast_to(np.asarray(value, dtype=float), len(table)).copy()
    wrong = ~(np.isfinite(x) & (x > 0))
    if wrong.any():
        raise InputError(f"{place} must be a positive number: it is not in {_rows(table, wrong)}")
    return x


def _require_average(table: ReplicateTable, question: RateQuestion) -> None:
    """Raises InputError where a logarithm would be taken of a value that is not positive."""
    wrong = table.column(VALUE) <= 0
    if question.average == "geometric" and wrong.any():
        raise InputError(
            f"{table.source}: {table.metric} is not positive in {_rows(table, wrong)}; without a geometric mean, use "
            "`average` arithmetic or median"
        )


def _rows(table: ReplicateTable, wrong: Booleans) -> str:
    """How many values, and the first of them by run and replicate."""
    names = [
        f"{row.get('run_id', f'row {place + 1}')} replicate {row[IDENTITY]} ({row[VALUE]:g})"
        for place in np.flatnonzero(wrong)[:_SHOWN]
        for row in [table.frame.iloc[place]]
    ]
    return f"{int(wrong.sum())} of {plural(len(table), 'value')}: {listed(names)}" + (
        "" if wrong.sum() <= _SHOWN else f" and {int(wrong.sum()) - _SHOWN} more"
    )


def _inside(frame: pd.DataFrame, table: ReplicateTable, question: RateQuestion) -> Booleans:
    """The rows that the stated window holds."""
    if question.window is None:
        return np.ones(len(frame), dtype=bool)
    place = f"{table.source}: `window` {question.window!r}"
    truth = Expression(question.window, "`window`").condition(ColumnsOf(table.frame[table.columns], place))
    return np.broadcast_to(truth.holds & truth.known, len(frame)).copy()


def _arm(
    settings: dict[str, Setting], rows: pd.DataFrame, free: Sequence[str], table: ReplicateTable, question: RateQuestion
) -> Arm:
    levels, inside = [], []
    by_level: Iterable[tuple[Any, pd.DataFrame]] = rows.groupby(_X, sort=True)
    for x, of_level in by_level:
        cells = [*_cells(of_level, question.optimum_over)]
        where = f"{table.source}: {arm_name(settings)}, {question.axis} = {x:g}"
        for value, of_cell in cells:
            at = where if value is None else f"{where}, {question.optimum_over} {value:g}"
            _require_one_configuration(of_cell, free, at, table)
        if _varies(of_level[_INSIDE]):
            raise InputError(f"{where}: `window` {question.window!r} holds for some of its runs and not for others")
        over = np.array([value for value, _ in cells if value is not None])
        parts = (Cell(tuple(of_cell[IDENTITY]), of_cell[VALUE].to_numpy(dtype=float)) for _, of_cell in cells)
        levels.append(Level(float(x), over, tuple(parts)))
        inside.append(bool(of_level[_INSIDE].iloc[0]))
    chosen = np.array(inside, dtype=bool)
    places = np.flatnonzero(chosen)
    if len(places) and not chosen[places[0] : places[-1] + 1].all():
        raise InputError(
            f"{table.source}: {arm_name(settings)}: `window` {question.window!r} holds for levels of {question.axis} "
            "that are not neighbours"
        )
    same = [name for name in rows if not _varies(rows[name])]
    return Arm(settings, tuple(levels), chosen, rows[same].head(1).reset_index(drop=True))


def _cells(rows: pd.DataFrame, over: str | None) -> Iterator[tuple[float | None, pd.DataFrame]]:
    """The rows of a level by the setting whose best value is sought."""
    if over is None:
        yield None, rows
        return
    for value, of_cell in rows.groupby(over, sort=True):
        if not (isinstance(value, (int, float, np.number)) and value > 0):
            raise InputError(f"`optimum_over` {over} must be a positive number, found {value!r}")
        yield float(value), of_cell


def _require_one_configuration(rows: pd.DataFrame, free: Sequence[str], where: str, table: ReplicateTable) -> None:
    """Raises InputError where replicates of different settings would be averaged."""
    differing = [name for name in free if _varies(rows[name])]
    repeated = rows.loc[rows[IDENTITY].duplicated(), IDENTITY]
    if not differing and repeated.empty:
        return
    if not differing:
        no_arm = (table.metric, "seed", "replicate")
        differing = [name for name in table.columns if name not in no_arm and _varies(rows[name])]
    if not differing:
        raise InputError(f"{where}: replicate {repeated.iloc[0]} (seed/replicate) stands in the table more than once")
    raise InputError(
        f"{where}: runs that differ in {listed(differing, most=8)} would be averaged: name what makes an arm in `by`, "
        "or select runs with `where`"
    )


def _varies(column: pd.Series[Any]) -> bool:
    """Whether a column has several values, of which a missing one is one."""
    return len(column.unique()) > 1


def _plain(value: Any) -> Setting:
    """A cell as JSON has it: a whole number that pandas keeps as a float is one again."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NA or value != value:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
