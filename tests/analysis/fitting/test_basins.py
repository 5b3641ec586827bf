"""Independent searches of flat valleys: they find what starts miss, agree, and say where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.fitting.basins import hop, perturbed
from analysis.fitting.objective import HUBER
from analysis.fitting.problem import Problem
from analysis.fitting.search import GlobalMinimum, search
from analysis.laws import FARSEER, HOFFMANN
from analysis.tables.runs import read_runs
from benchmarks.public import Absent, public_data

TRUTH = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}


def problem(noise: float = 0.003, seed: int = 0) -> Problem:
    size, tokens = (values.ravel() for values in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e11, 5)))
    columns = {"n_active": size, "tokens": tokens}
    noises = noise * np.random.default_rng(seed).standard_normal(size.size)
    return Problem(HOFFMANN, HOFFMANN.names, {}, columns, HOFFMANN.loss(TRUTH, columns) * np.exp(noises), HUBER)


def test_perturbations_move_predictions_alike_along_every_direction_and_stay_within_bounds():
    some = problem()
    place = np.repeat(some.coordinates(TRUTH)[None], 400, axis=0)
    moved = perturbed(some, place, np.random.default_rng(1))
    lower, upper = some.bounds
    assert np.all((moved >= lower) & (moved <= upper))
    change = some.model(moved)[0] - some.model(place)[0]
    residual = np.linalg.norm(some.model(place[:1])[0] - some.observed)
    assert 0.5 < np.median(np.linalg.norm(change, axis=1)) / residual < 30
    spread = (moved - place).std(axis=0)
    assert spread[some.free.index("B")] > 3 * spread[some.free.index("beta")]  # ln B moves with beta, in the valley


def test_searches_reach_the_minimum_from_starts_that_are_far_from_it():
    some = problem()
    lowest = search(some, 64, np.random.default_rng(0))
    assert lowest.n_searches == 0
    assert not lowest.doubt
    bad = np.repeat(some.coordinates({"E": 0.1, "A": 3.0, "alpha": 0.05, "B": 3.0, "beta": 0.05})[None], 6, axis=0)
    start = some.minimise(bad, np.ones((6, 25)), max_steps=1)
    found = hop(some, start.theta, start.objective, 3, 3, np.random.default_rng(2))
    assert found.objective == pytest.approx(lowest.objective, rel=1e-4)


@pytest.mark.parametrize(
    ("counts", "numbers"),
    [
        ((64, 2, 0, 0), ("2", "64")),
        ((1900, 5, 16, 2), ("2", "16", "1,900")),
        ((64, 20, 0, 0), ()),
        ((1900, 5, 8, 3), ()),
    ],
)
def test_few_agreeing_starts_or_searches_are_a_doubt_with_their_numbers(counts, numbers):
    doubt = GlobalMinimum(np.zeros(1), 1.0, *counts).doubt
    assert bool(doubt) == bool(numbers)
    assert all(f"{number} " in doubt for number in numbers)


@pytest.mark.slow
def test_farseer_has_one_minimum_whatever_the_seed():
    try:
        path = public_data("isoflop_comma.csv")
    except Absent as absent:
        pytest.skip(str(absent))
    table = read_runs(path, {"n_active": "params", "loss_val": "loss"}, None, FARSEER, 0)
    some = Problem.of(table, FARSEER, {}, HUBER)
    found = [search(some, 64, np.random.default_rng(seed)) for seed in range(3)]
    assert [each.objective for each in found] == pytest.approx([2.65036e-4] * 3, rel=1e-4)
    assert not any(each.doubt for each in found)
