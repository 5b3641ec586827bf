"""Rates: slopes of a metric, or of the best value of a setting, against an axis, by arms, in one value."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.rates.arms import Setting, arm_name
from analysis.rates.question import RateQuestion
from analysis.rates.slopes import Interval, Slope
from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import plural
from scaling.summary import Summarised, summarised
from scaling.table import Table
from scaling.values import RATES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """What was measured at one level: the average over replicates, or the best value of a setting, with its 95 %
    interval.

    `inside`: in the stated window. Of a best value, `on_grid` is the one that was run, and `edge` says that it is the
    smallest or largest that was, so that the best may lie beyond; such a level is in no slope.
    """

    x: float
    value: float
    interval: Interval | None
    replicates: int
    inside: bool = True
    on_grid: float | None = None
    edge: bool = False


@dataclass(frozen=True)
class Rate:
    """The rate of one arm.

    `stated` is the slope over the stated window, ln y = log_coefficient + slope ln x, with `rmse_log` the root mean
    square of its residuals; `windows` are those over every run of neighbouring levels, `local` those between
    neighbours. `change` is the slope of the second half of the levels minus that of the first, with its interval.
    `grid_slope` is the stated slope of the best values that were run, where those of the points are interpolated.
    `theory` is the rate to compare with.
    """

    arm: Mapping[str, Setting]
    points: tuple[Point, ...]
    stated: Slope
    log_coefficient: float
    rmse_log: float
    windows: tuple[Slope, ...]
    local: tuple[Slope, ...]
    change: float
    change_interval: Interval | None
    theory: float | None = None
    grid_slope: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError without a window, or a level in the stated one."""
        if not self.windows or not any(point.inside for point in self.points):
            raise InputError("a rate needs levels in its stated window, and windows")

    @property
    def name(self) -> str:
        """The arm in words."""
        return arm_name(self.arm)

    @property
    def slope(self) -> float:
        return self.stated.slope

    @property
    def interval(self) -> Interval | None:
        return self.stated.interval

    @property
    def least(self) -> float:
        """The least slope over the windows."""
        return min(window.slope for window in self.windows)

    @property
    def most(self) -> float:
        """The largest slope over the windows."""
        return max(window.slope for window in self.windows)

    @property
    def difference(self) -> float | None:
        """The slope minus that of theory."""
        return None if self.theory is None else self.slope - self.theory

    @property
    def inside(self) -> bool | None:
        """Whether theory lies in the interval; None without one of the two."""
        if self.theory is None or self.interval is None:
            return None
        return self.interval[0] <= self.theory <= self.interval[1]

    @property
    def verdict(self) -> str | None:
        """The comparison with theory in a word or two."""
        if self.theory is None:
            return None
        return "no interval" if self.inside is None else "inside" if self.inside else "outside"

    @property
    def replicates(self) -> int:
        """The fewest replicates of a level of the stated window."""
        return min(point.replicates for point in self.points if point.inside)

    @property
    def bent(self) -> bool:
        """Whether the slopes of the two halves differ by more than chance."""
        return self.change_interval is not None and not self.change_interval[0] <= 0 <= self.change_interval[1]


