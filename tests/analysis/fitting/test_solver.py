"""The solver against independent ones: closed forms, linear programs, SciPy on a non-convex problem."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from analysis.fitting import solver
from analysis.fitting.objective import Objective
from analysis.fitting.solver import Regression, minimise
from scaling.errors import InputError

WIDE = np.full(3, -1e6), np.full(3, 1e6)


def linear(design, observed, objective, lower=WIDE[0], upper=WIDE[1]):
    """f = X theta, for problems whose answer is known."""
    return Regression(
        lambda theta: (theta @ design.T, np.repeat(design.T[None], len(theta), axis=0)),
        observed,
        objective,
        lower,
        upper,
    )


@pytest.fixture
def data():
    rng = np.random.default_rng(4)
    design = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    observed = design @ [1.0, -2.0, 0.5] + 0.03 * rng.standard_t(2, size=60)
    return design, observed, rng


def test_least_squares_is_the_normal_equations_with_weights(data):
    design, observed, rng = data
    weights = rng.integers(0, 4, size=(5, 60)).astype(float)
    found = minimise(linear(design, observed, Objective("least-squares")), np.zeros((5, 3)), weights)
    assert found.converged.all()
    for theta, w in zip(found.theta, weights, strict=True):
        exact = np.linalg.solve(design.T @ (w[:, None] * design), design.T @ (w * observed))
        assert theta == pytest.approx(exact, rel=1e-8)


def test_least_absolute_deviations_is_the_linear_program(data):
    design, observed, rng = data
    weights = np.vstack([np.ones(60), rng.integers(0, 3, size=(3, 60))]).astype(float)
    found = minimise(linear(design, observed, Objective("lad")), np.zeros((4, 3)), weights)
    for value, w in zip(found.objective, weights, strict=True):
        # min sum w t  with  -t <= X theta - y <= t
        eye = np.eye(60)
        program = linprog(
            np.r_[np.zeros(3), w], A_ub=np.block([[design, -eye], [-design, -eye]]), b_ub=np.r_[observed, -observed],
            bounds=[(None, None)] * 3 + [(0, None)] * 60,
        )  # fmt: skip
        assert value == pytest.approx(program.fun, rel=1e-7)


def decay(levels, observed):
    """f = a exp(-b x), whose minimum under least absolute deviations is a vertex of a curved model."""

    def model(theta):
        shape = np.exp(-theta[:, 1:] * levels)
        return theta[:, :1] * shape, np.stack([shape, -theta[:, :1] * levels * shape], axis=1)

    return Regression(model, observed, Objective("lad"), np.array([0.0, 0.0]), np.array([10.0, 10.0]))


def test_least_absolute_deviations_of_a_curved_model_end_exactly_at_vertices():
    rng, levels = np.random.default_rng(6), np.linspace(0.0, 3.0, 40)
    regression = decay(levels, 2.0 * np.exp(-0.7 * levels) + 0.02 * rng.standard_t(2, size=40))
    weights = rng.integers(0, 3, size=(20, 40)).astype(float)
    found = minimise(regression, np.tile([1.5, 1.0], (20, 1)), weights)
    residuals, jacobian = regression.residuals(found.theta)
    vertices = 0
    for r, slopes, w, value in zip(residuals, jacobian, weights, found.objective, strict=True):
        assert w @ np.abs(r) == pytest.approx(value, rel=1e-15)
        zeros = np.flatnonzero((w > 0) & (np.abs(r) < 1e-12))
        if zeros.size == 2:  # else the curvature of the model holds the minimum off a vertex
            vertices += 1
            others = np.delete(np.arange(40), zeros)
            multipliers = np.linalg.solve(slopes[:, zeros], -slopes[:, others] @ (w * np.sign(r))[others])
            assert (np.abs(multipliers) <= w[zeros]).all()
    assert vertices >= 15


@pytest.mark.parametrize("bound", [0.5, 0.9])
def test_least_absolute_deviations_within_bounds_equal_a_fit_of_the_other_parameter(bound):
    rng, levels = np.random.default_rng(6), np.linspace(0.0, 3.0, 40)
    free = decay(levels, 2.0 * np.exp(-0.7 * levels) + 0.02 * rng.standard_t(2, size=40))
    lower, upper = (np.array([0.0, bound]), free.upper) if bound > 0.7 else (free.lower, np.array([10.0, bound]))
    found = minimise(
        Regression(free.model, free.observed, free.objective, lower, upper), np.ones((1, 2)), np.ones((1, 40))
    )
    assert found.theta[0, 1] == bound
    shape = np.exp(-bound * levels)  # a is the median of y / shape, weighted by shape
    value = min(np.abs(a * shape - free.observed).sum() for a in free.observed / shape)
    assert found.objective[0] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("kind", ["huber", "lad"])
def test_rival_starts_each_end_where_they_end_alone(data, kind):
    design, observed, rng = data
    regression = linear(design, observed, Objective(kind))
    weights, starts = rng.integers(0, 4, size=(5, 60)).astype(float), rng.normal(size=(10, 3))
    alone = minimise(regression, starts, np.repeat(weights, 2, axis=0))
    together = minimise(regression, starts, weights, rivals=2)
    assert together.converged.all()
    assert together.objective == pytest.approx(alone.objective, rel=1e-12)
    assert together.theta == pytest.approx(alone.theta, rel=1e-6)


@pytest.mark.parametrize("kind", ["huber", "asymmetric"])
def test_robust_minima_equal_bfgs(data, kind):
    design, observed, _ = data
    objective = Objective(kind, delta=0.01)
    found = minimise(linear(design, observed, objective), np.zeros((1, 3)), np.ones((1, 60)))

    def value(theta):
        residual = design @ theta - observed
        return objective.penalty(residual).sum(), design.T @ objective.slope(residual)

    peer = minimize(value, found.theta[0] + 0.1, jac=True, method="BFGS", options={"gtol": 1e-10})
    assert found.objective[0] == pytest.approx(peer.fun, rel=1e-10)


@pytest.mark.parametrize("kind", ["huber", "lad", "least-squares", "asymmetric"])
def test_penalty_slope_and_curvature_agree(kind):
    objective, r = Objective(kind, delta=0.1), np.array([-0.5, -0.09, -1e-3, 2e-3, 0.05, 0.3])
    h = 1e-7
    if kind != "lad":  # the solver takes the slope of lad rounded, as a huber
        numeric = (objective.penalty(r + h) - objective.penalty(r - h)) / (2 * h)
        assert objective.slope(r) == pytest.approx(numeric, rel=1e-6)
        assert objective.majoriser(r) == pytest.approx(objective.slope(r) / r, rel=1e-12)
        numeric = (objective.slope(r + h) - objective.slope(r - h)) / (2 * h)
        assert objective.curvature(r) == pytest.approx(numeric, rel=1e-6)
    rounded = objective.rounded(1e-9)
    scale = 1e-9 if kind == "lad" else 1.0
    expected = Objective(kind, delta=1e-9).penalty(r) * scale
    assert rounded.penalty(r) == pytest.approx(expected, rel=1e-6)


def test_bounds_hold_and_the_rest_is_optimal(data):
    design, observed, _ = data
    lower, upper = np.array([-1e6, -1.0, -1e6]), np.array([1e6, 1e6, 0.2])
    bounded = linear(design, observed, Objective("least-squares"), lower, upper)
    found = minimise(bounded, np.zeros((1, 3)), np.ones((1, 60)))
    assert found.theta[0, 1] == -1.0
    assert found.theta[0, 2] == 0.2
    remaining = observed - design[:, 1:] @ [-1.0, 0.2]
    assert found.theta[0, 0] == pytest.approx(remaining.mean(), rel=1e-9)


def test_a_problem_without_finite_predictions_fails_as_a_value(data):
    _, observed, _ = data
    undefined = Regression(
        lambda theta: (np.full((len(theta), 60), np.nan), np.zeros((len(theta), 3, 60))), observed, Objective(), *WIDE
    )
    nowhere = minimise(undefined, np.zeros((2, 3)), np.ones((2, 60)))
    assert not nowhere.converged.any()
    assert np.isinf(nowhere.objective).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "mae"}, "huber, lad"),
        ({"residual": "ratio"}, "log or raw"),
        ({"delta": 0.0}, "positive"),
        ({"delta": float("nan")}, "positive"),
    ],
)
def test_wrong_objectives_are_named(kwargs, message):
    with pytest.raises(InputError, match=message):
        Objective(**kwargs)


def test_a_singular_system_does_not_stop_the_others():
    """[[1, 1], [1, 1]] x = (2, 2) has the shortest solution (1, 1); the regular system beside it keeps its own."""
    matrices = np.array([[[1.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 4.0]]])
    found = solver._solved(matrices, np.array([[2.0, 2.0], [2.0, 4.0]]))
    np.testing.assert_allclose(found, [[1.0, 1.0], [1.0, 1.0]], rtol=1e-6)
    alone = solver._solved(matrices[1:], np.array([[2.0, 4.0]]))
    np.testing.assert_array_equal(alone, [[1.0, 1.0]])
