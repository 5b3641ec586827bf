"""Refits of a mixture: whole on a part of the runs, member by member with the weights held."""

from __future__ import annotations

import numpy as np
import pytest
from planted import hoffmann_runs, moe_grid, table_of

from analysis.fitting.objective import HUBER
from analysis.fitting.roll_out import roll_out
from analysis.mixture.composite import DISCREPANCY
from analysis.mixture.fitted_mixture import fit_mixture
from analysis.mixture.refits import of_mixture, refits


@pytest.fixture(scope="module")
def table():
    runs = hoffmann_runs(noise=0.003)
    return table_of(runs.assign(train_flops=6 * runs["n_active"] * runs["tokens"]))


@pytest.fixture(scope="module")
def mixture(table):
    return fit_mixture(table, n_starts=8, resamples=20)


def test_a_refit_to_all_runs_is_the_mixture_and_to_others_of_its_members(mixture, table):
    kept = np.ones((2, len(table)), dtype=bool)
    kept[1, :3] = False
    found = refits(mixture, table, kept, np.random.default_rng(0))
    assert found.determined.all()
    for name in mixture.definition.names:
        expected = 0.0 if name == DISCREPANCY else mixture.params[name]
        assert found.params[name][0] == pytest.approx(expected, rel=1e-3, abs=1e-9), name
    np.testing.assert_allclose(found.log_residuals[0], mixture.residuals, atol=1e-6)
    assert found.params["hoffmann.weight"].tolist() == [mixture.members[0].weight] * 2
    assert found.params["hoffmann.alpha"][1] != pytest.approx(found.params["hoffmann.alpha"][0], rel=1e-6)


def test_a_roll_out_predicts_larger_runs_by_the_mixture_of_the_smaller(mixture, table):
    compute = table.column("train_flops")
    cut = float(np.quantile(compute, 0.7))
    fitted = of_mixture(mixture, HUBER)
    rng = np.random.default_rng(4)
    (part,) = roll_out(table, mixture.definition, rng=rng, cuts=[cut], resamples=20, fitted=fitted).cuts
    again, reason = fitted(table.only(compute <= cut), 20, np.random.default_rng(4))
    assert reason == ""
    larger = table.only(compute > cut)
    columns = larger.columns(again.definition.columns)
    assert [run.predicted for run in part.runs] == pytest.approx(again.loss(columns).tolist(), rel=1e-9)
    low, high = again.prediction_interval(columns)
    assert [run.interval for run in part.runs] == [pytest.approx(ends) for ends in zip(low, high, strict=True)]


def test_runs_of_one_expert_count_or_one_budget_are_not_asked_about_others(mixture, table):
    moe = table_of(moe_grid(noise=0.002))
    whole = fit_mixture(moe, n_starts=4, resamples=0)
    _, reason = of_mixture(whole, HUBER)(moe.only(moe.column("n_experts") == 1), 0, np.random.default_rng(0))
    assert "one E" in reason
    tokens = table.column("tokens")
    frame = table.frame.assign(tokens=np.where(tokens > np.median(tokens), tokens, np.median(tokens)))
    below = table_of(frame[frame["tokens"] == np.median(tokens)])
    _, reason = of_mixture(mixture, HUBER)(below, 0, np.random.default_rng(0))
    assert "one token budget" in reason
