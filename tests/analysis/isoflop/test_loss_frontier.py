"""The loss of compute-optimal models: planted laws recovered, coverage beyond the minima, and what is refused."""

import numpy as np
import pytest

from analysis.isoflop.loss_frontier import loss_frontier
from scaling.errors import InputError

BUDGETS = np.geomspace(1e18, 1e21, 7)


def planted(budgets, irreducible=1.7, exponent=0.155):
    return irreducible + (np.asarray(budgets) / 1e19) ** -exponent


def test_exact_minima_give_the_planted_law_far_beyond_them():
    law = loss_frontier(BUDGETS, planted(BUDGETS), [np.nan] * 7)
    band = law.predict([1e18, 1e21, 1e24])
    # The exponents tried are 2.8 % apart: at a thousand times the compute the nearest misses by some .003 nats.
    np.testing.assert_allclose(band.mean, planted([1e18, 1e21, 1e24]), atol=0.004)
    assert np.median(law.exponent) == pytest.approx(0.155, rel=0.03)
    assert np.median(law.irreducible) == pytest.approx(1.7, abs=0.02)


@pytest.mark.parametrize(("irreducible", "exponent"), [(1.7, 0.155), (1.4, 0.1), (1.9, 0.3)])
def test_the_interval_holds_at_thirty_times_the_compute(irreducible, exponent):
    rng, truth, inside = np.random.default_rng(3), planted(3e22, irreducible, exponent), []
    for _ in range(150):
        noise = np.exp(0.003 * rng.standard_normal(7))
        band = loss_frontier(BUDGETS, planted(BUDGETS, irreducible, exponent) * noise, [np.nan] * 7).predict(3e22)
        inside.append(band.low[0] <= truth <= band.high[0])
    # Three binomial deviations of 150 trials are .053; the exponents lie up to 1.3 deviations off the prior's middle.
    assert np.mean(inside) >= 0.95 - 0.055


def test_minima_known_badly_widen_the_interval():
    sharp, vague = (loss_frontier(BUDGETS, planted(BUDGETS), [d] * 7).predict(1e23) for d in (1e-4, 0.02))
    assert np.ptp([vague.low[0], vague.high[0]]) > 10 * np.ptp([sharp.low[0], sharp.high[0]])


def test_few_minima_leave_the_exponent_to_the_prior():
    law = loss_frontier([1e18, 1e19, 1e20], planted([1e18, 1e19, 1e20]) * [1.001, 0.999, 1.001], [np.nan] * 3)
    low, high = np.quantile(law.exponent, [0.025, 0.975])
    assert low < 0.1 < 0.2 < high


@pytest.mark.parametrize(
    ("budgets", "losses"),
    [([1e18, 1e19], [3.0, 2.8]), ([1e18, 1e18, 1e19], [3.0, 3.0, 2.8]), (BUDGETS, [2.0] * 6 + [-1.0]),
     (BUDGETS, np.linspace(2.0, 3.0, 7))],
)  # fmt: skip
def test_minima_that_give_no_law_are_refused(budgets, losses):
    with pytest.raises(InputError):
        loss_frontier(budgets, losses, [np.nan] * len(budgets))
