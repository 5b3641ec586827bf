"""Polynomial experts on equal cells: closed forms, theory's exponents, an independent least squares."""

import numpy as np
import pytest

from scaling.tasks.statistics.draws import generator
from scaling.tasks.statistics.oracle_cells import Experts, distance, fitted, projection, squared_error
from scaling.tasks.statistics.polynomials import TARGETS, Target, nodes, orthonormal

LINE = Target(lambda x: x, np.inf, "x")
SQUARE = Target(lambda x: x**2, np.inf, "x^2")
NOTHING = Target(lambda x: 0 * x, np.inf, "0")


def slope(levels, errors) -> float:
    return float(np.polyfit(np.log(levels), np.log(errors), 1)[0])


def test_the_basis_is_orthonormal():
    points, weights = nodes(12)  # exact for the products, of degree at most 10
    basis = orthonormal(points, 5)
    np.testing.assert_allclose(np.einsum("qi,qj,q->ij", basis, basis, weights), np.eye(6), atol=1e-14)


@pytest.mark.parametrize("m", [1, 3, 8])
def test_the_best_constants_and_lines_miss_a_line_and_a_square_by_the_closed_form(m):
    # In a cell of width w, x less its mean has mean square w^2 / 12, and x^2 less its best line w^4 / 180.
    assert squared_error(LINE, projection(LINE, m, 0)) == pytest.approx(m**-2 / 12, rel=1e-12)
    assert squared_error(SQUARE, projection(SQUARE, m, 1)) == pytest.approx(m**-4 / 180, rel=1e-9)
    assert squared_error(SQUARE, projection(SQUARE, m, 2)) == pytest.approx(0, abs=1e-28)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_approximation_falls_with_twice_one_more_than_the_order(order):
    m = np.array([4, 8, 16, 32])
    errors = [squared_error(TARGETS["smooth"], projection(TARGETS["smooth"], k, order)) for k in m]
    # Theory's exponent is that of m without end; over 4 to 32 the next term moves it by less than .02 (1110.2058).
    assert slope(m, errors) == pytest.approx(-2 * (order + 1), abs=0.02)


@pytest.mark.parametrize(("name", "order", "ratio"), [("kink", 1, 8), ("kink", 2, 8), ("cusp", 1, 4)])
def test_a_target_of_less_smoothness_than_the_experts_sets_the_exponent(name, order, ratio):
    errors = [squared_error(TARGETS[name], projection(TARGETS[name], m, order)) for m in (64, 128, 256)]
    # The knot 1/3 lies at one or two thirds of its cell for every power of two. |x - c| is a line in all other cells,
    # so its errors scale exactly; a cusp has errors elsewhere too, whose sum has converged to 1 % by m = 64.
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=1e-6 if name == "kink" else 0.01)
    assert errors[1] / errors[2] == pytest.approx(ratio, rel=1e-6 if name == "kink" else 0.01)
    assert ratio == 2 ** (2 * min(TARGETS[name].smoothness, order + 1))


def test_the_fit_is_least_squares_in_each_cell():
    rng = generator(0, 60, 0)
    x, y = rng.random(60), rng.standard_normal(60)
    experts = fitted(x, y, 3, 2)
    for cell in range(3):
        inside = (x >= cell / 3) & (x < (cell + 1) / 3)
        other = np.polynomial.Polynomial.fit(x[inside], y[inside], 2)  # QR in another basis
        np.testing.assert_allclose(experts(x[inside]), other(x[inside]), atol=1e-10)


def test_a_cell_without_samples_is_zero_and_one_with_too_few_goes_through_them():
    experts = fitted(np.array([0.1, 0.2]), np.array([1.0, 3.0]), 2, 3)
    np.testing.assert_allclose(experts(np.array([0.1, 0.2, 0.7])), [1, 3, 0], atol=1e-9)


def test_the_error_is_that_of_the_best_experts_and_the_distance_to_them():
    rng = generator(1, 500, 0)
    x = rng.random(500)
    target = TARGETS["smooth"]
    best, found = projection(target, 5, 1), fitted(x, target.function(x) + 0.3 * rng.standard_normal(500), 5, 1)
    assert squared_error(target, found) == pytest.approx(squared_error(target, best) + distance(found, best), rel=1e-10)


def test_noise_costs_its_variance_times_coefficients_over_samples():
    m, order, n, replicates = 4, 1, 2000, 200
    zero = Experts(np.zeros((m, order + 1)))
    losses = []
    for replicate in range(replicates):
        rng = generator(0, n, replicate)
        losses.append(distance(fitted(rng.random(n), 0.5 * rng.standard_normal(n), m, order), zero))
    # sigma^2 m (k + 1) / n, and (k + 1) m / n more of it for the random places. The mean of 200 draws of a chi-square
    # with 8 degrees of freedom has a relative standard deviation of sqrt(2 / 1600) = .035; four of them.
    assert np.mean(losses) == pytest.approx(0.25 * m * (order + 1) / n, rel=0.15)


def test_the_squared_error_of_a_fit_is_measured_at_other_places_than_its_samples():
    rng = generator(0, 100, 0)
    experts = fitted(rng.random(100), rng.standard_normal(100), 2, 1)
    grid = (np.arange(200_000) + 0.5) / 200_000  # midpoints: exact to 1e-9 for pieces of a parabola
    assert squared_error(NOTHING, experts) == pytest.approx(np.mean(experts(grid) ** 2), rel=1e-8)
