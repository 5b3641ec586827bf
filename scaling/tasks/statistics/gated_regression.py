"""Mixtures of polynomial experts with Gaussian noise of known size behind a softmax gate that is learnt.

f(y | x) = sum_i softmax_i(beta_0i + beta_1i p_1(x)) N(y; h_i(x), sigma^2), h_i a polynomial (arXiv 1110.2058) and
p_1(x) = sqrt(3) (2x - 1), the linear polynomial of the same orthonormal basis on [0, 1].
Axes: I experts, B polynomials, C rows of a chunk. The last expert's gate is 0: a softmax gate is the same after a
common shift of its slopes and intercepts.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import Bounds
from scipy.special import log_softmax, logsumexp, softmax

from scaling.arrays import Array
from scaling.tasks.statistics import softmax_regression
from scaling.tasks.statistics.ascent import Maximum, best_of, climb
from scaling.tasks.statistics.likelihood import mean_and_gradient, padded_rows, sum_over_chunks
from scaling.tasks.statistics.polynomials import Target, nodes, orthonormal


class Model(NamedTuple):
    """Sizes of a mixture: experts, order of their polynomials, the known standard deviation of the noise."""

    n_experts: int
    order: int
    noise: float


def parts(parameters: jax.Array, model: Model) -> tuple[jax.Array, jax.Array]:
    """Gate [I, 2] (intercept, slope) and coefficients [I, B] of free parameters [P]."""
    gates = 2 * (model.n_experts - 1)
    gate = jnp.concatenate([parameters[:gates].reshape(-1, 2), jnp.zeros((1, 2), parameters.dtype)])
    return gate, parameters[gates:].reshape(model.n_experts, model.order + 1)


def whole(gate_Ix2: jax.Array, coefficients_IxB: jax.Array) -> jax.Array:
    """Free parameters [P] of a gate, whose last row is brought to 0, and coefficients."""
    return jnp.concatenate([(gate_Ix2[:-1] - gate_Ix2[-1:]).reshape(-1), coefficients_IxB.reshape(-1)])


def _log_joint(parameters: jax.Array, rows: Any, model: Model) -> jax.Array:
    """log of gate times density [C, I], of rows: regressors of the gate [C, 2], of the experts [C, B], y [C]."""
    gate, coefficients = parts(parameters, model)
    inputs, basis, y = rows
    residuals = (y[:, None] - basis @ coefficients.T) / model.noise
    normal = -0.5 * residuals**2 - math.log(model.noise * math.sqrt(2 * math.pi))
    return jax.nn.log_softmax(inputs @ gate.T, axis=-1) + normal


def row_loss(parameters: jax.Array, rows: Any, model: Model) -> jax.Array:
    """-log f(y | x) of each row, in nats."""
    return -jax.nn.logsumexp(_log_joint(parameters, rows, model), axis=-1)


def em_step(parameters: jax.Array, data: Any, n: jax.Array, model: Model) -> jax.Array:
    """One step of EM: least squares of the experts weighed by responsibilities, one step of the gate.

    The gate's step is that of `softmax_regression.step`, so the likelihood never falls (generalised EM).
    """
    gate, coefficients = parts(parameters, model)

    def of_chunk(rows: Any, used: jax.Array) -> tuple[jax.Array, ...]:
        inputs, basis, y = rows
        shares = used[:, None] * jax.nn.softmax(_log_joint(parameters, rows, model), axis=-1)
        slope = (shares - used[:, None] * jax.nn.softmax(inputs @ gate.T, axis=-1)).T @ inputs
        return (
            jnp.einsum("ci,cb,cd->ibd", shares, basis, basis),
            jnp.einsum("ci,cb,c->ib", shares, basis, y),
            slope,
            jnp.einsum("cd,c,ce->de", inputs, used, inputs),
        )

    gram_IxBxB, right_IxB, slope_Ix2, inputs_2x2 = sum_over_chunks(of_chunk, data, n)
    tiny = 1e-9 * jnp.eye(model.order + 1)  # an expert without samples stays where it is
    moved = jnp.linalg.solve(
        gram_IxBxB + tiny, (right_IxB - jnp.einsum("ibd,id->ib", gram_IxBxB, coefficients))[..., None]
    )[..., 0]
    if model.n_experts > 1:
        bound = softmax_regression.inverse_bound(inputs_2x2, model.n_experts)
        gate = gate.at[:-1].add((bound @ slope_Ix2[:-1].reshape(-1)).reshape(-1, 2))
    return whole(gate, coefficients + moved)


@functools.partial(jax.jit, static_argnames="model")
def mean_loss(parameters: jax.Array, data: Any, n: jax.Array, model: Model) -> tuple[jax.Array, jax.Array]:
    """The mean of -log f(y | x) over the n samples and its gradient."""
    return mean_and_gradient(lambda values, rows: row_loss(values, rows, model), parameters, data, n)


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def em(parameters: jax.Array, data: Any, n: jax.Array, model: Model, steps: int) -> jax.Array:
    """Parameters after steps of EM."""
    return lax.fori_loop(0, steps, lambda _, values: em_step(values, data, n, model), parameters)


def fit(starts_SxP: Array, data: Any, n: int, bound: float, model: Model, em_steps: int) -> Maximum:
    """The best of several starts: steps of EM, then `ascent.climb` with every parameter within +- bound."""
    data = jax.tree.map(jnp.asarray, data)

    def likelihood(values: Array) -> tuple[float, Array]:
        value, gradient = mean_loss(values, data, n, model)
        return float(value), np.asarray(gradient)

    bounds = Bounds(np.full(starts_SxP.shape[1], -bound), np.full(starts_SxP.shape[1], bound))
    begun = (np.asarray(em(start, data, n, model, em_steps)) for start in starts_SxP)
    return best_of(climb(likelihood, start, n, bounds) for start in begun)


def padded(x: Array, y: Array, order: int) -> tuple[Array, Array, Array]:
    """Data of `fit` for samples x in [0, 1]: regressors of the gate and of the experts, and y, in whole chunks."""
    rows = np.zeros(padded_rows(len(x)))
    values = rows.copy()
    rows[: len(x)], values[: len(y)] = x, y
    return orthonormal(2 * rows - 1, 1), orthonormal(2 * rows - 1, order), values


def start_of_gate(gate_Ix2: Array, x: Array, y: Array, order: int) -> Array:
    """Free parameters [P] of a gate with the experts that it alone would weigh the samples for."""
    shares = softmax(orthonormal(2 * x - 1, 1) @ gate_Ix2.T, axis=1)
    basis = orthonormal(2 * x - 1, order)
    gram = np.einsum("ni,nb,nd->ibd", shares, basis, basis) + 1e-6 * np.eye(order + 1)
    coefficients = np.linalg.solve(gram, np.einsum("ni,nb,n->ib", shares, basis, y)[..., None])[..., 0]
    return np.concatenate([(gate_Ix2[:-1] - gate_Ix2[-1]).ravel(), coefficients.ravel()])


def gate_of_cells(n_experts: int, sharpness: float, centres: Array | None = None) -> Array:
    """Gate [I, 2] whose softmax parts [0, 1] into cells around centres, those of equal cells unless given.

    softmax_i(-s (x - c_i)^2 / 2) has logits s (c_i x - c_i^2 / 2), linear in x = (p_1 / sqrt(3) + 1) / 2.
    """
    if centres is None:
        centres = (np.arange(n_experts) + 0.5) / n_experts
    return sharpness / 2 * np.stack([centres - centres**2, centres / math.sqrt(3)], axis=-1)


_X_CELLS, _X_NODES, _Y_NODES = 64, 4, 48


def errors(parameters: Array, target: Target, model: Model) -> tuple[float, float]:
    """Kullback-Leibler divergence of the truth from the mixture in nats, and the squared error of its mean.

    Over x uniform on [0, 1]: Gauss-Legendre quadrature in cells; over y given x: Gauss-Hermite quadrature.
    """
    points, weights = nodes(_X_NODES)
    x = ((np.arange(_X_CELLS)[:, None] + (points + 1) / 2) / _X_CELLS).ravel()
    weight_of_x = np.tile(weights, _X_CELLS) / _X_CELLS
    z, weight_of_z = np.polynomial.hermite_e.hermegauss(_Y_NODES)
    weight_of_z = weight_of_z / math.sqrt(2 * math.pi)
    gates = 2 * (model.n_experts - 1)
    gate = np.concatenate([parameters[:gates].reshape(-1, 2), np.zeros((1, 2))])
    coefficients = parameters[gates:].reshape(model.n_experts, -1)
    log_gate = log_softmax(orthonormal(2 * x - 1, 1) @ gate.T, axis=1)
    means = orthonormal(2 * x - 1, model.order) @ coefficients.T
    truth = target.function(x)
    y = truth[:, None] + model.noise * z
    normal = -0.5 * ((y[..., None] - means[:, None, :]) / model.noise) ** 2
    log_ratio = -0.5 * z**2 - logsumexp(log_gate[:, None, :] + normal, axis=-1)
    mean = (np.exp(log_gate) * means).sum(axis=1)
    return float(weight_of_x @ log_ratio @ weight_of_z), float(weight_of_x @ (truth - mean) ** 2)
