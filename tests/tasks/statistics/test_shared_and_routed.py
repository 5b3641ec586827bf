"""Shared and routed Gaussian experts: slow sums, what an over-fitted model contains, and the powers of its loss."""

import numpy as np
import pytest
import scipy.optimize
from scipy.integrate import trapezoid
from scipy.stats import norm

from scaling.tasks.statistics import shared_and_routed
from scaling.tasks.statistics.draws import generator
from scaling.tasks.statistics.shared_and_routed import Mixture, Model
from scaling.tasks.statistics.train_shared import truth

SETTINGS = [(experts, gate) for experts in ("linear", "relu") for gate in ("softmax", "sigmoid")]


def density(mixture: Mixture, model: Model, x, y):
    """f(y | x) by loops over experts."""

    def expert(a, b, log_variance):
        mean = a * x + b if model.experts == "linear" else np.maximum(a * x + b, 0)
        return norm.pdf(y, mean, np.exp(log_variance / 2))

    scores = [np.exp(b + s * x) if model.gate == "softmax" else 1 / (1 + np.exp(-b - s * x)) for b, s in mixture.gate]
    shared = sum(omega * expert(*one) for omega, one in zip(mixture.omega, mixture.shared, strict=True))
    routed = sum(score * expert(*one) for score, one in zip(scores, mixture.routed, strict=True)) / sum(scores)
    return 0.5 * shared + 0.5 * routed


def random_mixture(model: Model) -> Mixture:
    rng = np.random.default_rng(0)
    omega = rng.random(model.n_shared) + 0.1
    gate, shared, routed = (
        rng.standard_normal(shape) for shape in ((model.n_routed, 2), (model.n_shared, 3), (model.n_routed, 3))
    )
    return Mixture(omega / omega.sum(), shared, gate, routed)


@pytest.mark.parametrize(("experts", "gate"), SETTINGS)
def test_the_density_is_that_of_a_loop_and_has_a_mass_of_one(experts, gate):
    model = Model(2, 3, experts, gate)
    mixture = random_mixture(model)
    y = np.linspace(-40, 40, 20001)
    parameters = mixture.free(model)
    found = np.exp(shared_and_routed.log_density(parameters, np.full_like(y, 1.3), y, model))
    np.testing.assert_allclose(found, density(mixture, model, 1.3, y), rtol=1e-9, atol=1e-300)
    assert trapezoid(found, y) == pytest.approx(1, abs=1e-6)
    again = shared_and_routed.mixture(parameters, model)
    np.testing.assert_allclose(density(again, model, 1.3, y), found, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("experts", "gate"), SETTINGS)
def test_the_gradient_is_that_of_differences(experts, gate):
    true, small, model = truth(experts, gate), Model(1, 2, experts, gate), Model(2, 3, experts, gate)
    data = shared_and_routed.drawn(generator(0, 50, 0), 50, true, small)
    at = random_mixture(model).free(model)
    gradient = shared_and_routed.mean_loss(at, data, 50, model)[1]
    differences = scipy.optimize.approx_fprime(
        at, lambda p: float(shared_and_routed.mean_loss(p, data, 50, model)[0]), 1e-7
    )
    np.testing.assert_allclose(gradient, differences, atol=1e-4, rtol=1e-5)  # of a loss of some 10 nats, step 1e-7


@pytest.mark.parametrize(("experts", "gate"), SETTINGS)
def test_samples_have_the_density(experts, gate):
    true, model, n = truth(experts, gate), Model(1, 2, experts, gate), 40_000
    x, y = shared_and_routed.drawn(generator(1, n, 0), n, true, model)
    assert not x[n:].any()
    values = np.linspace(-12, 14, 2001)
    for low in (-3, -1, 1):
        inside = (x[:n] >= low) & (x[:n] < low + 2)
        middles = low + (np.arange(40) + 0.5) / 20
        chance = np.mean([trapezoid(np.where(values < 1, density(true, model, m, values), 0), values) for m in middles])
        count = inside.sum()
        # Five standard deviations of a proportion; the trapezoid at the edge of y < 1 adds at most its step of .013.
        assert np.mean(y[:n][inside] < 1) == pytest.approx(chance, abs=5 * np.sqrt(0.25 / count) + 0.013)


