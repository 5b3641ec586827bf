"""Power laws and diagnostics: against textbook formulas, SciPy and linear programming, on planted truth and planted
faults."""

import numpy as np
import pytest
from scipy import optimize, stats

from analysis.isoflop.power_law import power_law
from analysis.validation.residuals import FEWEST_RESIDUALS, diagnostics
from scaling.errors import InputError


def scattered(count=25, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    x = np.geomspace(1e17, 1e21, count)
    return x, 0.1 * x**0.46 * np.exp(noise * rng.standard_normal(count))


def design_of(x):
    return np.column_stack([np.ones_like(x), np.log(x)])


def test_least_squares_are_scipys_with_students_interval():
    x, y = scattered()
    found, judge = power_law(x, y), stats.linregress(np.log(x), np.log(y))
    t = stats.t.ppf(0.975, len(x) - 2)
    # Two implementations in double precision over ln x near 43: ten digits.
    assert found.exponent == pytest.approx(judge.slope, rel=1e-10)
    assert found.log_coefficient == pytest.approx(judge.intercept, rel=1e-9)
    np.testing.assert_allclose(found.exponent_interval, judge.slope + t * judge.stderr * np.array([-1, 1]), rtol=1e-9)
    np.testing.assert_allclose(
        found.log_coefficient_interval, judge.intercept + t * judge.intercept_stderr * np.array([-1, 1]), rtol=1e-7
    )
    assert found.n == 25


def test_bands_are_the_textbooks():
    x, y = scattered()
    found, at = power_law(x, y), np.array([1e16, 3e19, 1e24])
    log_x = np.log(x)
    residual = np.log(y) - found.log_coefficient - found.exponent * log_x
    s2 = residual @ residual / (len(x) - 2)
    leverage = 1 / len(x) + (np.log(at) - log_x.mean()) ** 2 / np.sum((log_x - log_x.mean()) ** 2)
    line, t = found.log_coefficient + found.exponent * np.log(at), stats.t.ppf(0.975, len(x) - 2)
    for band, spread in ((found.predict(at), s2 * leverage), (found.predict_new(at), s2 * (1 + leverage))):
        np.testing.assert_allclose(band.mean, np.exp(line), rtol=1e-9)
        np.testing.assert_allclose(np.log(band.low), line - t * np.sqrt(spread), rtol=1e-9)
        np.testing.assert_allclose(np.log(band.high), line + t * np.sqrt(spread), rtol=1e-9)
    assert found.residual_deviation == pytest.approx(np.sqrt(s2), rel=1e-9)


def hc3(design, residual):
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("ip,pq,iq->i", design, inverse, design)
    return inverse @ (design.T * (residual / (1 - leverage)) ** 2) @ design @ inverse


def test_the_robust_covariance_is_hc3():
    x, y = scattered()
    centred = np.column_stack([np.ones_like(x), np.log(x) - np.log(x).mean()])
    beta = np.linalg.lstsq(centred, np.log(y), rcond=None)[0]
    error = np.sqrt(hc3(centred, np.log(y) - centred @ beta)[1, 1])
    found = power_law(x, y, covariance="hc3")
    half = (found.exponent_interval[1] - found.exponent_interval[0]) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, len(x) - 2) * error, rel=1e-9)


def test_the_interval_covers_nineteen_times_in_twenty():
    draws, covered = 400, 0
    for seed in range(draws):
        low, high = power_law(*scattered(8, seed=seed)).exponent_interval
        covered += low <= 0.46 <= high
    assert covered / draws == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / draws))


