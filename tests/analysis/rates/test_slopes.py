"""Slopes over windows: exact on power laws, equal to statsmodels' least squares, and the windows that there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from analysis.fitting.bca import Resampled
from analysis.rates.resampling import Averages
from analysis.rates.slopes import change, estimated, neighbours, slopes_of, windows

X = np.array([100.0, 250.0, 1000.0, 2500.0, 10_000.0])


def known(log_y: np.ndarray) -> Averages:
    """Levels without replicates to resample."""
    empty = np.empty((0, len(log_y)))
    return Averages(log_y, empty, empty, Resampled(), np.zeros(len(log_y), dtype=bool))


def test_windows_are_all_runs_of_neighbours():
    assert windows(5, 4) == [(0, 3), (0, 4), (1, 4)]
    assert windows(3, 2) == [(0, 1), (0, 2), (1, 2)]
    assert windows(3, 4) == [(0, 2)]  # fewer levels than asked for: all of them
    assert neighbours(4) == [(0, 1), (1, 2), (2, 3)]
    for levels, least in itertools.product(range(2, 9), range(2, 5)):
        found = windows(levels, least)
        count = max(levels - min(least, levels) + 1, 1)
        assert len(found) == len(set(found)) == count * (count + 1) // 2
        assert all(0 <= first < last < levels and last - first + 1 >= min(least, levels) for first, last in found)


def test_a_power_law_has_its_slope_in_every_window():
    log_y = np.log(3.0 * X**-0.25)
    chosen = [*windows(len(X), 2)]
    assert slopes_of(np.log(X), log_y, chosen) == pytest.approx(np.full(len(chosen), -0.25), abs=1e-12)  # rounding
    bend, interval = change(X, known(log_y))
    assert bend == pytest.approx(0.0, abs=1e-12)
    assert interval is None


def test_slopes_are_those_of_least_squares():
    log_y = np.log(X**-0.5) + np.random.default_rng(1).normal(0, 0.3, len(X))
    for window in windows(len(X), 3):
        inside = slice(window[0], window[1] + 1)
        design = np.column_stack([np.ones(window[1] - window[0] + 1), np.log(X[inside])])
        judge = OLS(log_y[inside], design).fit().params[1]
        assert slopes_of(np.log(X), log_y, [window])[0] == pytest.approx(judge, abs=1e-12)  # rounding


def test_a_level_without_average_spoils_its_windows_alone():
    log_y = np.log(X**-0.5)
    log_y[0] = np.nan
    chosen = [(0, 3), (1, 4), (2, 4)]
    found = slopes_of(np.log(X), log_y, chosen)
    assert np.isnan(found).tolist() == [True, False, False]
    assert found[1:] == pytest.approx([-0.5, -0.5], abs=1e-12)


def test_a_bent_line_changes_by_the_difference_of_its_halves():
    """Slopes -1 below X[2] and -2 above it: three levels each, which share the corner."""
    corner = np.log(X) - np.log(X[2])
    log_y = np.where(corner < 0, -corner, -2 * corner)
    assert change(X, known(log_y))[0] == pytest.approx(-1.0, abs=1e-12)
    assert [one.slope for one in estimated(X, known(log_y), neighbours(5))] == pytest.approx([-1, -1, -2, -2])


def test_slopes_carry_the_ends_of_their_window():
    (one,) = estimated(X, known(np.log(X)), [(1, 3)])
    assert (one.first, one.last, one.levels, one.interval) == (250.0, 2500.0, 3, None)
