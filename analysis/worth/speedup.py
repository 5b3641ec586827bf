"""Speedups: what models of one E are worth at a training budget, and whether that grows with the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.fitting import bca
from analysis.fitting.bca import Resampled
from scaling.arrays import Array
from scaling.formatting import number

Interval = tuple[float, float]
"""95 %; an end without bound is infinite, and null in a file."""


@dataclass(frozen=True)
class Speedup:
    """What models of one E are worth at one training budget: how many times more a baseline model of equal loss takes.

    `compute_speedup` is C_base(L)/C, `time_speedup` the ratio of device time, `cost_speedup` that of money; each is
    None where it is not known or the baseline never reaches the loss, and `reason` says which. `n_experts` is None
    where the law does not count experts. The models are those of least loss at the budget and of least compute at that
    loss. `above_one` and `time_above_one` are the shares of the draws in which the speedup exceeds 1, `unreachable`
    that of the draws in which the baseline never reaches the loss; None without draws. `extrapolated`: the budget lies
    beyond the runs behind it (of a law, 30 times their largest compute).
    """

    n_experts: int | None
    train_flops: float
    compute_speedup: float | None
    compute_interval: Interval | None = None
    time_speedup: float | None = None
    time_interval: Interval | None = None
    cost_speedup: float | None = None
    cost_interval: Interval | None = None
    above_one: float | None = None
    time_above_one: float | None = None
    unreachable: float | None = None
    loss: float | None = None
    n_active: float | None = None
    tokens: float | None = None
    baseline_flops: float | None = None
    baseline_n_active: float | None = None
    baseline_tokens: float | None = None
    extrapolated: bool = False
    reason: str = ""

    def sentence(self, name: str = "") -> str:
        """What it is worth, in words: `E = 8 is worth 2.1x the compute (1.8x to 2.5x), 1.5x the time (...)`."""
        name = name or ("it" if self.n_experts is None else f"E = {self.n_experts}")
        parts = [
            f"{times(value)} the {what}{span(interval)}"
            for what, value, interval in (
                ("compute", self.compute_speedup, self.compute_interval),
                ("time", self.time_speedup, self.time_interval),
            )
            if value is not None
        ]
        return f"{name} is worth {', '.join(parts)}" if parts else f"{name}: {self.reason}"


@dataclass(frozen=True)
class Growth:
    """Whether the advantage of one E grows with the budget: d ln speedup / d ln C between two budgets.

    `compute_grows` and `time_grows` are the shares of the draws in which that slope is positive; intervals and shares
    are None without draws, slopes where the baseline does not reach the loss throughout.
    """

    n_experts: int | None
    from_flops: float
    to_flops: float
    compute_slope: float | None
    compute_interval: Interval | None = None
    compute_grows: float | None = None
    time_slope: float | None = None
    time_interval: Interval | None = None
    time_grows: float | None = None


@dataclass(frozen=True)
class Sample:
    """A quantity at the estimate (...), under draws (rows, ...) and without each trunk (trunks, ...).

    Draws and jackknife are None where there are none. Values may be infinite; NaN are unknown. `of_runs` is the share
    of the draws' variance that resampled runs cause (`bca.quantiles`).
    """

    estimate: Array
    draws: Array | None = None
    jackknife: Array | None = None
    resampled: Resampled = bca.UNSPECIFIED
    of_runs: float = 1.0

    def __getitem__(self, place: int | tuple[int, ...]) -> Sample:
        inside = place if isinstance(place, tuple) else (place,)
        of_rows: Any = (slice(None), *inside)
        draws, jackknife = (None if v is None else v[of_rows] for v in (self.draws, self.jackknife))
        return Sample(np.asarray(self.estimate[inside]), draws, jackknife, self.resampled)

    def weighted(self, weights: Array) -> Sample:
        """The sum over the last axis with these weights; NaN where infinities cancel."""
        with np.errstate(invalid="ignore"):
            draws, jackknife = (None if v is None else v @ weights for v in (self.draws, self.jackknife))
            return Sample(np.asarray(self.estimate @ weights), draws, jackknife, self.resampled)

    def along(self, slope: Sample, distance: float) -> Sample:
        """This and a slope, that far along it."""
        pairs = ((self.draws, slope.draws), (self.jackknife, slope.jackknife))
        draws, jackknife = (None if a is None or b is None else a + distance * b for a, b in pairs)
        return Sample(np.asarray(self.estimate + distance * slope.estimate), draws, jackknife, self.resampled)

    def beside(self, runs_alone: Sample) -> Sample:
        """This with the share of its variance that the runs cause: that of the same without what else varies."""
        if self.draws is None or runs_alone.draws is None:
            return self
        known = np.isfinite(self.draws) & np.isfinite(runs_alone.draws)
        if known.sum() < 2:
            return self
        whole, of_runs = (float(np.var(draws[known])) for draws in (self.draws, runs_alone.draws))
        return replace(self, of_runs=min(1.0, of_runs / whole) if whole > 0 else 1.0)

    @property
    def value(self) -> float | None:
        """The estimate; None where it is infinite or unknown."""
        value = float(self.estimate)
        return value if np.isfinite(value) else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval (`analysis.fitting.bca`); None without draws, or where none is known."""
        if self.draws is None or np.isnan(self.draws).all():
            return None
        low, high = bca.interval(self.estimate, self.draws, self.jackknife, self.resampled, self.of_runs)
        return float(low), float(high)

    def above(self, bound: float) -> float | None:
        """The share of the draws, those that are known, beyond a bound; None without any."""
        if self.draws is None or np.isnan(self.draws).all():
            return None
        known = self.draws[~np.isnan(self.draws)]
        return float(np.mean(known > bound))


def growth_of(n_experts: int | None, ends: tuple[float, float], by_compute: Sample, by_time: Sample) -> Growth:
    """d ln speedup / d ln C between two budgets, from the slopes."""
    return Growth(
        n_experts=n_experts,
        from_flops=ends[0],
        to_flops=ends[1],
        compute_slope=by_compute.value,
        compute_interval=by_compute.interval,
        compute_grows=by_compute.above(0.0),
        time_slope=by_time.value,
        time_interval=by_time.interval,
        time_grows=by_time.above(0.0),
    )


def slope_weights(x: Array, weights: Array | None = None) -> Array:
    """What a least-squares line takes each value times for its slope in x."""
    weight = np.ones(len(x)) if weights is None else weights
    centred = x - np.average(x, weights=weight)
    return np.asarray(weight * centred / np.sum(weight * centred**2))


def factor(log_value: float | None) -> float | None:
    """A ratio from its logarithm."""
    return None if log_value is None else float(np.exp(log_value))


def factors(log_interval: Interval | None) -> Interval | None:
    """The interval of a ratio from that of its logarithm."""
    return None if log_interval is None else (float(np.exp(log_interval[0])), float(np.exp(log_interval[1])))


def times(value: float) -> str:
    """A ratio: 2.134 -> `2.13x`."""
    return f"{number(value, '.3g')}x"


def span(interval: Interval | None) -> str:
    """` (1.8x to 2.5x)` to append to a ratio, or the one end that is known; empty for None."""
    if interval is None:
        return ""
    low, high = interval
    if np.isfinite(high):
        return f" ({times(low)} to {times(high)})" if low > 0 else f" (at most {times(high)})"
    return f" (at least {times(low)})" if low > 0 else ""
