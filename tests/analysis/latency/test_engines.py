"""The fit of engines: planted coefficients and errors come back, whatever the order of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_rows import MODELS, PLANTED, planted_rows

from analysis.latency.engines import errors_of, fit_engines
from scaling.errors import InputError
from scaling.serving.engine_speed import TERMS
from scaling.serving.published_speeds import published_speed

PUBLISHED = published_speed("published:vllm-h100")
STRONG = ("expert weights", "products", "layers", "communication")


def test_planted_coefficients_come_back():
    rows = planted_rows(scatter=0.01)
    fit = fit_engines(rows)
    found = dict(zip(TERMS, fit.coefficients / PLANTED, strict=True))
    for name in STRONG:
        assert found[name] == pytest.approx(1, abs=0.15), name
    assert fit.in_sample.median < 0.03
    assert all(error.median < 0.06 for error in fit.models_left_out), fit.models_left_out
    assert [error.group for error in fit.models_left_out] == [f"org/{name}" for name in MODELS]
    assert fit.without.shape == (len(MODELS), len(TERMS))


def test_the_order_of_rows_does_not_matter():
    rows = planted_rows(scatter=0.1)
    order = np.random.default_rng(1).permutation(len(rows.frame))
    shuffled = replace(rows, frame=rows.frame.iloc[order], iterations=rows.iterations[order], tpot_s=rows.tpot_s[order])
    one, other = fit_engines(rows), fit_engines(shuffled)
    assert other.coefficients == pytest.approx(one.coefficients, rel=1e-4)
    assert other.interval == pytest.approx(one.interval, rel=1e-4)
    assert {(e.group, e.rows, e.inside) for e in other.models_left_out} == {
        (e.group, e.rows, e.inside) for e in one.models_left_out
    }


def test_the_interval_covers_models_that_it_has_not_seen():
    """Models that scatter by 15 % and rows by 10 %: of further models, about 95 % lie inside."""
    inside, count = 0, 0
    for seed in range(6):
        fit = fit_engines(planted_rows(scatter=0.1, of_model=0.15, seed=seed))
        unseen = planted_rows(("gpt-oss-20b", "olmoe-1b-7b"), scatter=0.1, of_model=0.15, seed=100 + seed)
        error = errors_of("unseen", fit.seconds(unseen.iterations), unseen.tpot_s, fit.interval)
        inside, count = inside + error.inside, count + error.rows
    assert 0.85 < inside / count <= 1


def test_a_row_that_is_plainly_wrong_moves_nothing():
    rows = planted_rows(scatter=0.01)
    wrong = rows.tpot_s.copy()
    wrong[::40] *= 20
    fit, clean = fit_engines(rows), fit_engines(replace(rows, tpot_s=wrong))
    assert np.median(np.abs(np.log(clean.seconds(rows.iterations) / fit.seconds(rows.iterations)))) < 0.05


def test_a_single_model_shrinks_to_the_published_speed():
    rows = planted_rows(MODELS[:1], scatter=0.02)
    rows = replace(rows, tpot_s=1.4 * rows.tpot_s)
    with pytest.raises(InputError, match="three models"):
        fit_engines(rows)
    fit = fit_engines(rows, PUBLISHED)
    (left_out,) = fit.models_left_out
    published = errors_of("", rows.iterations @ np.array(PUBLISHED.coefficients), rows.tpot_s, (1, 1))
    assert left_out.median == pytest.approx(published.median)
    assert fit.in_sample.median < 0.5 * left_out.median
    assert fit.scatter >= PUBLISHED.scatter
    few = rows.only(np.arange(len(rows.frame)) < 2)
    near = np.log(fit_engines(few, PUBLISHED).coefficients / PUBLISHED.coefficients)
    assert np.abs(near).max() < np.abs(np.log(fit.coefficients / PUBLISHED.coefficients)).max()


def test_draws_have_the_spread_of_the_jackknife():
    speed = fit_engines(planted_rows(scatter=0.1, of_model=0.2)).speed("mine", "planted", "today")
    logs = np.log(speed.draws(20_000))
    without = np.log(np.array(speed.without))
    models = len(without)
    expected = np.sqrt((models - 1) / models * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    assert logs.std(axis=0) == pytest.approx(expected, rel=0.05)
    assert np.median(logs, axis=0) == pytest.approx(np.log(speed.coefficients), abs=0.02)
