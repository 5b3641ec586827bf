"""Recalibration: one run moves the level, few runs more, many give the fit from scratch."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.decision.verdict import limits_of_the_runs
from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import load_fit
from analysis.fitting.prior import LEVEL
from analysis.fitting.published import PUBLISHED, published
from analysis.fitting.published_spread import FITS, spread_of_saturation, spread_of_terms, terms
from analysis.fitting.recalibration import recalibrated
from analysis.fitting.shrinkage import Shrinkage
from analysis.laws import HOFFMANN
from analysis.tables.runs import RunTable
from scaling import public
from scaling.errors import InputError
from scaling.files import write_json
from scaling.values import FIT

JOINT = published("joint-moe-2025")
SHAPE = {"granularity": 8.0, "top_k": 1.0, "active_experts": 7.0, "shared_share": 0.3}


def runs(count: int, truth: Fit = JOINT, *, scale: float = 1.0, noise: float = 0.005, experts=(1.0,), seed: int = 0):
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(3e7), np.log(3e8), count))
    tokens = size * np.exp(rng.uniform(np.log(5), np.log(80), count))
    columns = {"n_active": size, "tokens": tokens, "n_experts": np.resize(experts, count), "n_total": size}
    columns |= {"n_total_nonembed": 43 * size, **{name: np.full(count, value) for name, value in SHAPE.items()}}
    loss = scale * truth.loss({name: columns[name] for name in truth.definition.columns})
    frame = pd.DataFrame({**columns, "loss_val": loss * np.exp(noise * rng.standard_normal(count))})
    return RunTable(frame[["loss_val", *dict.fromkeys((*truth.definition.columns, "n_active", "n_experts"))]], "runs")


def test_the_spread_of_terms_is_that_of_the_published_terms():
    at = 1e9, 2e10
    found = terms(published("chinchilla-epoch"), *at)
    p = PUBLISHED["chinchilla-epoch"].params
    closed = np.log([p["alpha"], p["beta"], p["A"] * 1e9 ** -p["alpha"], p["B"] * 2e10 ** -p["beta"], p["E"]])
    assert found == pytest.approx(closed, rel=1e-4)
    # Table 1.7 of laws.md: m, mu, n, nu of joint-moe at E = 1.
    joint = np.exp(terms(JOINT, *at))
    assert joint[:2] == pytest.approx([0.18175, 0.19638], rel=1e-3)
    assert joint[2:] == pytest.approx([30.3993 * 1e9**-0.18175, 53.8434 * 2e10**-0.19638, 1.3637], rel=1e-3)
    every = np.array([terms(PUBLISHED[name], *at) for name in FITS])
    covariance = spread_of_terms(*at)
    assert np.diag(covariance) == pytest.approx(every.var(axis=0, ddof=1))
    kept = covariance / np.cov(every, rowvar=False)
    assert kept[~np.eye(5, dtype=bool)] == pytest.approx(np.full(20, 7 / 12))
    assert spread_of_saturation()["E_start"] == pytest.approx(np.std(np.log([1.847, 1.88, 4.175, 2.0732]), ddof=1))


@pytest.mark.parametrize("name", FITS)
def test_without_deviations_it_is_the_published_law_and_the_centre_is_where_terms_meet(name):
    start = published(name)
    table = runs(6, start)
    columns = table.columns(start.definition.columns)
    shrinkage = Shrinkage.around(start, columns)
    nothing = shrinkage.parameters(np.zeros((1, len(shrinkage.names))))
    assert {each: value[0, 0] for each, value in nothing.items()} == pytest.approx(dict(start.params), rel=1e-9)
    at = {column: np.array([value]) for column, value in shrinkage.centre.items()}
    rng = np.random.default_rng(0)
    moved = 0.3 * shrinkage.drawn(50, rng)
    exponents = [index for index, each in enumerate(shrinkage.names) if each.endswith("exponent")]
    slopes = np.zeros_like(moved)
    slopes[:, exponents] = moved[:, exponents]  # exponents alone leave the loss at the centre as it is
    level = shrinkage.log_loss(slopes, at)[:, 0]
    assert level == pytest.approx(np.full(50, start.definition.log_loss(start.params, at)[0]), abs=1e-9)
    coordinates = shrinkage.deviations(moved)  # the first of these is the change of the level, whatever the others
    change = shrinkage.log_loss(coordinates, at)[:, 0] - level
    assert change == pytest.approx(moved[:, 0], abs=1e-9)


def test_one_run_moves_the_level_and_little_else():
    found = recalibrated(runs(1, scale=0.5, noise=0.0), JOINT)
    shrunk = found.prior.shrunk
    assert shrunk[LEVEL].moved == pytest.approx(np.log(0.5), abs=0.02)
    assert shrunk[LEVEL].data_weight > 0.999
    for name in ("alpha", "beta"):
        assert abs(shrunk[name].moved) < 0.2 * shrunk[name].deviation
        assert shrunk[name].data_weight < 0.2
        assert found.params[name] == pytest.approx(JOINT.params[name], rel=0.15)
    assert set(found.prior.held) == {*HOFFMANN_LIKE, "delta", "gamma", "omega", "zeta", "E_start", "E_max"}


HOFFMANN_LIKE = ("a", "alpha", "b", "beta", "c")


@pytest.mark.parametrize("count", [2, 5, 20])
def test_a_few_runs_of_another_tokenizer_and_slope(count):
    truth = replace(published("chinchilla-epoch"), experts=(1,))
    table = runs(count, truth, scale=0.4)
    found = recalibrated(table, published("chinchilla-tex"), 500)
    assert found.status == "ok"
    assert found.n_draws == 500
    assert found.rmse_log < 0.01
    columns = {"n_active": np.array([3e9]), "tokens": np.array([6e10])}
    low, high = found.loss_interval(columns)
    assert low[0] < 0.4 * truth.loss(columns)[0] < high[0]
    assert low[0] < found.loss(columns)[0] < high[0]


def test_the_more_runs_the_more_they_weigh_and_the_narrower_it_is():
    columns, widths, weights = {"n_active": np.array([3e9]), "tokens": np.array([6e10])}, [], []
    for count in (2, 8, 60):
        found = recalibrated(runs(count, published("chinchilla-epoch")), published("chinchilla-tex"), 500)
        low, high = found.loss_interval(columns)
        widths.append(high[0] / low[0] - 1.0)
        weights.append(found.prior.shrunk["beta"].data_weight)
    assert widths == sorted(widths, reverse=True)
    assert weights == sorted(weights)


def test_many_runs_give_the_fit_from_scratch():
    truth = published("chinchilla-epoch")
    table = runs(300, truth)
    start = replace(
        published("chinchilla-tex"), params={**PUBLISHED["chinchilla-tex"].params, "alpha": 0.25, "A": 60.0}
    )
    found = recalibrated(table, start)
    scratch = bootstrap(fit(table, HOFFMANN, n_starts=16), table, 100, np.random.default_rng(0))
    for name in ("alpha", "beta", "E"):
        error = np.std(scratch.draws[name])
        assert abs(found.params[name] - scratch.params[name]) < 1.0 * error, name
        assert np.std(found.draws[name]) < 1.5 * error
    columns = {"n_active": np.array([3e9]), "tokens": np.array([6e10])}
    low, high = scratch.loss_interval(columns)
    assert low[0] < found.loss(columns)[0] < high[0]
    assert not found.prior.held
    assert not found.prior.doubt


def test_one_bad_run_counts_for_little():
    table = runs(8, published("chinchilla-epoch"), noise=0.003)
    bad = replace(table, frame=table.frame.assign(loss_val=table.frame["loss_val"] * np.r_[1.15, np.ones(7)]))
    columns = {"n_active": np.array([1e9]), "tokens": np.array([2e10])}
    good, hurt = (recalibrated(each, published("chinchilla-tex")).loss(columns)[0] for each in (table, bad))
    assert abs(np.log(hurt / good)) < 0.02  # least squares moves the level alone by .019


def test_runs_of_several_experts_move_the_effect_of_experts():
    params = {**JOINT.params, "delta": JOINT.params["delta"] - 0.05}
    table = runs(40, replace(JOINT, params=params), experts=(1, 4, 16), noise=0.002)
    found = recalibrated(table, JOINT, 500)
    assert found.experts == (1, 4, 16)
    at = {"n_active": np.full(2, 1e8), "tokens": np.full(2, 2e9), "n_experts": np.array([1.0, 16.0])}
    start, true, got = (np.diff(np.log(JOINT.definition.loss(p, at)))[0] for p in (JOINT.params, params, found.params))
    assert true < start
    assert got == pytest.approx(true, abs=0.25 * abs(true - start))
    assert found.prior.shrunk["delta"].moved < 0.0


def test_what_the_runs_lack_stays_with_a_warning():
    found = recalibrated(runs(5), JOINT, 100, name="published:joint-moe-2025")
    assert found.experts == JOINT.experts
    assert found.family == JOINT.family
    assert found.domain["n_active"][1] < 3e8
    assert sum("published:joint-moe-2025" in warning for warning in found.warnings) == 3
    answer = public.recommend(found, train_flops=1e20, what_if=False)
    assert not answer.recommendation.decided
    assert any("delta" in reason for reason in limits_of_the_runs(found, answer.best, (1, 8)))


def test_what_cannot_be_recalibrated_is_refused():
    with pytest.raises(InputError, match="vary n_experts"):
        recalibrated(runs(6, experts=(1, 4)), published("chinchilla-epoch"))
    with pytest.raises(InputError, match="granularity"):
        recalibrated(runs(6), published("fine-grained-2024"))
    with pytest.raises(InputError, match="no sum of terms"):
        recalibrated(RunTable(runs(6).frame.assign(n_active_nonembed=1e8), "runs"), published("kaplan-2020"))
    with pytest.raises(InputError, match="start_from"):
        public.fit(runs(6), "hoffmann", start_from="published:chinchilla-epoch")


def test_the_file_keeps_it_and_it_can_be_started_from(tmp_path):
    found = public.fit(runs(5), start_from="published:joint-moe-2025", bootstrap=300)
    assert found.n_draws == 300
    write_json(tmp_path / "fit.json", FIT.document(found))
    read = load_fit(str(tmp_path / "fit.json"))
    assert read.prior == found.prior
    again = recalibrated(runs(5, seed=1), read, 300)
    assert again.prior.shrunk[LEVEL].moved == pytest.approx(0.0, abs=0.02)


def test_a_thousand_draws_take_less_than_two_seconds():
    table = runs(20)
    begun = time.process_time()
    recalibrated(table, JOINT)
    assert time.process_time() - begun < 2.0