@dataclass(frozen=True, repr=False)
class Rates(Summarised):
    """The rates of a study's arms: ln of the metric's average, or of the best value of a setting, regressed on ln of
    the axis.

    Intervals are 95 % by a bootstrap of `n_draws` resamples of replicates, and hold for the line through these levels:
    how far another choice of levels moves the slope is in `Rate.windows`. `unit` is that of the metric; `warnings` are
    to be read first, `notes` say what was left out and assumed.
    """

    question: RateQuestion
    rates: tuple[Rate, ...]
    source: str
    unit: str = ""
    n_draws: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError without an arm, or where an arm has other settings than the question says."""
        by = self.question.by or ()
        if not self.rates or any(set(rate.arm) != {*by} for rate in self.rates):
            raise InputError(f"rates need arms, each with a value of {', '.join(by) or 'no setting'}")

    @property
    def headline(self) -> str:
        """What was found, in one line."""
        asked, (first, *others) = self.question, self.rates
        theory = [rate for rate in self.rates if rate.theory is not None]
        if not others:
            told = f"Slope of {asked.quantity} in {asked.axis}: {_slope(first.stated)}"
            return told if not theory else f"{told}; theory, {_number(theory[0].theory)}, is {_verdict(first)}"
        slopes = [rate.slope for rate in self.rates]
        told = (
            f"Slopes of {asked.quantity} in {asked.axis}: {_number(min(slopes))} to {_number(max(slopes))} in "
            f"{plural(len(slopes), 'arm')}"
        )
        judged = [rate for rate in theory if rate.inside is not None]
        if not judged:
            return told
        return f"{told}; theory is in the interval of {sum(bool(rate.inside) for rate in judged)} of {len(judged)}"

    @property
    def families(self) -> dict[tuple[Setting, ...], list[Rate]]:
        """The arms that differ in the last column of `by` alone, by their values of the others."""
        found: dict[tuple[Setting, ...], list[Rate]] = {}
        for rate in self.rates:
            found.setdefault(tuple(rate.arm[name] for name in (self.question.by or ())[:-1]), []).append(rate)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `scaling rates --out` writes them."""
        return RATES.document(self)

    def table(self) -> pd.DataFrame:
        """One row an arm: its settings, `slope` over the levels from `first` to `last`, `low` and `high` of its
        interval, the `least` and `most` of other windows, `theory` and whether it is `inside`."""
        return pd.DataFrame(
            {
                **rate.arm, **_of_slope(rate.stated), "replicates": rate.replicates, "least": rate.least,
                "most": rate.most, "change": rate.change, "bent": rate.bent, "theory": rate.theory,
                "inside": rate.inside, "grid_slope": rate.grid_slope,
            }
            for rate in self.rates
        )  # fmt: skip

    def points(self) -> pd.DataFrame:
        """One row a level of an arm: `x`, `value`, `low`, `high`, `replicates`, `inside`, `on_grid`, `edge`."""
        return pd.DataFrame({**rate.arm, **_with_ends(asdict(point))} for rate in self.rates for point in rate.points)

    def windows(self) -> pd.DataFrame:
        """One row a window of an arm: `first`, `last`, `levels`, `slope`, `low`, `high`."""
        return pd.DataFrame({**rate.arm, **_of_slope(slope)} for rate in self.rates for slope in rate.windows)

    def local(self) -> pd.DataFrame:
        """One row a pair of neighbouring levels, as `windows`."""
        return pd.DataFrame({**rate.arm, **_of_slope(slope)} for rate in self.rates for slope in rate.local)

    def plot(self) -> Figure:
        """Averages with intervals and their lines, in a panel for each family of arms (`analysis.figures.rates`).

        Raises InputError where matplotlib is missing.
        """
        require_installed("a figure", "matplotlib")
        figure: Figure = pkgutil.resolve_name("analysis.figures.rates:rates_figure")(self)
        return figure

    def summary(self) -> Table:
        """The finding in a line, the slopes by arm, and what to doubt."""
        of_arms: Table = pkgutil.resolve_name("analysis.rates.tables:slopes_table")(self)
        return summarised(of_arms, self.headline, (*of_arms.notes, *self.warnings, *self.notes))


def read_rates(path: str | Path) -> Rates:
    """The rates in a file that `scaling rates --out` wrote. Raises InputError where it is none."""
    return RATES.value(Rates, RATES.read(path), str(path))


def _of_slope(slope: Slope) -> dict[str, Any]:
    return _with_ends(asdict(slope))


def _with_ends(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the ends of the interval as `low` and `high`."""
    low, high = fields.pop("interval") or (None, None)
    return {**fields, "low": low, "high": high}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _slope(slope: Slope) -> str:
    ends = "" if slope.interval is None else f" (95 % {_number(slope.interval[0])} to {_number(slope.interval[1])})"
    return f"{_number(slope.slope)}{ends}"


def _verdict(rate: Rate) -> str:
    if rate.inside is None:
        return f"{abs(rate.slope - (rate.theory or 0.0)):.3f} away"
    return f"{rate.verdict} the interval"