def test_robust_is_hubers_minimum_and_shrugs_off_outliers():
    x, y = scattered(40)
    y[-4:] *= 3.0  # all at one end, where they tilt a least-squares line most
    found = power_law(x, y, "robust")

    def penalty(beta):
        z = np.abs(np.log(y) - beta[0] - beta[1] * (np.log(x) - np.log(x).mean())) / found.residual_deviation
        return np.where(z <= 1.345, z * z / 2, 1.345 * (z - 1.345 / 2)).sum()

    judge = optimize.minimize(
        penalty, [np.log(y).mean(), 0.5], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    # RLM stops when the deviance moves by 1e-8: the minimum is flat, so the slope agrees to some 1e-5.
    assert found.exponent == pytest.approx(judge.x[1], abs=1e-5)
    # A tenth of the points off by ln 3: Huber's T bounds each one's pull at 1.345 deviations.
    assert abs(found.exponent - 0.46) < abs(power_law(x, y).exponent - 0.46) / 4


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_quantiles_line_is_the_linear_programmes(share):
    x, y = scattered(60)
    design, target = design_of(x), np.log(y)
    count = len(x)
    judge = optimize.linprog(
        np.concatenate([np.zeros(2), np.full(count, share), np.full(count, 1 - share)]),
        A_eq=np.hstack([design, np.eye(count), -np.eye(count)]),
        b_eq=target,
        bounds=[(None, None)] * 2 + [(0, None)] * (2 * count),
    )
    found = power_law(x, y, "quantile", quantile=share)
    residual = target - found.log_coefficient - found.exponent * np.log(x)
    check = np.sum(np.where(residual > 0, share, share - 1) * residual)
    # statsmodels rounds residuals under 1e-6 of their deviation: the sum of 60 is within 1e-4 of the least there is.
    assert judge.fun * (1 - 1e-9) <= check <= judge.fun * (1 + 1e-4)
    # The line passes through two points at most, so the share below it misses by no more than 2 of 60.
    assert np.mean(residual < 0) == pytest.approx(share, abs=2 / count + 1e-9)


@pytest.mark.parametrize("kind", ["ols", "robust", "quantile"])
def test_units_of_x_and_y_change_the_coefficient_alone(kind):
    x, y = scattered()
    plain, scaled = power_law(x, y, kind), power_law(x / 1e9, 1e6 * y, kind)
    # The iterations of robust and quantile stop at 1e-6 of the residuals' deviation (.05): 1e-8 in ln y over a range of
    # 9.
    assert scaled.exponent == pytest.approx(plain.exponent, rel=1e-6)
    np.testing.assert_allclose(scaled.exponent_interval, plain.exponent_interval, rtol=1e-4)
    np.testing.assert_allclose(scaled.predict(1e13).mean, 1e6 * plain.predict(1e22).mean, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ols", "robust", "quantile"])
def test_points_on_a_line_give_it_with_no_width(kind):
    x = np.geomspace(1, 1e6, 12)
    found = power_law(x, 3 * x**-0.25, kind)
    assert found.exponent == pytest.approx(-0.25, rel=1e-12)
    assert np.exp(found.log_coefficient) == pytest.approx(3, rel=1e-12)
    assert found.exponent_interval == (found.exponent, found.exponent)
    assert found.residual_deviation == 0


@pytest.mark.parametrize(
    ("x", "y", "more", "told"),
    [
        ([1, 2], [1, 2], {}, "at least 3 points, found 2"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], {"kind": "robust"}, "by robust needs at least 6"),
        (range(1, 10), range(1, 10), {"kind": "quantile"}, "by quantile needs at least 10"),
        ([1, 2, 3], [1, 2], {}, "as many x as y, found 3 and 2"),
        ([2, 2, 2], [1, 2, 3], {}, "two distinct x"),
        ([1, 2, 0], [1, 2, 3], {}, "positive finite numbers; x has others"),
        ([1, 2, 3], [1, float("nan"), 3], {}, "positive finite numbers; y has others"),
        ([1, 2, 3], [1, 2, 3], {"kind": "ridge"}, "use ols, robust, quantile"),
        ([1, 2, 3], [1, 2, 3], {"kind": "quantile", "quantile": 1.0}, "between 0 and 1"),
        (range(1, 8), range(1, 8), {"kind": "robust", "covariance": "hc3"}, "hc3 is for ols"),
        ([1, 1, 1, 2], [1, 2, 3, 4], {"covariance": "hc3"}, "one point alone decides"),
        (
            range(1, 10),
            [1, 2, 3, 4, 5, 6, 7, 8, 90],
            {"kind": "robust"},
            "more than half of the points lie on one line",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, more, told):
    with pytest.raises(InputError, match=told):
        power_law(list(x), list(y), **more)


def test_a_quantile_has_no_band_for_new_points():
    with pytest.raises(InputError, match=r"fit the quantiles \.025 and \.975"):
        power_law(*scattered(), kind="quantile").predict_new(1e20)


def test_no_band_where_there_is_no_logarithm():
    with pytest.raises(InputError, match="positive finite numbers"):
        power_law(*scattered()).predict([1e20, 0.0])


def runs_like(count=120, seed=0):
    rng = np.random.default_rng(seed)
    logs = {"n_active": rng.uniform(17, 23, count), "tokens": rng.uniform(20, 26, count)}
    logs["n_experts"] = np.log(rng.choice([1.0, 4.0, 16.0, 64.0], count))
    logs["train_flops"] = np.log(6) + logs["n_active"] + logs["tokens"]
    return logs, 0.005 * rng.standard_normal(count), rng


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
        (lambda r, x, rng: r + 0.004 * x["n_experts"], ("trend", "n_experts"), "misses experts' effect at large E"),
        (lambda r, x, rng: r - 0.004 * x["n_experts"], ("trend", "n_experts"), "overstates experts' effect"),
        (lambda r, x, rng: r - 0.004 * x["tokens"], ("trend", "tokens"), "too low a loss at large tokens"),
        (
            lambda r, x, rng: r + 0.002 * (x["n_active"] - 20) ** 2,
            ("curvature", "n_active"),
            "too high a loss at both ends of n_active",
        ),
        (lambda r, x, rng: r * np.exp(0.5 * (x["n_active"] - 20)), ("spread", None), "spread changes with"),
        (lambda r, x, rng: 0.005 * rng.standard_t(1.5, r.size), ("tails", None), "fit by huber or lad"),
        (
            lambda r, x, rng: r + 0.01 * np.sin(2.5 * x["train_flops"]),
            ("serial", "train_flops"),
            "changes with compute",
        ),
        (lambda r, x, rng: r + 0.05 * (np.arange(r.size) == 7), ("outlier", None), "row 7 lies"),
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


def test_a_column_that_does_not_vary_or_takes_two_values_is_no_trouble():
    logs, r, _ = runs_like()
    logs["n_experts"] = np.zeros_like(r)
    logs["tokens"] = np.where(np.arange(r.size) % 2, 20.0, 22.0)
    named = {(one.test, one.column) for one in diagnostics(r, logs).findings}
    assert not {column for _, column in named} & {"n_experts"}
    assert ("trend", "tokens") in named
    assert ("curvature", "tokens") not in named
    lonely = {"n_active": np.r_[np.zeros(20), np.ones(20), 2.0]}  # one run alone has the third size
    assert {one.test for one in diagnostics(np.random.default_rng(0).standard_normal(41), lonely).findings} >= {"tails"}


@pytest.mark.parametrize(
    ("r", "columns", "told"),
    [
        (np.arange(5.0), {}, f"at least {FEWEST_RESIDUALS} residuals"),
        (np.arange(12.0), {"tokens": np.arange(11.0)}, "tokens must hold 12 finite numbers"),
        (np.r_[np.arange(11.0), np.nan], {}, "residuals must hold 12 finite"),
        (np.arange(12.0), {"tokens": np.geomspace(1e9, 1e12, 12)}, "no logarithm: pass ln"),
        (np.zeros(12), {}, "half or more of the residuals are the same"),
    ],
)
def test_residuals_that_say_nothing_are_refused(r, columns, told):
    with pytest.raises(InputError, match=told):
        diagnostics(r, columns)
