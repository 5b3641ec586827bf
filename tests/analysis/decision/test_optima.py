"""Optima: regret and the draws in which an expert count cannot answer, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from analysis.decision.next_run import regret_after_run
from analysis.decision.optima import MOST_REGRET, Optima, expected_regret, unanswered_share
from analysis.decision.size_search import Optimum
from analysis.decision.value_of_information import regret_of_choice

INF, NAN = np.inf, np.nan


def optima(**costs):
    """Costs of E = 1, 2, ... draw by draw."""
    ones = {name: np.ones(len(cost)) for name, cost in costs.items()}
    return Optima({int(name[1:]): Optimum(ones[name], ones[name], np.array(costs[name])) for name in costs}, {})


def test_regret_is_against_the_best_of_each_draw_and_nothing_where_there_is_no_answer():
    drawn = optima(E1=[1.0, 2.0, INF, 4.0], E2=[1.1, INF, INF, 2.0], E4=[INF, INF, INF, INF])
    regrets = drawn.regrets()
    assert regrets == pytest.approx(
        np.array([[0, 0.1, NAN], [0, NAN, NAN], [NAN, NAN, NAN], [1, 0, NAN]]), nan_ok=True, abs=1e-12
    )
    assert expected_regret(regrets) == pytest.approx([1 / 3, 0.05, NAN], nan_ok=True)
    assert unanswered_share(regrets) == pytest.approx([1 / 4, 1 / 2, 1])
    assert drawn.probability_best() == {1: 0.5, 2: 0.25, 4: 0.0}  # over all draws


def test_a_draw_in_which_an_answer_is_all_but_impossible_counts_at_most_tenfold():
    assert optima(E1=[1.0], E2=[1e30]).regrets().tolist() == [[0.0, MOST_REGRET]]


def test_weights_make_one_mean_a_case():
    regrets = np.array([[0.0, 0.4], [0.2, NAN]])
    weights = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert expected_regret(regrets, weights) == pytest.approx(np.array([[0.05, 0.4], [0.2, NAN]]), nan_ok=True)
    assert unanswered_share(regrets, weights) == pytest.approx(np.array([[0.0, 0.25], [0.0, 1.0]]))


def test_an_expert_count_that_seldom_answers_is_not_chosen_for_its_regret():
    regrets = np.array([[0.1, 0.0], [0.1, NAN]])
    regret, missed = regret_of_choice(regrets, np.array([[1.0, 1.0], [1.0, 0.0]]))
    assert regret == pytest.approx([0.1, 0.0])  # E = 2 only where the weights say that it can answer
    assert missed == pytest.approx([0.0, 0.0])
    regret, missed = regret_of_choice(np.array([[NAN, 0.3], [NAN, NAN]]), np.ones((1, 2)))  # none answers often enough
    assert (regret[0], missed[0]) == (pytest.approx(0.3), 0.5)


def test_a_run_settles_whether_an_answer_exists():
    """Two draws, in one of which nothing can answer: open before, settled by a run that distinguishes them."""
    regrets = np.array([[0.0], [NAN]])
    assert regret_after_run(np.array([0.0, 1.0]), regrets, 1e-3) == (0.0, 0.0)
    assert regret_after_run(np.array([0.0, 0.0]), regrets, 1e-3) == (0.0, 1.0)


def test_regret_after_a_run_by_hand():
    """Two draws, each making another E best by 1. A run that distinguishes them leaves 0, one that does not 1/2."""
    regrets = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert regret_after_run(np.array([0.0, 1.0]), regrets, 1e-3) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert regret_after_run(np.array([0.0, 0.0]), regrets, 1e-3) == pytest.approx((0.5, 0.0))
    # partly: with predictions 2 noises apart the likelier draw is the wrong one with probability Phi(-1); a few
    # outcomes are drawn
    assert regret_after_run(np.array([0.0, 2.0]), regrets, 1.0) == pytest.approx((norm.sf(1.0), 0.0), abs=0.02)
