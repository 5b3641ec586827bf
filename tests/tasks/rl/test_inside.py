"""Dormancy and effective rank against examples with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.tasks.rl.inside import DORMANT, dormancy, effective_rank

RNG = np.random.default_rng


def hidden(experts: int = 3, rows: int = 40, units: int = 8) -> np.ndarray:
    return RNG(0).uniform(0.5, 1.5, (experts, rows, units))


def everywhere(values: np.ndarray) -> np.ndarray:
    return np.ones(values.shape[:2], bool)


def test_a_silent_unit_counts_for_its_expert_alone() -> None:
    values = hidden()
    values[1, :, 2] = 0
    found = dormancy(values, everywhere(values), RNG(1))
    np.testing.assert_array_equal(found.dormant, [0, 1 / 8, 0])
    np.testing.assert_array_equal(found.silent, [0, 1 / 8, 0])
    assert not found.idle.any()


def test_a_score_is_relative_to_the_mean_of_the_layer() -> None:
    """Seven units of mean 1 and one of x: its score is x / ((7 + x) / 8), which is tau at x = 7 tau / (8 - tau)."""
    edge = 7 * DORMANT / (8 - DORMANT)
    for x, share in ((edge * 0.999, 1 / 8), (edge * 1.001, 0)):
        values = np.ones((1, 5, 8))
        values[0, :, 0] = x
        found = dormancy(values, everywhere(values), RNG(0))
        assert (found.dormant[0], found.silent[0]) == (share, 0)
        scaled = dormancy(1000 * values, everywhere(values), RNG(0))
        np.testing.assert_array_equal(found.dormant, scaled.dormant)


def test_only_rows_that_reached_the_expert_count() -> None:
    values = hidden(experts=2)
    values[0, :10, 3] = 0
    reached = everywhere(values)
    assert dormancy(values, reached, RNG(0)).silent[0] == 0
    reached[0, 10:] = False
    np.testing.assert_array_equal(dormancy(values, reached, RNG(0)).silent, [1 / 8, 0])


def test_an_expert_that_nothing_reached_is_idle_and_wholly_dormant() -> None:
    values = hidden(experts=2)
    reached = everywhere(values)
    reached[1] = False
    found = dormancy(values, reached, RNG(0))
    assert found.idle.tolist() == [False, True]
    assert (found.dormant.tolist(), found.silent.tolist()) == ([0, 1], [0, 1])


def test_every_arm_is_judged_by_as_many_rows() -> None:
    """A unit active in one row of n is seen in the r rows that are drawn with probability r / n: 1,000 such units,
    n = 40, r = 10; four standard deviations of a share of 3/4 are .055."""
    values = np.zeros((1, 40, 1000))
    values[0, RNG(2).integers(40, size=1000), np.arange(1000)] = 1
    found = dormancy(values, everywhere(values), RNG(3), rows=10)
    assert found.silent[0] == pytest.approx(0.75, abs=0.055)
    assert dormancy(values, everywhere(values), RNG(3), rows=40).silent[0] == 0


def test_effective_rank_counts_the_directions_that_hold_99_percent() -> None:
    """Singular values 60, 39, 1: two hold exactly .99. Equal ones: ceil(.99 n)."""
    left, right = (np.linalg.qr(RNG(seed).normal(size=(n, 3)))[0] for seed, n in ((0, 20), (1, 6)))
    assert effective_rank(left @ np.diag([60.0, 39.0, 1.0]) @ right.T) == 2
    assert effective_rank(left @ np.diag([60.0, 38.0, 2.0]) @ right.T) == 3
    assert effective_rank(np.eye(200)) == 198
    assert effective_rank(np.zeros((5, 5))) == 0
