"""The gate: a method's runs against a baseline's law, with planted worth, noise and growth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.published import published
from analysis.worth.asked import question_of
from analysis.worth.gate import gate
from analysis.worth.prices import Prices
from analysis.worth.worth import worth_of_candidate
from scaling.errors import InputError
from tests.support.planted import table_of
from tests.support.worth import falling, with_draws

DENSE = published("chinchilla-tex")
NOISY = replace(DENSE, noise=0.004, draws={})
SIZES = (1e8, 3e8, 1e9)
CENTRE = 6 * 20 * 3e8**2


def runs(worth=1.5, growth=0.0, noise=0.0, ratio=20.0, sizes=SIZES, e=1, seed=0, copies=1) -> pd.DataFrame:
    """Runs of a method whose loss is that of a baseline with `worth` (C/CENTRE)^growth times the compute."""
    rng = np.random.default_rng(seed)
    n = np.tile(np.array(sizes), copies)
    factor = worth * (6 * ratio * n**2 / CENTRE) ** growth
    loss = DENSE.loss({"n_active": n * factor**0.5, "tokens": ratio * n * factor**0.5})
    loss = loss * np.exp(noise * rng.standard_normal(len(n)))
    return pd.DataFrame({"n_active": n, "tokens": ratio * n, "n_experts": e, "loss_val": loss})


def judged(frame, fit=NOISY, budgets=(), against="own shape", **more):
    asked = question_of(budgets, speed=falling(0.2), **more)
    return gate(fit, table_of(frame), budgets, Prices(asked), against)


@pytest.mark.parametrize("ratio", [2.0, 20.0, 400.0])
def test_at_its_own_shape_the_planted_worth_is_found_however_long_a_run_is(ratio):
    found = judged(runs(1.5, ratio=ratio))
    assert [run.own_shape for run in found.runs] == pytest.approx([1.5] * 3, rel=1e-9)
    assert found.alone.compute_speedup == pytest.approx(1.5, rel=1e-9)


def test_against_the_frontier_a_run_off_the_optimum_is_worth_less():
    """At the optimum of the law both agree; C_base(L) never exceeds the compute of a model of that loss."""
    n, d = DENSE.definition.optimum(DENSE.params, 1e21, 1)
    loss = float(DENSE.loss({"n_active": n, "tokens": d}))
    best = pd.DataFrame({"n_active": [n / 1.2**0.5], "tokens": [d / 1.2**0.5], "loss_val": [loss]})
    (run,) = judged(best).runs
    assert run.own_shape == pytest.approx(1.2, rel=1e-6)
    assert run.frontier == pytest.approx(1.2, rel=1e-6)
    for one in judged(runs(1.5, ratio=400.0)).runs:
        assert one.frontier < 0.9 * one.own_shape
    assert judged(runs(1.5, ratio=400.0), against="frontier").alone.compute_speedup < 1.35


@pytest.mark.parametrize("growth", [-0.05, 0.08])
def test_the_line_extrapolates_the_planted_growth_and_says_so(growth):
    budgets = (CENTRE, 1e3 * CENTRE)
    found = judged(runs(1.5, growth), budgets=budgets)
    near, far = found.at
    assert (near.extrapolated, far.extrapolated) == (False, True)
    assert near.compute_speedup == pytest.approx(1.5, rel=1e-6)
    assert far.compute_speedup == pytest.approx(1.5 * 1e3**growth, rel=1e-5)
    assert found.growth.compute_slope == pytest.approx(growth, abs=1e-6)
    widths = [np.ptp(np.log(one.compute_interval)) for one in found.at]
    assert widths[1] > 3 * widths[0]


def test_probability_and_verdict():
    assert judged(runs(1.5)).decided == "better"
    assert judged(runs(0.7)).decided == "worse"
    undecided = judged(runs(1.0, noise=0.0))
    assert undecided.decided == "open"
    assert undecided.probability == pytest.approx(0.5, abs=0.06)


def test_the_interval_is_that_of_the_noise():
    """One run, ln L off by .4 %: ln s = ln(s) off by .004 over -d ln L/d ln s, by differences of the law."""
    (run,) = judged(runs(1.5, sizes=(3e8,))).runs
    models = [
        {"n_active": 3e8 * np.exp(x / 2), "tokens": 6e9 * np.exp(x / 2)} for x in (np.log(1.5), np.log(1.5) + 1e-4)
    ]
    steepness = -np.diff([float(np.log(DENSE.loss(model))) for model in models])[0] / 1e-4
    assert np.ptp(np.log(run.interval)) == pytest.approx(2 * 1.96 * 0.004 / steepness, rel=0.1)


def test_intervals_cover_the_worth_at_the_centre_and_beyond():
    """Of 30 methods with the noise that the fit states: 95 % but for three binomial errors."""
    held = []
    budget = 100 * CENTRE
    for seed in range(30):
        frame = runs(1.2, 0.02, noise=0.004, seed=seed, copies=2).assign(trunk_id=range(6))
        found = judged(frame, budgets=(budget,))
        truth = 1.2 * np.array([found.alone.train_flops, budget]) ** 0.02 / CENTRE**0.02
        (beyond,) = found.at
        ends = (found.alone.compute_interval, beyond.compute_interval)
        held.append([low <= true <= high for (low, high), true in zip(ends, truth, strict=True)])
    assert np.mean(held, axis=0) == pytest.approx([0.95, 0.95], abs=3 * np.sqrt(0.05 * 0.95 / 30))


def test_the_draws_of_the_law_are_in_the_interval():
    exact = judged(runs(1.5))
    drawn = judged(runs(1.5), fit=with_draws(NOISY, 0.02, "E"))
    assert np.ptp(np.log(drawn.alone.compute_interval)) > 1.5 * np.ptp(np.log(exact.alone.compute_interval))


def test_time_follows_the_speed_of_the_run_and_of_its_baseline():
    found = judged(runs(1.5, e=4), fit=replace(published("joint-moe-2025"), draws={}, noise=0.004))
    assert found.alone.time_speedup == pytest.approx(found.alone.compute_speedup * 4**-0.2, rel=1e-9)
    same = judged(runs(1.5))
    assert same.alone.time_speedup == pytest.approx(same.alone.compute_speedup)


def test_runs_that_scatter_more_than_their_noise_widen_the_interval():
    frame = runs(1.5, sizes=(1e8, 2e8, 4e8, 8e8, 1.6e9))
    frame["loss_val"] *= np.exp(0.02 * np.array([1, -1, 1, -1, 1]))
    found = judged(frame)
    assert found.excess > 3
    assert judged(runs(1.5)).excess == 1.0
    warned = worth_of_candidate(NOISY, table_of(frame), question_of(()))
    assert any("times more about their line" in warning for warning in warned.warnings)


def test_one_budget_gives_no_trend():
    frame = runs(1.5, sizes=(3e8,), copies=3, noise=0.001)
    found = judged(frame, budgets=(CENTRE, 10 * CENTRE))
    inside, beyond = found.at
    assert found.growth is None
    assert inside.compute_speedup == found.alone.compute_speedup
    assert beyond.compute_speedup is None
    assert "no trend" in beyond.reason


def test_runs_that_the_baseline_never_matches_are_left_out():
    frame = runs(1.5)
    frame.loc[0, "loss_val"] = 0.5 * DENSE.params["E"]
    found = judged(frame)
    assert found.left_out == 1
    assert found.runs[0].own_shape is None
    assert found.alone.compute_speedup == pytest.approx(1.5, rel=1e-9)
    with pytest.raises(InputError, match="reaches the loss of none"):
        judged(frame.assign(loss_val=0.1))


def test_wrong_baselines_and_runs_are_named():
    with pytest.raises(InputError, match="a baseline is a law of loss"):
        judged(runs(), fit=published("leverage-2025"))
    with pytest.raises(InputError, match="tokens is not a positive number"):
        judged(runs().drop(columns="tokens"))
