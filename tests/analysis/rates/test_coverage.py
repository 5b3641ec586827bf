"""Coverage of the intervals on planted power laws with noise of replicates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.rates.question import Average
from analysis.rates.resampling import Cell, averages
from analysis.rates.slopes import estimated

X = np.array([100.0, 300.0, 1000.0, 3000.0, 10_000.0])
SLOPE, NOISE = -0.5, 0.6


def covered(trials: int, count: int, average: Average, draws: int, seed: int, heavy: bool = False) -> int:
    """In how many trials the interval of the slope holds the planted one; with `heavy` replicates scatter as Student's
    t with three degrees of freedom, in logarithms, as fits that sometimes fail do."""
    rng, hits = np.random.default_rng(seed), 0
    identities = tuple(map(str, range(count)))
    for _ in range(trials):
        scatter = rng.standard_t(3, (len(X), count)) if heavy else rng.normal(size=(len(X), count))
        cells = [Cell(identities, x**SLOPE * np.exp(NOISE * own)) for x, own in zip(X, scatter, strict=True)]
        (found,) = estimated(X, averages(cells, average, draws, rng), [(0, len(X) - 1)])
        assert found.interval is not None
        hits += found.interval[0] <= SLOPE <= found.interval[1]
    return hits


def bounds(trials: int, share: float = 0.95) -> tuple[float, float]:
    """The counts between which a binomial of that share lies in 998 of 1,000 cases."""
    return stats.binom.ppf(0.001, trials, share), stats.binom.ppf(0.999, trials, share)


def test_intervals_of_twenty_replicates_hold_the_planted_slope():
    """200 trials at 95 %: 180 to 199. Nominal in theory too: the mean of logarithms is normal here."""
    low, high = bounds(200)
    assert low <= covered(200, 20, "geometric", 400, seed=1) <= high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "average", "heavy"),
    list(itertools.product((5, 10, 40), ("geometric", "median"), (False, True))),
)
def test_coverage_of_every_average(count, average, heavy):
    """400 trials. Nominal is 95 %, and two points less are allowed; five replicates have too few resamples for more
    than 90 %. Those of a median jump, so that its intervals are wide: no upper bound holds for it."""
    hits = covered(400, count, average, 500, seed=2, heavy=heavy)
    assert hits >= bounds(400, 0.90 if count < 10 else 0.93)[0]
    if average == "geometric":
        assert hits <= bounds(400, 0.97)[1]
