"""BCa intervals against SciPy's, their invariances, and what few trunks do to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.fitting.bca import ENDS, Resampled, acceleration, interval, quantiles


@pytest.mark.parametrize("seed", range(4))
def test_equals_scipys_bca_on_its_own_resamples(seed):
    """An independent implementation on skewed samples of 25: mean and, asymmetrically, the log of the mean."""
    sample = np.random.default_rng(seed).lognormal(0, 1, 25)
    for statistic in (np.mean, lambda x, axis=-1: np.log(np.mean(x, axis=axis))):
        theirs = stats.bootstrap(
            (sample,), statistic, method="BCa", n_resamples=999, rng=np.random.default_rng(seed), vectorized=True
        )
        without = np.array([statistic(np.delete(sample, i)) for i in range(25)])
        ours = interval(statistic(sample), theirs.bootstrap_distribution, without)
        assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)


def test_quantities_side_by_side_are_quantities_alone():
    rng = np.random.default_rng(0)
    estimate, draws, without = rng.normal(size=(2, 3)), rng.gamma(2, size=(200, 2, 3)), rng.gamma(2, size=(30, 2, 3))
    low, high = interval(estimate, draws, without)
    assert low.shape == (2, 3)
    for place in np.ndindex(2, 3):
        alone = interval(estimate[place], draws[(slice(None), *place)], without[(slice(None), *place)])
        assert (low[place], high[place]) == pytest.approx(alone)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-2, 2), seed=st.integers(0, 1000))
def test_intervals_follow_monotone_transforms(shift, seed):
    """That of exp(q) is exp of that of q, to the gaps between 20,001 draws, with the acceleration held at zero."""
    draws = np.random.default_rng(seed).normal(size=20_001)
    plain = np.array(interval(shift / 4, draws))
    assert np.log(interval(np.exp(shift / 4), np.exp(draws))) == pytest.approx(plain, abs=1e-3)


def test_the_share_of_draws_below_the_estimate_moves_the_interval():
    """By z0 twice: with 84 % of the draws below it, the quantiles asked of are Phi(2 - 1.96) and Phi(2 + 1.96)."""
    draws = stats.norm.ppf((np.arange(100_001) + 0.5) / 100_001)
    low, high = interval(1.0, draws)
    assert low == pytest.approx(2 - 1.959964, abs=2e-3)
    assert high == pytest.approx(2 + 1.959964, abs=0.05)  # four draws lie beyond it


def test_few_trunks_widen_by_students_t():
    draws = stats.norm.ppf((np.arange(200_001) + 0.5) / 200_001)
    _, high = interval(0.0, draws, resampled=Resampled((0,) * 10, 10, "scarce"))
    assert high == pytest.approx(np.sqrt(10 / 9) * stats.t.ppf(0.975, 9), abs=2e-3)
    _, high = interval(0.0, draws, resampled=Resampled((0,) * 10, 10, "many"))
    assert high == pytest.approx(1.959964, abs=2e-3)


def test_where_trunks_are_few_the_wider_of_two_is_given():
    """With so many trunks that t is normal: the plain percentile below, the corrected one above."""
    draws = np.random.default_rng(0).normal(size=2_001)
    few = interval(0.7, draws, resampled=Resampled(n_trunks=10**9, supply="scarce"))
    assert few[0] == pytest.approx(np.quantile(draws, 0.025), abs=1e-6)
    assert few[1] == pytest.approx(interval(0.7, draws)[1], abs=1e-6)


def test_draws_that_are_not_numbers_are_left_out_and_infinities_kept():
    draws = np.concatenate([np.linspace(0, 1, 101), np.full(40, np.nan)])
    assert interval(0.5, draws) == pytest.approx(interval(0.5, draws[:101]))
    assert interval(0.5, np.concatenate([np.linspace(0, 1, 90), np.full(10, np.inf)]))[1] == np.inf


def test_the_acceleration_of_strata_is_that_of_their_pooled_influence():
    """Equal strata shifted against each other: the shift is no skewness. Symmetric values have none."""
    one = np.random.default_rng(3).gamma(1, size=20)
    alone = acceleration(one)
    both = acceleration(np.concatenate([one, one + 100]), [0] * 20 + [1] * 20)
    assert both == pytest.approx(alone / np.sqrt(2))
    assert acceleration(np.array([-1.0, 0, 1])) == pytest.approx(0, abs=1e-12)
    assert acceleration(np.full(5, 2.0)) == 0


def test_what_is_not_resampled_thins_the_acceleration():
    """A sum of skewed runs and of something symmetric beside them: the acceleration of the pooled influence values."""
    rng = np.random.default_rng(3)
    skewed, symmetric = rng.gamma(1.0, size=40), rng.normal(size=20)
    symmetric = 2.5 * np.concatenate([symmetric, -symmetric])  # no skewness, and a variance of its own
    pooled = acceleration(np.concatenate([skewed, symmetric])[:, None], [0] * 40 + [1] * 40)
    of_runs = np.var(skewed) / (np.var(skewed) + np.var(symmetric))
    assert acceleration(skewed[:, None]) * of_runs**1.5 == pytest.approx(pooled)
    draws = rng.gamma(4.0, size=2_000)
    thinned = interval(4.0, draws, skewed, of_runs=of_runs)
    assert thinned == pytest.approx(
        interval(4.0, draws, np.concatenate([skewed, symmetric]), Resampled((0,) * 40 + (1,) * 40))
    )
    assert interval(4.0, draws, skewed, of_runs=0.0) == pytest.approx(interval(4.0, draws))


def test_quantiles_ascend():
    rng = np.random.default_rng(1)
    found = quantiles(
        np.linspace(0.01, 0.99, 99),
        0.3,
        rng.gamma(1, size=500),
        rng.gamma(1, size=20),
        Resampled(n_trunks=20, supply="scarce"),
    )
    assert np.all(np.diff(found) >= 0)
    assert ENDS == (0.025, 0.975)


def test_few_trunks_are_corrected_by_half_and_widened_by_their_strata():
    """z0 = 1 without acceleration: BCa asks for Phi(2 + z); half of that and of z is z + 1, with z 1.96
    sqrt(n/(n-1))."""
    draws = stats.norm.ppf((np.arange(100_001) + 0.5) / 100_001)
    resampled = Resampled((0, 0, 0, 0, 1, 1, 1, 1), 8, "few")
    assert resampled.widening == pytest.approx(np.sqrt(4 / 3))
    low, _ = interval(1.0, draws, resampled=resampled)
    assert low == pytest.approx(1 - 1.959964 * np.sqrt(4 / 3), abs=2e-3)
    assert Resampled((0, 0, 1, 1, 1, 1)).widening == pytest.approx(np.sqrt((2 * 2 + 4 * 4 / 3) / 6))
    assert Resampled().widening == 1.0
