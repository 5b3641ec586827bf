"""Rates as tables of values: slopes by arm, the windows, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from analysis.rates.arms import Setting
from analysis.rates.rates import Rate, Rates
from analysis.rates.slopes import Interval, Slope
from scaling.formatting import number, si
from scaling.table import Column, Table


def slope_text(value: float) -> str:
    """A slope with its sign, to three decimals."""
    return f"{value:+.3f}".replace("-", "−")


def _to(ends: Interval, write: Callable[[float], str]) -> str:
    return f"{write(ends[0])} to {write(ends[1])}"


_SLOPE = Column("slope", "slope", slope_text)
_INTERVAL = Column("interval", "95% interval", partial(_to, write=slope_text))


def slopes_table(found: Rates) -> Table:
    """One row an arm: its slope over the stated window, its interval, the range over other windows, and theory."""
    columns = (
        *_arm_columns(found),
        Column("levels", "levels"), Column("replicates", "replicates"), _SLOPE, _INTERVAL,
        Column("windows", "over windows", partial(_to, write=slope_text)),
        Column("grid_slope", "on the grid", slope_text),
        Column("theory", "theory", slope_text), Column("verdict", "theory is", text=True),
    )  # fmt: skip
    rows = [
        (
            *_arm(found, rate), rate.stated.levels, rate.replicates, rate.slope, rate.interval,
            (rate.least, rate.most), rate.grid_slope, rate.theory, rate.verdict,
        )
        for rate in found.rates
    ]  # fmt: skip
    return Table(title_of(found), columns, tuple(rows), how_to_read(found)).without_empty_columns()


def local_table(found: Rates) -> Table:
    """The slope between each pair of neighbouring levels, by arm."""
    return _windows(found, "Local slopes, between neighbouring levels", [rate.local for rate in found.rates])


def windows_table(found: Rates) -> Table:
    """The slope over every window, by arm."""
    least = found.question.least_levels
    title = f"Slopes over every window of at least {least} levels"
    return _windows(found, title, [rate.windows for rate in found.rates])


def points_table(found: Rates) -> Table:
    """What was measured at each level, by arm."""
    asked = found.question
    columns = (
        *_arm_columns(found), Column("x", asked.axis, si), Column("value", _measured(found), number),
        Column("interval", "95% interval", partial(_to, write=number)), Column("replicates", "replicates"),
        Column("on_grid", "on the grid", si), Column("remark", "remark", text=True),
    )  # fmt: skip
    rows = [
        (
            *_arm(found, rate), point.x, point.value, point.interval, point.replicates, point.on_grid,
            "at an end of what was run" if point.edge else None if point.inside else "not in the stated window",
        )
        for rate in found.rates
        for point in rate.points
    ]  # fmt: skip
    return Table(f"{_measured(found)} by {asked.axis}", columns, tuple(rows)).without_empty_columns()


def title_of(found: Rates) -> str:
    """What the slopes are of."""
    return f"Slope of ln {found.question.quantity} against ln {found.question.axis}"


def how_to_read(found: Rates) -> tuple[str, ...]:
    """What was averaged, over which levels, and what the intervals are."""
    asked = found.question
    window = "all levels" if asked.window is None else f"levels with {asked.window}"
    notes = [
        f"{asked.average} mean over replicates; least squares over {window}, each counting alike"
        if asked.average != "median"
        else f"median over replicates; least squares over {window}, each counting alike",
        f"over windows: the least and the largest slope over any {asked.least_levels} or more neighbouring levels",
    ]
    if found.n_draws:
        notes.append(f"intervals: {found.n_draws:,} bootstrap resamples of the replicates, levels as they are")
    if asked.optimum_over is not None:
        notes.append(
            f"the best {asked.optimum_over} is the vertex of a parabola in its logarithm through the lowest point and "
            "its neighbours, whose own error is not in the interval; on the grid: the slope of the lowest points"
        )
    return tuple(notes)


def _windows(found: Rates, title: str, by_arm: Sequence[Sequence[Slope]]) -> Table:
    columns = (
        *_arm_columns(found), Column("first", "from", si), Column("last", "to", si), Column("levels", "levels"),
        _SLOPE, _INTERVAL,
    )  # fmt: skip
    rows = [
        (*_arm(found, rate), one.first, one.last, one.levels, one.slope, one.interval)
        for rate, slopes in zip(found.rates, by_arm, strict=True)
        for one in slopes
    ]
    return Table(f"{title}, of ln {found.question.quantity}", columns, tuple(rows)).without_empty_columns()


def _measured(found: Rates) -> str:
    return f"{found.question.quantity} ({found.unit})" if found.unit else found.question.quantity


def _arm_columns(found: Rates) -> tuple[Column, ...]:
    return tuple(Column(name, name, text=True) for name in found.question.by or ())


def _arm(found: Rates, rate: Rate) -> tuple[Setting, ...]:
    return tuple(rate.arm[name] for name in found.question.by or ())
