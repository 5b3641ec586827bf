"""Averages over replicates against SciPy and NumPy; what is resampled together; intervals without spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.rates.resampling import Cell, averages, log_averages

RNG = np.random.default_rng(3)
VALUES = RNG.lognormal(0, 1, (7, 3))
WEIGHTS = RNG.multinomial(7, np.full(7, 1 / 7), size=5)
REPLICATES = tuple(f"0/{number}" for number in range(30))


def judge(average: str, values: np.ndarray) -> float:
    return {"geometric": stats.gmean, "arithmetic": np.mean, "median": np.median}[average](values)


@pytest.mark.parametrize("average", ["geometric", "arithmetic", "median"])
def test_an_average_is_that_of_the_replicates_as_often_as_they_occur(average):
    found = log_averages(VALUES, WEIGHTS, average)
    for row, counts in enumerate(WEIGHTS):
        for column in range(VALUES.shape[1]):
            values = np.repeat(VALUES[:, column], counts)
            assert np.exp(found[row, column]) == pytest.approx(judge(average, values), rel=1e-12)  # rounding


def test_an_average_that_is_not_positive_has_no_logarithm():
    values = np.array([[1.0, -1.0], [3.0, -2.0]])
    found = log_averages(values, np.ones((1, 2)), "arithmetic")
    assert found[0, 0] == pytest.approx(np.log(2.0))
    assert np.isnan(found[0, 1])


def test_cells_with_the_same_replicates_are_resampled_together():
    """The second cell is twice the first, replicate by replicate, in another order: their ratio has no spread."""
    values = RNG.lognormal(0, 1, 30)
    backwards = Cell(REPLICATES[::-1], 2 * values[::-1])
    found = averages([Cell(REPLICATES, values), backwards], "geometric", 200, np.random.default_rng(0))
    for rows in (found.estimate[None], found.draws, found.without):
        assert np.diff(rows, axis=1) == pytest.approx(np.full((len(rows), 1), np.log(2.0)), abs=1e-12)  # rounding
    assert found.draws.std(axis=0).min() > 0.05
    assert len(found.without) == 30


def test_cells_with_other_replicates_are_resampled_apart():
    values = RNG.lognormal(0, 1, 30)
    others = tuple(f"1/{number}" for number in range(30))
    cells = [Cell(REPLICATES, values), Cell(others, 2 * values)]
    found = averages(cells, "geometric", 4000, np.random.default_rng(0))
    # The correlation of 4,000 independent pairs has a standard deviation of .016.
    assert abs(np.corrcoef(found.draws.T)[0, 1]) < 0.06
    assert len(found.without) == 60
    assert set(found.resampled.strata) == {0, 1}


def test_the_interval_of_a_geometric_mean_is_that_of_a_mean_of_logarithms():
    """A bootstrap of 200 normal logarithms agrees with Student's t within its own noise: 2,000 resamples leave the ends
    of an interval uncertain by about a twentieth of their distance to the estimate."""
    values = np.exp(np.random.default_rng(4).normal(0, 1, 200))
    many = tuple(map(str, range(200)))
    found = averages([Cell(many, values)], "geometric", 2000, np.random.default_rng(0))
    low, high = found.interval(found.estimate, found.draws, found.without)
    logs = np.log(values)
    half = stats.t.ppf(0.975, 199) * logs.std(ddof=1) / np.sqrt(200)
    assert low[0] == pytest.approx(logs.mean() - half, abs=0.15 * half)
    assert high[0] == pytest.approx(logs.mean() + half, abs=0.15 * half)


def test_a_single_replicate_and_equal_ones_have_no_spread():
    alone, equal = Cell(("0/0",), np.array([2.0])), Cell(REPLICATES, np.full(30, 3.0))
    four, five = (Cell(REPLICATES[:count], np.arange(1.0, count + 1)) for count in (4, 5))
    found = averages([alone, equal, four, five, Cell(REPLICATES, np.arange(1.0, 31.0))], "median", 50, RNG)
    assert found.known.tolist() == [False, False, False, True, True]
    assert found.draws[:, 0] == pytest.approx(np.full(50, np.log(2.0)))
    assert len(averages([Cell(("a",), np.ones(1))], "geometric", 10, RNG).without) == 0
