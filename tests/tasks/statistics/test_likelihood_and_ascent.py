"""Sums over chunks, steps of softmax regression, and climbs: against direct sums and other optimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import log_softmax

from scaling.tasks.statistics import softmax_regression
from scaling.tasks.statistics.ascent import best_of, climb
from scaling.tasks.statistics.likelihood import CHUNK, mean_and_gradient, padded_rows


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_sum_over_chunks_is_the_sum_over_the_rows_in_use(n):
    rng = np.random.default_rng(n)
    rows = np.full(padded_rows(n) + 2 * CHUNK, 1e6)  # rows past n count for nothing, whatever they hold
    rows[:n] = rng.standard_normal(n)

    def loss(parameters: jax.Array, row: jax.Array) -> jax.Array:
        return jnp.logaddexp(parameters[0] * row, parameters[1])

    at = jnp.array([0.7, -0.2])
    value, gradient = mean_and_gradient(loss, at, jnp.asarray(rows), n)
    expected, slope = jax.value_and_grad(lambda p: loss(p, jnp.asarray(rows[:n])).mean())(at)
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12)


def weighted_regression():
    rng = np.random.default_rng(0)
    rows = np.stack([np.ones(80), rng.uniform(-3, 3, 80)], axis=1)
    return rows, rng.random((80, 3)) ** 3


def log_likelihood(coefficients, rows, targets) -> float:
    return float((targets * log_softmax(rows @ np.asarray(coefficients).T, axis=1)).sum())


@pytest.mark.parametrize("start", [0.0, 30.0])
def test_a_step_of_softmax_regression_never_lowers_the_likelihood_and_ends_at_its_maximum(start):
    rows, targets = weighted_regression()
    coefficients = jnp.asarray(start * np.array([[1.0, -1.0], [-1.0, 2.0], [0.0, 0.0]]))
    step = jax.jit(softmax_regression.step)
    values = [log_likelihood(coefficients, rows, targets)]
    for _ in range(1500):
        coefficients = step(coefficients, rows, targets)
        values.append(log_likelihood(coefficients, rows, targets))
    assert np.diff(values).min() >= -1e-10  # rounding of a sum of about 100
    found = scipy.optimize.minimize(
        lambda p: -log_likelihood(np.append(p, [0, 0]).reshape(3, 2), rows, targets), np.zeros(4), method="Nelder-Mead",
        options={"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-12},
    )  # fmt: skip
    assert values[-1] == pytest.approx(-found.fun, abs=1e-8)


def test_a_climb_ends_at_the_least_value_within_bounds():
    centre = np.array([0.5, 3.0, -4.0])
    bounds = scipy.optimize.Bounds(np.full(3, -2.0), np.full(3, 2.0))
    found = climb(lambda p: (float(((p - centre) ** 2).sum()), 2 * (p - centre)), np.zeros(3), 10, bounds)
    np.testing.assert_allclose(found.parameters, [0.5, 2, -2], atol=1e-7)
    assert found.converged


def test_a_climb_goes_through_a_bent_valley_and_over_kinks():
    wide, wide_of_one = (scipy.optimize.Bounds(np.full(size, -10.0), np.full(size, 10.0)) for size in (2, 1))
    found = climb(
        lambda p: (float(scipy.optimize.rosen(p)), scipy.optimize.rosen_der(p)), np.array([-1.2, 1.0]), 100, wide
    )
    np.testing.assert_allclose(found.parameters, 1, atol=1e-5)
    kinks = np.sort(np.random.default_rng(0).normal(2, 1, 101))
    kinked = climb(
        lambda p: (float(np.abs(p - kinks).mean()), np.sign(p[:, None] - kinks).mean(axis=1)),
        np.zeros(1),
        101,
        wide_of_one,
    )
    # The median's loss; between it and the next sample, the loss changes by some .01 / 101.
    assert kinked.loss == pytest.approx(np.abs(kinks[50] - kinks).mean(), abs=1e-4)


def test_the_best_climb_is_kept_and_a_value_that_is_no_number_never_is():
    wide = scipy.optimize.Bounds(np.full(1, -10.0), np.full(1, 10.0))

    def double_well(p):
        return float((p[0] ** 2 - 1) ** 2 + 0.3 * p[0]), np.array([4 * p[0] * (p[0] ** 2 - 1) + 0.3])

    ends = [climb(double_well, np.array([start]), 100, wide) for start in (0.9, -0.9)]
    assert best_of(ends).parameters[0] < 0 < ends[0].parameters[0]
