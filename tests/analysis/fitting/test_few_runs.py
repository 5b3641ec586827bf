"""Few runs: an interval from the spread of published exponents, which holds, and which many runs never meet."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.few_runs import TRUNKS_A_PARAMETER, needs_prior
from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import load_fit
from analysis.fitting.published import PUBLISHED
from analysis.fitting.published_spread import published_spread
from analysis.laws import HOFFMANN
from analysis.tables.runs import RunTable, read_runs
from scaling import public
from scaling.files import write_json
from scaling.values import FIT

NOISE = 0.005
TRUTHS = [
    dict(PUBLISHED[name].params)
    for name in ("chinchilla-tex", "chinchilla-epoch", "sardana-2024-all", "chinchilla-rounded")
] + [
    {"E": 1.36, "A": 41.0, "alpha": 0.189, "B": 36.0, "beta": 0.1775},  # as joint-moe-2025 with E = 1
    {"E": 0.47, "A": 20.0, "alpha": 0.115, "B": 30.8, "beta": 0.147},  # as fine-grained-2024
]


def runs(count: int, truth: dict[str, float], rng: np.random.Generator) -> RunTable:
    size = np.exp(rng.uniform(np.log(3e7), np.log(3e8), count))
    tokens = size * np.exp(rng.uniform(np.log(5), np.log(80), count))
    loss = HOFFMANN.loss(truth, {"n_active": size, "tokens": tokens}) * np.exp(NOISE * rng.standard_normal(count))
    return read_runs(pd.DataFrame({"n_active": size, "tokens": tokens, "loss_val": loss}))


def few(count: int, seed: int = 0, resamples: int = 200) -> Fit:
    table = runs(count, TRUTHS[1], np.random.default_rng(seed))
    return bootstrap(fit(table, HOFFMANN, n_starts=16), table, resamples, np.random.default_rng(0))


def test_the_spread_is_that_of_the_published_exponents():
    spread = published_spread()
    assert spread.n_fits == 8
    alphas = np.log([0.33917084, 0.34781303, 0.18, 0.1889, 0.115, 0.5962, 0.2383, 2 * 0.1364])
    betas = np.log([0.2849083, 0.36585412, 0.24, 0.1775, 0.147, 0.3954, 0.4694, 2 * 0.1364])
    assert spread.exponents["alpha"] == pytest.approx((alphas.mean(), alphas.std(ddof=1)), rel=1e-9)
    assert spread.exponents["beta"] == pytest.approx((betas.mean(), betas.std(ddof=1)), rel=1e-9)


@pytest.mark.parametrize("count", [5, 6, 8])
def test_five_runs_give_an_interval_that_says_where_it_is_from(count):
    found = few(count)
    assert found.n_draws == 200
    assert set(found.intervals) == set(HOFFMANN.names)
    assert any("8 published fits" in warning for warning in found.warnings)
    low, high = found.intervals["alpha"]
    assert 0.05 < low < found.params["alpha"] < high < 1.0
    columns = {"n_active": np.array([1e9]), "tokens": np.array([2e10])}
    law, run = found.loss_interval(columns), found.prediction_interval(columns)
    assert law[0][0] <= found.loss(columns)[0] <= law[1][0]
    assert run[0][0] <= law[0][0] < law[1][0] <= run[1][0]
    assert found.prior.noise == pytest.approx(NOISE, rel=0.6)


def test_with_enough_trunks_nothing_of_it_enters():
    enough = int(TRUNKS_A_PARAMETER * len(HOFFMANN.names))
    assert needs_prior(few(enough - 1, resamples=0))
    found = few(enough)
    assert not needs_prior(found)
    assert found.prior is None
    assert found.params == few(enough, resamples=0).params


def test_the_default_fit_has_it_too_and_its_file_keeps_it(tmp_path):
    table = runs(6, TRUTHS[0], np.random.default_rng(3))
    found = public.fit(table, bootstrap=100)
    assert found.n_draws == 100
    assert found.prior is not None
    answer = public.recommend(found, train_flops=1e19, what_if=False)
    low, high = answer.best.n_active_interval
    assert low < answer.best.n_active < high
    assert not answer.recommendation.decided
    write_json(tmp_path / "fit.json", FIT.document(found))
    assert load_fit(str(tmp_path / "fit.json")).prior == found.prior


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 6, 8])
def test_intervals_of_few_runs_hold_ten_times_beyond(count):
    held, asked = np.zeros(2), 0
    for number in range(120):
        rng, truth = np.random.default_rng(number), TRUTHS[number % len(TRUTHS)]
        table = runs(count, truth, rng)
        found = bootstrap(fit(table, HOFFMANN, n_starts=16), table, 200, np.random.default_rng(0))
        if not found.draws:
            continue
        compute = 10 * 6 * (table.column("n_active") * table.column("tokens")).max()
        size, tokens = HOFFMANN.optimum(truth, compute, 1)
        columns = {"n_active": np.array([size]), "tokens": np.array([tokens])}
        low, high = found.loss_interval(columns)
        held[0] += low[0] <= HOFFMANN.loss(truth, columns)[0] <= high[0]
        ends = found.quantiles((0.025, 0.975), lambda p: np.atleast_1d(HOFFMANN.optimum(p, compute, 1)[0]))  # noqa: B023
        held[1] += ends[0].item() <= size <= ends[1].item()
        asked += 1
    assert asked > 100
    assert np.all(held / asked > 0.9)
