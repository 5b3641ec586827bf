"""Power laws against textbook formulas, SciPy and linear programming, on planted truth."""

import numpy as np
import pytest
from scipy import optimize, stats

from analysis.isoflop.power_law import power_law
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


def test_the_band_is_the_textbooks():
    x, y = scattered()
    found, at = power_law(x, y), np.array([1e16, 3e19, 1e24])
    log_x = np.log(x)
    residual = np.log(y) - found.log_coefficient - found.exponent * log_x
    s2 = residual @ residual / (len(x) - 2)
    leverage = 1 / len(x) + (np.log(at) - log_x.mean()) ** 2 / np.sum((log_x - log_x.mean()) ** 2)
    line, t = found.log_coefficient + found.exponent * np.log(at), stats.t.ppf(0.975, len(x) - 2)
    band, half = found.predict(at), t * np.sqrt(s2 * leverage)
    np.testing.assert_allclose(band.mean, np.exp(line), rtol=1e-9)
    np.testing.assert_allclose(np.log(band.low), line - half, rtol=1e-9)
    np.testing.assert_allclose(np.log(band.high), line + half, rtol=1e-9)
    assert found.residual_deviation == pytest.approx(np.sqrt(s2), rel=1e-9)


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
    ("x", "y", "more", "message"),
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
        (
            range(1, 10),
            [1, 2, 3, 4, 5, 6, 7, 8, 90],
            {"kind": "robust"},
            "more than half of the points lie on one line",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, more, message):
    with pytest.raises(InputError, match=message):
        power_law(list(x), list(y), **more)


def test_no_band_where_there_is_no_logarithm():
    with pytest.raises(InputError, match="positive finite numbers"):
        power_law(*scattered()).predict([1e20, 0.0])
