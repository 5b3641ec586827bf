"""Polynomial experts behind a learnt gate: closed forms of one expert, EM, an independent optimiser."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import softmax

from scaling.tasks.statistics import gated_regression
from scaling.tasks.statistics.draws import generator
from scaling.tasks.statistics.gated_regression import Model, errors, fit, gate_of_cells, padded, start_of_gate
from scaling.tasks.statistics.polynomials import TARGETS, Target, orthonormal


def sample(n: int, noise: float, seed: int = 0):
    rng = generator(seed, n, 0)
    x = rng.random(n)
    return x, TARGETS["smooth"].function(x) + noise * rng.standard_normal(n)


def negative(parameters, x, y, model: Model) -> float:
    """-log f(y | x), mean over the sample, by loops over experts."""
    gates = np.append(parameters[: 2 * (model.n_experts - 1)], [0, 0]).reshape(-1, 2) @ orthonormal(2 * x - 1, 1).T
    coefficients = parameters[2 * (model.n_experts - 1) :].reshape(model.n_experts, -1)
    density = np.zeros_like(x)
    for gate, expert in zip(softmax(gates, axis=0), coefficients, strict=True):
        mean = sum(c * np.polynomial.Legendre.basis(j)(2 * x - 1) * np.sqrt(2 * j + 1) for j, c in enumerate(expert))
        density += gate * np.exp(-0.5 * ((y - mean) / model.noise) ** 2) / (model.noise * np.sqrt(2 * np.pi))
    return float(-np.log(density).mean())


def test_the_likelihood_is_that_of_a_loop_over_experts():
    model = Model(3, 2, 0.4)
    x, y = sample(300, 0.4)
    parameters = generator(9, 0, 0).standard_normal(4 + 9)
    value, gradient = gated_regression.mean_loss(parameters, padded(x, y, 2), 300, model)
    assert float(value) == pytest.approx(negative(parameters, x, y, model), rel=1e-12)
    differences = scipy.optimize.approx_fprime(parameters, negative, 1e-7, x, y, model)
    np.testing.assert_allclose(gradient, differences, atol=1e-5)  # a difference of step 1e-7 is exact to some 1e-6


def test_one_expert_is_least_squares_and_its_divergence_half_the_squared_error_over_the_variance():
    model = Model(1, 2, 0.3)
    x, y = sample(400, 0.3)
    found = fit(start_of_gate(np.zeros((1, 2)), x, y, 2)[None], padded(x, y, 2), 400, 1e4, model, 1)
    np.testing.assert_allclose(found.parameters, np.linalg.lstsq(orthonormal(2 * x - 1, 2), y)[0], atol=1e-6)
    kl, squared_error = errors(found.parameters, TARGETS["smooth"], model)
    assert kl == pytest.approx(squared_error / (2 * 0.3**2), rel=1e-9)


def test_identical_experts_are_one_expert():
    model, constant = Model(3, 0, 0.5), Target(lambda x: 0 * x + 1, np.inf, "1")
    parameters = np.append(generator(2, 0, 0).standard_normal(4), [1.3, 1.3, 1.3])
    kl, squared_error = errors(parameters, constant, model)
    assert squared_error == pytest.approx(0.09, rel=1e-9)
    assert kl == pytest.approx(0.09 / (2 * 0.25), rel=1e-6)


def test_em_never_lowers_the_likelihood():
    model = Model(4, 1, 0.3)
    x, y = sample(700, 0.3)
    data = padded(x, y, 1)
    parameters = jnp.asarray(3 * generator(3, 0, 0).standard_normal(6 + 8))
    losses = []
    for _ in range(40):
        losses.append(float(gated_regression.mean_loss(parameters, data, 700, model)[0]))
        parameters = gated_regression.em(parameters, data, 700, model, 1)
    assert np.diff(losses).max() <= 1e-11  # rounding of losses of some 100 nats at the start
    assert losses[-1] < 0.5 * losses[0]


def test_the_fit_is_no_worse_than_that_of_another_optimiser():
    model = Model(2, 1, 0.2)
    x, y = sample(200, 0.2)
    start = start_of_gate(gate_of_cells(2, 16.0), x, y, 1)
    found = fit(start[None], padded(x, y, 1), 200, 1e4, model, 20)
    other = scipy.optimize.minimize(
        negative, start, (x, y, model), method="SLSQP", options={"maxiter": 500, "ftol": 1e-13}
    )
    assert found.converged
    assert found.loss <= other.fun + 1e-3 / 200  # .001 nats over the whole sample


def test_a_start_of_cells_is_steps_of_a_sharp_gate():
    x = (np.arange(600) + 0.5) / 600
    y = np.floor(3 * x)
    start = start_of_gate(gate_of_cells(3, 1e5), x, y, 0)
    np.testing.assert_allclose(start[-3:], [0, 1, 2], atol=1e-2)  # the gate's step is wider than a sample's place
