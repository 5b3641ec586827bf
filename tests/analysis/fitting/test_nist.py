"""Least squares and linearised standard errors against NIST's certified answers, and against two other
implementations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from planted import table_of
from scipy.optimize import curve_fit

from analysis.fitting.fit import Fit, fit
from analysis.fitting.objective import Objective
from analysis.laws import HOFFMANN, law_named
from benchmarks.nist import BENNETT5, DANWOOD, standard_errors
from scaling.errors import InputError

CASES = pytest.mark.parametrize("case", [DANWOOD, BENNETT5], ids=lambda case: case.law.name)


@CASES
def test_the_observations_are_those_that_nist_certified(case):
    """The certified RSS, 11 digits, at the certified parameters: a wrong digit anywhere would show."""
    columns = case.table.columns(case.law.columns)
    residuals = case.law.loss(case.params, columns) - case.table.column(case.law.target)
    assert np.sum(residuals**2) == pytest.approx(case.rss, rel=1e-9)  # parameters are printed to 11 digits as well
    assert len(case.table) == {"DanWood": 6, "Bennett5": 154}[case.law.name]


@CASES
def test_certified_parameters_and_standard_deviations(case):
    """To five digits. The solver stops where a step promises less than 1e-11 of RSS, which leaves sqrt(1e-11 (n - P)) =
    4e-5 standard deviations, of b1 of Bennett5, the least determined, 5e-6 of its value."""
    found, errors = case.fitted()
    assert found.objective == pytest.approx(case.rss, rel=1e-9)
    assert found.params == pytest.approx(case.params, rel=1e-5)
    assert errors == pytest.approx(case.deviations, rel=1e-5)
    assert found.n_starts_at_minimum >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_the_certified_answer_does_not_depend_on_the_seed(seed):
    found, errors = BENNETT5.fitted(seed)
    assert found.params == pytest.approx(BENNETT5.params, rel=1e-5)
    assert errors == pytest.approx(BENNETT5.deviations, rel=1e-5)


def test_a_law_that_is_linear_in_ln_loss_has_the_errors_of_a_linear_regression():
    """Clark's law with E_hat held is a regression of ln L on 1, ln N, ln E_hat and their product: statsmodels' OLS."""
    rng = np.random.default_rng(0)
    size, experts = 10 ** rng.uniform(7, 9, 60), 2.0 ** rng.integers(0, 9, 60)
    truth = {"a": -0.08, "b": -0.11, "c": 0.01, "d": 1.1, "E_start": 1.8, "E_max": 300.0}
    columns = {"n_dense_nonembed": size, "n_experts": experts}
    loss = law_named("clark").loss(truth, columns) * np.exp(0.01 * rng.standard_normal(60))
    table = table_of(pd.DataFrame(columns | {"loss_val": loss}))
    held = {name: truth[name] for name in ("E_start", "E_max")}
    found = fit(table, law_named("clark"), objective=Objective("least-squares"), pin=held)
    saturated = 1 / (1 / (experts - 1 + 1 / (1 / held["E_start"] - 1 / held["E_max"])) + 1 / held["E_max"])
    x, y = np.log10(size), np.log10(saturated)
    judge = sm.OLS(np.log10(loss), np.column_stack([x, y, x * y, np.ones(60)])).fit()
    # Rounding alone: the design's condition number is some 1e3.
    assert list(standard_errors(found, table).values()) == pytest.approx(judge.bse, rel=1e-9)


def test_errors_are_in_the_units_of_the_parameters():
    """SciPy's curve_fit on raw loss, in natural units with differences for derivatives: ours move A and B by ln."""
    rng = np.random.default_rng(1)
    size, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e10, 6)))
    truth = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
    loss = HOFFMANN.loss(truth, {"n_active": size, "tokens": tokens}) + 0.01 * rng.standard_normal(36)
    table = table_of(pd.DataFrame({"n_active": size, "tokens": tokens, "loss_val": loss}))
    found = fit(table, HOFFMANN, objective=Objective("least-squares", "raw"))
    start = [found.params[name] for name in truth]
    _, covariance = curve_fit(
        lambda _, e, a, alpha, b, beta: e + a / size**alpha + b / tokens**beta,
        size,
        loss,
        start,
        xtol=1e-12,
        ftol=1e-12,
    )
    # Differences of 1e-8 relative, through a condition number of some 200.
    judge = dict(zip(truth, np.sqrt(np.diag(covariance)), strict=True))
    assert standard_errors(found, table) == pytest.approx(judge, rel=1e-3)


def test_held_parameters_have_no_error_and_count_as_no_parameter():
    """The mean of n values: s/sqrt(n), with s^2 over n - 1; of a law of which all but the floor is held."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"n_active": 10 ** rng.uniform(7, 9, 12), "tokens": 10 ** rng.uniform(9, 11, 12)})
    pins = {"A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
    power = HOFFMANN.loss({**pins, "E": 1.0}, {name: frame[name].to_numpy() for name in frame}) - 1.0
    scatter = rng.standard_normal(12)
    table = table_of(frame, loss_val=power + 2.0 + 0.01 * scatter)
    found = fit(table, HOFFMANN, objective=Objective("least-squares", "raw"), pin=pins)
    expected = {"E": 0.01 * np.std(scatter, ddof=1) / np.sqrt(12)}
    assert standard_errors(found, table) == pytest.approx(expected, rel=1e-9)
    at_bound = replace(found, pinned={}, at_bounds=tuple(pins))
    assert standard_errors(at_bound, table) == pytest.approx(expected, rel=1e-9)


def test_what_has_no_such_errors_is_named():
    table = DANWOOD.table
    known = {"n_runs": 6, "objective_kind": "least-squares"}
    truth = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
    for given, message in [
        (Fit("hoffmann", truth, n_runs=6), "this fit minimised huber"),
        (Fit("hoffmann", {}, status="failed", **known), "predicts nothing"),
        (Fit("hoffmann", truth, **known | {"n_runs": 7}), "the fit has 7 runs, the table 6"),
        (Fit("joint-moe", dict.fromkeys(law_named("joint-moe").names, 1.0), **known), "6 runs for 11 parameters"),
    ]:
        with pytest.raises(InputError, match=message):
            standard_errors(given, table)
