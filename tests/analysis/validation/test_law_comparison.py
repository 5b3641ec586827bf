"""Evidence between laws: scores and weights agree with closed forms and SciPy, and planted laws are recognised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dense_grid import R, dense_runs
from planted import moe_grid, table_of
from scipy import optimize, stats

from analysis import laws
from analysis.laws import HOFFMANN, JOINT_MOE
from analysis.validation import law_comparison
from analysis.validation.law_comparison import compare_laws, pseudo_bma_plus, scale_and_correlation, stacking_weights
from scaling.errors import InputError


def test_the_score_of_a_trunk_is_the_multivariate_t_of_scipy():
    residuals, trunks = 0.01 * R(0).standard_normal(7), np.array([0, 0, 0, 1, 2, 2, 2])
    found = law_comparison.log_density(residuals, trunks, 0.008, 0.3)
    for trunk in range(3):
        mine = residuals[trunks == trunk]
        shape = 0.008**2 * (0.7 * np.eye(len(mine)) + 0.3)
        judge = stats.multivariate_t(loc=np.zeros(len(mine)), shape=shape, df=law_comparison.FREEDOM).logpdf(mine)
        assert found[trunk] == pytest.approx(float(judge), rel=1e-12)


def test_scale_and_correlation_are_those_of_most_likelihood():
    single = 0.01 * R(0).standard_t(4, size=200)
    scale, correlation = scale_and_correlation(single, np.arange(200))
    judge = optimize.minimize_scalar(
        lambda s: -stats.t.logpdf(single, 4, scale=s).sum(),
        bounds=(1e-4, 1.0),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert correlation == 0
    assert scale == pytest.approx(judge.x, rel=1e-4)  # the judge's tolerance and a flat top
    trunks = np.repeat(np.arange(300), 5)
    mixed = stats.multivariate_t(shape=0.01**2 * (0.4 * np.eye(5) + 0.6), df=4).rvs(300, random_state=R(1)).ravel()
    scale, correlation = scale_and_correlation(mixed, trunks)
    assert correlation == pytest.approx(0.6, abs=0.11)  # one step of the grid
    assert scale == pytest.approx(0.01, rel=0.12)


def test_weights_in_closed_form():
    """A constant difference d in each of n units: every draw gives the softmax of n d, whatever its shares."""
    scores = np.array([[1.2] * 5, [1.0] * 5])
    assert pseudo_bma_plus(scores, 50, R(0)) == pytest.approx([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0))])
    same = R(0).standard_normal((1, 30)).repeat(3, axis=0)
    assert pseudo_bma_plus(same, 50, R(0)) == pytest.approx([1 / 3] * 3)
    assert stacking_weights(same) == pytest.approx([1 / 3] * 3)
    # f = .6 of the units favour the first by r = 5, the rest the second: w = f + (2f - 1)/(r - 1) = .65.
    apart = np.log(np.where(np.arange(10) < 6, 5.0, 1.0)), np.log(np.where(np.arange(10) < 6, 1.0, 5.0))
    assert stacking_weights(np.array(apart)) == pytest.approx([0.65, 0.35], abs=1e-6)


def test_few_units_give_no_certainty():
    """One unit of 8 carries the whole difference of 6: softmax says .998, while it is left out in a third of the
    draws."""
    scores = np.zeros((2, 8))
    scores[0, 0] = 6.0
    assert pseudo_bma_plus(scores, 4000, R(0))[0] < 0.95


def test_a_law_without_the_effect_of_experts_loses(moe):
    found = compare_laws(
        moe, [HOFFMANN, JOINT_MOE, laws.LAWS["leverage"], laws.LAWS["fine-grained"]], rng=R(0), folds=5
    )
    best, other = found.contenders
    assert (best.law, other.law) == ("joint-moe", "hoffmann")
    assert best.weight > 0.95
    assert other.difference < -5 * other.difference_se
    assert best.aicc < other.aicc
    assert best.rmse == pytest.approx(0.003, rel=0.25)
    assert other.correlation > 0.5, "what experts do is the same at every budget of a trunk"
    assert best.effective_runs > other.effective_runs >= found.n_trunks
    assert found.skipped["leverage"] == "it predicts compute_leverage, not loss_val"
    assert "granularity" in found.skipped["fine-grained"]
    assert best.advice.n_active * best.advice.tokens * 6 == pytest.approx(10 * moe.column("train_flops").max())
    assert "joint-moe predicts held-out trunks best" in found.verdict()
    again = compare_laws(moe, [HOFFMANN, JOINT_MOE], rng=R(0), folds=5)
    assert [one.weight for one in again.contenders] == [one.weight for one in found.contenders]


def test_folds_are_whole_trunks_spread_over_expert_counts(moe):
    _, trunks = np.unique(moe.trunks, return_inverse=True)
    dealt = law_comparison.deal_folds(moe, trunks, 5, R(0))
    assert np.bincount(dealt).tolist() == [5] * 5
    for e in (1, 2, 4, 8, 16):
        assert sorted(dealt[np.unique(trunks[moe.column("n_experts") == e])]) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="two folds and trunks"):
        compare_laws(moe, [HOFFMANN], rng=R(0), folds=1)


def test_comparing_nothing_says_why():
    table = table_of(moe_grid(experts=(4,), widths=(32,), tokens=(1e6, 2e6)), trunk_id=["a", "b"])
    found = compare_laws(table, [HOFFMANN], rng=R(0))
    assert found.contenders == ()
    assert "2 runs cannot determine 5 parameters" in found.verdict()


@pytest.mark.slow
def test_a_law_with_a_missing_term_is_found_out_in_most_studies():
    weights = []
    for seed in range(20):
        table = table_of(moe_grid(experts=(1, 4, 16), noise=0.005, seed=seed))
        found = compare_laws(table, [HOFFMANN, JOINT_MOE], rng=R(seed), folds=5, draws=500)
        weights.append({one.law: one.weight for one in found.contenders}["joint-moe"])
    assert np.mean(np.array(weights) > 0.95) >= 0.9


@pytest.mark.slow
def test_laws_that_are_equally_wrong_share_the_weight(monkeypatch):
    """Two laws see N off by e^z and e^-z, so which fits better is chance, and neither should be called certain.

    Over 40 studies the mean weight is within 3 standard errors of one half (sd of a weight at most .5), and fewer
    studies are certain (a weight above .95) than without the Bayesian bootstrap.
    """
    for name in ("na", "nb"):

        def log_formula(p, x, name=name):
            return HOFFMANN.log_formula(p, {"n_active": x[name], "tokens": x["tokens"]})

        seen = {"name": name, "n_column": name, "columns": (name, "tokens"), "log_formula": log_formula}
        monkeypatch.setitem(laws.LAWS.own, name, replace(HOFFMANN, optimum=None, **seen))
    weights, certain_without = [], []
    for seed in range(40):
        frame = dense_runs(0.002, seed, sizes=8, budgets=5).drop(columns="trunk_id")
        off = np.exp(0.06 * R(500 + seed).standard_normal(len(frame)))
        table = table_of(frame, na=frame["n_active"] * off, nb=frame["n_active"] / off)
        found = compare_laws(table, [laws.LAWS["na"], laws.LAWS["nb"]], rng=R(seed), folds=5, draws=1000)
        weights.append({one.law: one.weight for one in found.contenders}["na"])
        certain_without.append(1 / (1 + np.exp(found.contenders[1].difference)) > 0.95)
    assert abs(np.mean(weights) - 0.5) < 3 * 0.5 / np.sqrt(40)
    certain = np.mean(np.maximum(weights, 1 - np.array(weights)) > 0.95)
    assert certain <= 0.3
    assert certain < np.mean(certain_without)
