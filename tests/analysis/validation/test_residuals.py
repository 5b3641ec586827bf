"""Diagnostics of residuals: textbook formulas, planted faults, and columns that cannot be judged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.validation.residuals import FEWEST_RESIDUALS, diagnostics
from scaling.errors import InputError


def hc3(design, residual):
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("ip,pq,iq->i", design, inverse, design)
    return inverse @ (design.T * (residual / (1 - leverage)) ** 2) @ design @ inverse


def runs_like(count=120, seed=0):
    rng = np.random.default_rng(seed)
    logs = {"n_active": rng.uniform(17, 23, count), "tokens": rng.uniform(20, 26, count)}
    logs["n_experts"] = np.log(rng.choice([1.0, 4.0, 16.0, 64.0], count))
    logs["train_flops"] = np.log(6) + logs["n_active"] + logs["tokens"]
    return logs, 0.005 * rng.standard_normal(count), rng


def of_column(found):
    """The tests of each column by its name."""
    columns = {one.column for one in found.findings if one.column}
    return {column: {one.test for one in found.findings if one.column == column} for column in columns}


def faults(found):
    return {(one.test, one.column) for one in found.faults}


def test_clean_residuals_are_rarely_faulted(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda *_: 0)  # statsmodels collects after every adjustment, a tenth of a second
    draws = 100
    alarms = sum(bool(diagnostics(r, logs).faults) for logs, r, _ in (runs_like(seed=s) for s in range(draws)))
    # Holm bounds the chance of any alarm at 5 %; the tests themselves are approximate, so three standard errors more.
    assert alarms / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(
    ("planted", "expected", "sentence"),
    [
        (
            lambda r, x, rng: r + 0.004 * x["n_experts"],
            ("trend", "n_experts"),
            "understates the effect of experts at large E",
        ),
        (lambda r, x, rng: r - 0.004 * x["n_experts"], ("trend", "n_experts"), "overstates the effect of experts"),
        (lambda r, x, rng: r - 0.004 * x["tokens"], ("trend", "tokens"), "too low a loss at large tokens"),
        (
            lambda r, x, rng: r + 0.002 * (x["n_active"] - 20) ** 2,
            ("curvature", "n_active"),
            "too high a loss at both ends of n_active",
        ),
        (lambda r, x, rng: r * np.exp(0.5 * (x["n_active"] - 20)), ("spread", None), "spread changes with"),
        (lambda r, x, rng: 0.005 * rng.standard_t(1.5, r.size), ("tails", None), "objective huber or lad"),
        (
            lambda r, x, rng: r + 0.01 * np.sin(2.5 * x["train_flops"]),
            ("serial", "train_flops"),
            "varies with compute",
        ),
        (lambda r, x, rng: r + 0.05 * (np.arange(r.size) == 7), ("outlier", None), "row 8 is an outlier"),
    ],
)
def test_a_planted_fault_is_found_and_said(planted, expected, sentence):
    logs, r, rng = runs_like(240)
    found = diagnostics(planted(r, logs, rng), logs)
    assert expected in faults(found)
    assert any(sentence in one.sentence for one in found.faults if (one.test, one.column) == expected)


def test_statistics_are_the_textbooks():
    logs, r, _ = runs_like()
    found = {(one.test, one.column): one for one in diagnostics(r, logs).findings}
    x = logs["tokens"] - logs["tokens"].mean()
    square = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    design = np.column_stack([np.ones_like(x), x, square])
    beta = np.linalg.lstsq(design, r, rcond=None)[0]
    errors = np.sqrt(np.diag(hc3(design, r - design @ beta)))
    assert found["trend", "tokens"].statistic == pytest.approx(beta[1] / errors[1], rel=1e-8)
    assert found["curvature", "tokens"].statistic == pytest.approx(beta[2] / errors[2], rel=1e-8)
    # Koenker's F: squared residuals on the columns that are independent (ln C is ln N + ln D + ln 6).
    columns = np.column_stack([np.ones_like(r), *(logs[name] for name in ("n_active", "tokens", "n_experts"))])
    squared = (r - r.mean()) ** 2
    rest = squared - columns @ np.linalg.lstsq(columns, squared, rcond=None)[0]
    total = np.sum((squared - squared.mean()) ** 2)
    f = (total - rest @ rest) / 3 / (rest @ rest / (r.size - 4))
    assert found["spread", None].statistic == pytest.approx(f, rel=1e-8)
    z = (r - np.median(r)) / (np.median(np.abs(r - np.median(r))) / stats.norm.ppf(0.75))
    assert abs(found["outlier", None].statistic) == pytest.approx(np.abs(z).max(), rel=1e-9)


def test_p_values_are_adjusted_by_holm_and_do_not_depend_on_the_residuals_unit():
    logs, r, _ = runs_like()
    found = diagnostics(r + 0.002 * logs["n_experts"], logs)
    p = np.array([one.p_value for one in found.findings])
    order = np.argsort(p)
    holm = np.empty_like(p)
    holm[order] = np.minimum(1, np.maximum.accumulate(p[order] * (p.size - np.arange(p.size))))
    np.testing.assert_allclose([one.p_adjusted for one in found.findings], holm, rtol=1e-12)
    tiny = diagnostics(1e-9 * (r + 0.002 * logs["n_experts"]), logs)
    np.testing.assert_allclose([one.p_value for one in tiny.findings], p, rtol=1e-6)


def test_a_column_that_does_not_vary_has_no_trend_and_one_of_two_values_no_curvature():
    logs, r, _ = runs_like()
    logs["n_experts"] = np.zeros_like(r)
    logs["tokens"] = np.where(np.arange(r.size) % 2, 20.0, 22.0)
    tested = of_column(diagnostics(r, logs))
    assert "n_experts" not in tested
    assert tested["tokens"] == {"trend"}
    assert tested["n_active"] == {"trend", "curvature"}


@pytest.mark.parametrize(
    ("sizes", "tests"),
    [  # HC3 divides by 1 - leverage: what a single run decides is not tested
        (np.r_[np.zeros(20), np.ones(20), 2.0], {"trend"}),
        (np.r_[np.zeros(20), np.ones(19), 2.0, 2.0], {"trend", "curvature"}),
        (np.r_[np.zeros(40), 1.0], set()),
    ],
)
def test_what_one_run_alone_decides_is_not_tested(sizes, tests):
    r = np.random.default_rng(0).standard_normal(41)
    assert of_column(diagnostics(r, {"n_active": sizes})).get("n_active", set()) == tests


@pytest.mark.parametrize(
    ("r", "columns", "message"),
    [
        (np.arange(5.0), {}, f"at least {FEWEST_RESIDUALS} residuals"),
        (np.arange(12.0), {"tokens": np.arange(11.0)}, "tokens must hold 12 finite numbers"),
        (np.r_[np.arange(11.0), np.nan], {}, "residuals must hold 12 finite"),
        (np.arange(12.0), {"tokens": np.geomspace(1e9, 1e12, 12)}, "not a logarithm: pass ln"),
        (np.zeros(12), {}, "half or more of the residuals are equal"),
    ],
)
def test_residuals_that_say_nothing_are_refused(r, columns, message):
    with pytest.raises(InputError, match=message):
        diagnostics(r, columns)
