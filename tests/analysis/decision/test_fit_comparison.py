"""Fits of several k compared: each offers what `recommend` says of it, and planted leads are recovered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.decision.fit_comparison import compare_fits
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit import Fit, fit
from analysis.laws import JOINT_MOE
from scaling.errors import InputError

BUDGET = 1e14


def study(top_k=1, spread=0.0, count=200, seed=0, **changes):
    """A planted study of one k, every parameter pinned but the floor, whose draws spread around the truth."""
    planted = dict(PLANTED_MOE | changes)
    fitted = fit(table_of(moe_grid(params=planted).assign(top_k=top_k)), JOINT_MOE, pin=planted)
    rng = np.random.default_rng(seed)
    draws = {"c": tuple(planted["c"] + spread * rng.standard_normal(count))}
    pinned = {name: pin for name, pin in fitted.pinned.items() if name != "c"}
    return replace(fitted, params={**fitted.params, "c": planted["c"]}, draws=draws, pinned=pinned)


@pytest.mark.parametrize(
    "question",
    [
        Question(train_flops=BUDGET),
        Question(target_loss=2.2, serve_tokens=1e9),
        Question(train_flops=BUDGET, serve_tokens=1e9),
    ],
)
def test_what_each_offers_is_what_it_recommends(question):
    fits = {"one": study(), "two": study(top_k=2, c=PLANTED_MOE["c"] - 0.05)}
    comparison = compare_fits(fits, question)
    assert {rival.name for rival in comparison.rivals} == set(fits)
    assert [rival.value for rival in comparison.rivals] == sorted(rival.value for rival in comparison.rivals)
    first = next(rival for rival in comparison.rivals if rival.name == "one")
    own = recommend(fits["one"], question).recommendation
    value = own.loss if question.goal == "loss" else own.cost.total
    assert (first.n_experts, first.value) == (own.n_experts, pytest.approx(value, rel=1e-9))


def test_the_k_comes_from_the_family():
    comparison = compare_fits({"one": study(), "two": study(top_k=2)}, Question(train_flops=BUDGET))
    assert {rival.name: rival.top_k for rival in comparison.rivals} == {"one": 1, "two": 2}


def test_chances_are_those_of_two_normal_floors():
    """Loss at a budget: floors c1, c2 of spread s differ by d, so the first is best with probability Phi(d / (s sqrt
    2))."""
    from scipy.stats import norm

    spread, lead, count = 0.01, 0.01, 1000
    fits = {
        "low": study(spread=spread, count=count, seed=1),
        "high": study(spread=spread, count=count, seed=2, c=PLANTED_MOE["c"] + lead),
    }
    comparison = compare_fits(fits, Question(train_flops=BUDGET))
    expected = norm.cdf(lead / (spread * np.sqrt(2)))
    assert comparison.rivals[0].name == "low"
    error = np.sqrt(expected * (1 - expected) / count)
    assert comparison.rivals[0].probability_best == pytest.approx(expected, abs=3 * error)
    assert comparison.rivals[0].regret < comparison.rivals[1].regret


def test_without_draws_nothing_is_said_of_chance():
    comparison = compare_fits({"one": study(), "two": replace(study(), draws={})}, Question(train_flops=BUDGET))
    assert comparison.n_draws == 0
    assert all(rival.probability_best is None and rival.regret is None for rival in comparison.rivals)


def test_a_fit_that_cannot_answer_is_named():
    fits = {"one": study(), "two": study(c=PLANTED_MOE["c"] + 2.0)}
    assert isinstance(fits["two"], Fit)
    with pytest.raises(InputError, match="two: no model of it can answer"):
        compare_fits(fits, Question(target_loss=2.2, serve_tokens=1e9))