@pytest.mark.parametrize(("experts", "gate"), SETTINGS)
def test_the_over_fitted_model_contains_the_truth(experts, gate):
    true, small, model = truth(experts, gate), Model(1, 2, experts, gate), Model(2, 3, experts, gate)
    omega = np.array([0.3, 0.7])
    masses = true.routed_atoms(small).masses[[0, 1, 1]] * np.array([1, 0.4, 0.6])
    intercepts = np.log(masses) if gate == "softmax" else np.log(masses / (1 - masses))
    divided = Mixture(
        omega, true.shared[[0, 0]], np.stack([intercepts, true.gate[[0, 1, 1], 1]], axis=1), true.routed[[0, 1, 1]]
    )
    x, y = np.repeat(np.linspace(-3, 3, 13), 50), np.tile(np.linspace(-8, 10, 50), 13)
    np.testing.assert_allclose(density(divided, model, x, y), density(true, small, x, y), rtol=1e-12)
    distance = shared_and_routed.total_variation(divided.free(model), true.free(small), model, small, -15.0, 15.0)
    assert float(distance) == pytest.approx(0, abs=1e-12)


def variation(experts: str, shift_a: float, shift_b: float) -> float:
    """Total variation of the truth from the truth with its shared expert divided into two shifted by -+, by the best
    variance that the two can have."""
    true, small, model = truth(experts, "softmax"), Model(1, 2, experts, "softmax"), Model(2, 2, experts, "softmax")

    def divided(log_factor: float) -> float:
        shared = true.shared[[0, 0]] + np.array([[-shift_a, -shift_b, log_factor], [shift_a, shift_b, log_factor]])
        mixture = Mixture(np.array([0.5, 0.5]), shared, true.gate, true.routed)
        return float(
            shared_and_routed.total_variation(mixture.free(model), true.free(small), model, small, -15.0, 15.0)
        )

    found = scipy.optimize.minimize_scalar(divided, bounds=(-0.5, 0.1), method="bounded", options={"xatol": 1e-7})
    return float(found.fun)


def test_the_intercept_of_a_linear_expert_has_the_power_four_and_all_else_two():
    # Halving the shift divides the change of the density by 2^power: 16 and 4, but for terms of the next even order.
    # Shifts of b by d leave a variance of .25 - d^2, whose fourth power of the deviation makes 16 a 17 at .1 and .05.
    assert variation("linear", 0.0, 0.1) / variation("linear", 0.0, 0.05) == pytest.approx(16, rel=0.1)
    assert variation("linear", 0.1, 0.0) / variation("linear", 0.05, 0.0) == pytest.approx(4, rel=0.1)
    # The grid of x, whose step is .1, does not resolve where a ReLU begins.
    assert variation("relu", 0.0, 0.1) / variation("relu", 0.0, 0.05) == pytest.approx(4, rel=0.2)


def test_the_fit_is_no_worse_than_that_of_another_optimiser():
    true, model, n = truth("linear", "sigmoid"), Model(1, 2, "linear", "sigmoid"), 300
    data = shared_and_routed.drawn(generator(2, n, 0), n, true, model)
    start = true.free(model)
    bounds = scipy.optimize.Bounds(start - 5, start + 5)
    found = shared_and_routed.fit(start[None], data, n, bounds, model)

    def negative(parameters):
        rows = data[0][:n], data[1][:n]
        return -np.log(density(shared_and_routed.mixture(parameters, model), model, *rows)).mean()

    other = scipy.optimize.minimize(
        negative, start, method="SLSQP", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12}
    )
    assert found.converged
    assert found.loss <= other.fun + 1e-3 / n  # .001 nats over the whole sample
