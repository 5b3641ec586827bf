"""Statistics of returns against closed forms, scipy and examples that can be done by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats

from analysis.returns.bootstrap import interval, resampled
from analysis.returns.statistics import (
    interquartile_mean,
    mean,
    normalised,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)


def test_interquartile_mean_drops_a_quarter_of_all_runs_at_each_end() -> None:
    """100 scores in two games: 25 and 25 are dropped, whichever game they are of, and may be anything."""
    scores = [np.arange(0.0, 100.0, 2), np.arange(1.0, 100.0, 2)]
    assert interquartile_mean(scores) == np.mean(np.arange(25, 75))
    scores[0][:13], scores[1][-12:] = -1e9, 1e9  # 0, 2, .. 24 and 77, 79, .. 99
    assert interquartile_mean(scores) == np.mean(np.arange(25, 75))


def test_interquartile_mean_is_that_of_the_sorted_middle() -> None:
    """Also where N M is no multiple of four: floor(.25 x 18) = 4 at each end."""
    scores = [np.random.default_rng(game).normal(size=6) for game in range(3)]
    middle = np.sort(np.concatenate(scores))[4:-4]
    assert interquartile_mean(scores) == pytest.approx(middle.mean(), rel=1e-12)


def test_statistics_take_draws_along_the_first_axis() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = ([rng.normal(size=(7, 5)) for _ in range(2)] for _ in range(2))
    for draw in range(7):
        x, y = ([game[draw] for game in scores] for scores in (ours, theirs))
        assert interquartile_mean(ours)[draw] == pytest.approx(interquartile_mean(x), rel=1e-12)
        assert optimality_gap(ours)[draw] == pytest.approx(optimality_gap(x), rel=1e-12)
        assert probability_of_improvement(ours, theirs)[draw] == pytest.approx(
            probability_of_improvement(x, y), rel=1e-12
        )
        np.testing.assert_allclose(
            performance_profile(ours, np.array([0.0, 1.0]))[draw], performance_profile(x, np.array([0.0, 1.0]))
        )


def test_optimality_gap_counts_no_surplus() -> None:
    """min(x, 1) = (.5, 1) in one game and (0, 1) in the other: 1 - (.75 + .5) / 2."""
    assert optimality_gap([np.array([0.5, 2.0]), np.array([0.0, 7.0])]) == pytest.approx(0.375, rel=1e-12)


def test_probability_of_improvement_by_hand() -> None:
    """(0, 2) against (1, 1): 2 of 4 pairs; against itself 1/2; ten more against any of 0 .. 4: 1; mean over games."""
    x, y = np.array([0.0, 2.0]), np.array([1.0, 1.0])
    small = np.arange(5.0)
    assert probability_of_improvement([x], [y]) == 0.5
    assert probability_of_improvement([small], [small]) == 0.5
    assert probability_of_improvement([small + 10], [small]) == 1.0
    assert probability_of_improvement([small + 10, x], [small, y]) == 0.75


def test_probability_of_improvement_is_the_statistic_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, 9).astype(float), rng.integers(1, 7, 5).astype(float)  # with ties
    expected = stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
    assert probability_of_improvement([x], [y]) == pytest.approx(expected, rel=1e-12)


def test_performance_profile_by_hand() -> None:
    """Above 0, 1, 2: (1, 1/2, 0) in one game and (1/2, 1/2, 1/2) in the other."""
    profile = performance_profile([np.array([1.0, 2.0]), np.array([0.0, 9.0])], np.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(profile, [0.75, 0.5, 0.25])


def test_normalised_scores_are_0_for_random_actions_and_1_for_the_reference() -> None:
    scores = normalised([np.array([2.0, 6.0, 10.0])], [2.0], [6.0])
    np.testing.assert_array_equal(scores[0], [0, 1, 2])
    with pytest.raises(ValueError, match=r"game 1: the reference scores 3, not more than random actions \(3\)"):
        normalised([np.ones(2), np.ones(2)], [0.0, 3.0], [1.0, 3.0])


def test_resamples_stay_within_their_game_and_follow_the_seed() -> None:
    scores = [np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0])]
    drawn = resampled(scores, 500, np.random.default_rng(3))
    for values, own in zip(scores, drawn, strict=True):
        assert own.shape == (500, len(values))
        assert set(own.ravel()) == set(values)
    again = resampled(scores, 500, np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_five_runs_have_few_distinct_resamples() -> None:
    """C(2 n - 1, n) multisets of n: 126 of 5. The rarest, five times the same run, has a probability of 5^-5 = 1 in
    3125, so that 50,000 draws miss one of the 126 with a probability below 5 exp(-16)."""
    drawn = resampled([np.arange(5.0)], 50_000, np.random.default_rng(0))[0]
    assert len(np.unique(np.sort(drawn, axis=1), axis=0)) == comb(9, 5) == 126


def test_constant_scores_have_an_interval_without_width() -> None:
    scores = [np.full(5, 0.3), np.full(5, 0.7)]
    found = interval(
        interquartile_mean(scores), interquartile_mean(resampled(scores, 200, np.random.default_rng(0))), 5
    )
    assert found.low == found.high == found.estimate == pytest.approx(0.5, rel=1e-12)


def test_the_bootstrap_of_a_mean_has_the_variance_of_its_closed_form() -> None:
    """Var of the mean over M games of means of N_m resampled runs is sum_m s_m^2 / N_m / M^2 with s_m^2 the mean
    squared deviation. 20,000 draws know a variance within sqrt(2 / 20000) = 1 %: 4 of these."""
    rng = np.random.default_rng(4)
    scores = [rng.normal(size=6), 3 * rng.normal(size=10)]
    drawn = mean(resampled(scores, 20_000, rng))
    expected = sum(np.var(values) / len(values) for values in scores) / len(scores) ** 2
    assert np.var(drawn) == pytest.approx(expected, rel=0.04)


def test_an_interval_excludes_what_lies_outside() -> None:
    found = interval(1.0, np.linspace(0.5, 1.5, 1001), 2)
    assert (found.low, found.high) == pytest.approx((0.525, 1.475), abs=1e-9)  # 2.5 % of a width of 1 at each end
    assert found.excludes(0.5)
    assert not found.excludes(0.6)


def test_one_run_has_an_estimate_and_no_interval() -> None:
    found = interval(1.0, np.ones(100), 1)
    assert (found.estimate, found.low, found.high) == (1.0, None, None)
    assert not found.excludes(0.0)
    assert not found.within(2.0)
    assert found.text(".2f") == "1.00 (one run)"
