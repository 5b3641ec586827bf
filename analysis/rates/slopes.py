"""Slopes of logarithms over windows of levels: of one window, of every other one, and between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.rates.question import FEWEST_LEVELS
from analysis.rates.resampling import Averages
from scaling.arrays import Array

Interval = tuple[float, float]
Window = tuple[int, int]  # its first and last level, counted from 0


@dataclass(frozen=True)
class Slope:
    """The least-squares slope of ln y against ln x over the levels from `first` to `last`, ends included, with its 95 %
    interval; None where the spread of a level is not known, or there are no resamples."""

    first: float
    last: float
    levels: int
    slope: float
    interval: Interval | None


def windows(n_levels: int, least: int) -> list[Window]:
    """Every run of at least so many neighbouring levels; all of them where there are fewer."""
    shortest = min(least, n_levels)
    return [(first, last) for first in range(n_levels) for last in range(first + shortest - 1, n_levels)]


def neighbours(n_levels: int) -> list[Window]:
    """Each pair of neighbouring levels, whose slope is the local one."""
    return [(first, first + 1) for first in range(n_levels - 1)]


def slopes_of(log_x: Array, log_y: Array, chosen: Sequence[Window]) -> Array:
    """The least-squares slope of each row of log_y (..., L) against log_x (L,) in each window: (..., W).

    b = sum (x - mean x) y / sum (x - mean x)^2: every level counts alike. NaN where a level of the window is NaN.
    """
    found = np.empty((*log_y.shape[:-1], len(chosen)))
    for place, (first, last) in enumerate(chosen):
        apart = log_x[first : last + 1] - log_x[first : last + 1].mean()
        found[..., place] = log_y[..., first : last + 1] @ apart / (apart @ apart)
    return found


def estimated(x: Array, of: Averages, chosen: Sequence[Window]) -> tuple[Slope, ...]:
    """The slopes of the windows, with their intervals; the cells of `of` are the levels x."""
    log_x = np.log(x)
    values = slopes_of(log_x, of.estimate, chosen)
    ends = None
    if len(of.draws):
        drawn, without = (slopes_of(log_x, rows, chosen) for rows in (of.draws, of.without))
        ends = of.interval(values, drawn, without)
    found = []
    for place, (first, last) in enumerate(chosen):
        spread = ends is not None and bool(of.known[first : last + 1].all())
        interval = (float(ends[0][place]), float(ends[1][place])) if ends is not None and spread else None
        found.append(Slope(float(x[first]), float(x[last]), last - first + 1, float(values[place]), interval))
    return tuple(found)


def change(x: Array, of: Averages) -> tuple[float, Interval | None]:
    """The slope over the upper half of the levels x minus that over the lower, with its interval: a line for which that
    excludes 0 is bent. The halves of an odd number of levels share the middle one; two levels have no change."""
    half = (len(x) + 1) // 2
    halves = [(0, half - 1), (len(x) - half, len(x) - 1)]
    if half < FEWEST_LEVELS:
        return 0.0, None

    def difference(rows: Array) -> Array:
        return np.asarray(np.diff(slopes_of(np.log(x), rows, halves), axis=-1))

    found = difference(of.estimate)
    if not (len(of.draws) and of.known.all()):
        return float(found[0]), None
    low, high = of.interval(found, difference(of.draws), difference(of.without))
    return float(found[0]), (float(low[0]), float(high[0]))
