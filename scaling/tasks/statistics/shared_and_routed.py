"""Gaussian experts, half of them shared and half routed (arXiv 2505.10860).

f(y | x) = 1/2 sum_i omega_i N(y; h(x; kappa_i), tau_i) + 1/2 sum_j gate_j(x) N(y; h(x; eta_j), nu_j)
h(x; a, b) = a x + b, or ReLU(a x + b); gate = softmax(beta_1j x + beta_0j), or sigmoid(s_j) / sum over all sigmoid(s).
Axes: I shared, J routed experts, C rows of a chunk. An expert is (a, b, log variance). The last omega's logit is 0,
and so is the last gate of a softmax, which is the same after a common shift; a sigmoid gate has no such shift.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import Bounds
from scipy.special import softmax

from scaling.arrays import Array
from scaling.tasks.statistics.ascent import Maximum, best_of, climb
from scaling.tasks.statistics.likelihood import mean_and_gradient, padded_rows
from scaling.tasks.statistics.voronoi import Atoms


class Model(NamedTuple):
    """Numbers of fitted experts, what an expert is (`linear` or `relu`) and the gate (`softmax` or `sigmoid`)."""

    n_shared: int
    n_routed: int
    experts: str
    gate: str

    @property
    def n_gates(self) -> int:
        """Gates with free parameters."""
        return self.n_routed - (self.gate == "softmax")

    @property
    def ends(self) -> tuple[int, int, int]:
        """Where logits of omega, shared experts and gates end among the free parameters; routed experts follow."""
        logits = self.n_shared - 1
        return logits, logits + 3 * self.n_shared, logits + 3 * self.n_shared + 2 * self.n_gates


class Mixture(NamedTuple):
    """omega [I] that sums to 1, shared [I, 3], gate [J, 2] (beta_0, beta_1), routed [J, 3]."""

    omega: Array
    shared: Array
    gate: Array
    routed: Array

    def free(self, model: Model) -> Array:
        """Free parameters [P]."""
        logits = np.log(self.omega)
        gate = (self.gate - self.gate[-1:])[:-1] if model.gate == "softmax" else self.gate
        return np.concatenate([(logits - logits[-1])[:-1], self.shared.ravel(), gate.ravel(), self.routed.ravel()])

    def shared_atoms(self) -> Atoms:
        """Masses omega, parameters (a, b, variance)."""
        return Atoms(self.omega, _with_variance(self.shared))

    def routed_atoms(self, model: Model) -> Atoms:
        """Masses exp(beta_0) or sigmoid(beta_0), parameters (beta_1, a, b, variance)."""
        intercepts = self.gate[:, 0]
        masses = np.exp(intercepts) if model.gate == "softmax" else 1 / (1 + np.exp(-intercepts))
        return Atoms(masses, np.concatenate([self.gate[:, 1:], _with_variance(self.routed)], axis=1))


def _with_variance(experts: Array) -> Array:
    return np.concatenate([experts[:, :2], np.exp(experts[:, 2:])], axis=1)


def mixture(parameters: Array, model: Model) -> Mixture:
    """The mixture of free parameters [P]."""
    logits, shared, gate, routed = np.split(parameters, model.ends)
    gate = np.pad(gate.reshape(-1, 2), ((0, model.n_routed - model.n_gates), (0, 0)))
    return Mixture(softmax(np.pad(logits, (0, 1))), shared.reshape(-1, 3), gate, routed.reshape(-1, 3))


def log_density(parameters: jax.Array, x: jax.Array, y: jax.Array, model: Model) -> jax.Array:
    """log f(y | x) of samples [C]."""
    logits, shared, gate, routed = jnp.split(parameters, model.ends)
    log_omega = jax.nn.log_softmax(jnp.pad(logits, (0, 1)))
    gate = jnp.pad(gate.reshape(-1, 2), ((0, model.n_routed - model.n_gates), (0, 0)))
    logits = gate[:, 0] + x[:, None] * gate[:, 1]
    if model.gate == "sigmoid":
        logits = jax.nn.log_sigmoid(logits)
    experts = jnp.concatenate([shared, routed]).reshape(-1, 3)
    means = x[:, None] * experts[:, 0] + experts[:, 1]
    if model.experts == "relu":
        means = jax.nn.relu(means)
    normal = -0.5 * ((y[:, None] - means) ** 2 * jnp.exp(-experts[:, 2]) + experts[:, 2] + math.log(2 * math.pi))
    weights = jnp.concatenate(
        [jnp.broadcast_to(log_omega, (len(x), model.n_shared)), jax.nn.log_softmax(logits, axis=-1)], axis=-1
    )
    return jax.nn.logsumexp(weights + normal, axis=-1) - math.log(2)


@functools.partial(jax.jit, static_argnames="model")
def mean_loss(parameters: jax.Array, data: Any, n: jax.Array, model: Model) -> tuple[jax.Array, jax.Array]:
    """The mean of -log f(y | x) over the n samples and its gradient."""
    return mean_and_gradient(lambda values, rows: -log_density(values, rows[0], rows[1], model), parameters, data, n)


def fit(starts_SxP: Array, data: Any, n: int, bounds: Bounds, model: Model) -> Maximum:
    """The best of the climbs from several starts within bounds.

    Neither a ReLU expert nor a sigmoid gate has an M-step in closed form, so the likelihood itself is climbed.
    """
    data = jax.tree.map(jnp.asarray, data)

    def likelihood(values: Array) -> tuple[float, Array]:
        value, gradient = mean_loss(values, data, n, model)
        return float(value), np.asarray(gradient)

    return best_of(climb(likelihood, start, n, bounds) for start in starts_SxP)


def drawn(rng: np.random.Generator, n: int, true: Mixture, model: Model) -> tuple[Array, Array]:
    """n samples in whole chunks of rows, x uniform on [-3, 3]."""
    x = rng.uniform(-3, 3, n)
    logits = true.gate[:, 0] + np.outer(x, true.gate[:, 1])
    gates = np.exp(logits) if model.gate == "softmax" else 1 / (1 + np.exp(-logits))
    weights = np.concatenate(
        [np.broadcast_to(true.omega, (n, len(true.omega))), gates / gates.sum(axis=1, keepdims=True)], axis=1
    )
    chosen = (weights.cumsum(axis=1) < 2 * rng.random(n)[:, None]).sum(axis=1).clip(max=weights.shape[1] - 1)
    a, b, log_variance = np.concatenate([true.shared, true.routed])[chosen].T
    means = a * x + b
    if model.experts == "relu":
        means = np.maximum(means, 0)
    rows = np.zeros((2, padded_rows(n)))
    rows[:, :n] = x, means + np.exp(log_variance / 2) * rng.standard_normal(n)
    return rows[0], rows[1]


_X, _Y = 61, 801


@functools.partial(jax.jit, static_argnames=("model", "true_model"))
def total_variation(
    parameters: jax.Array, true: jax.Array, model: Model, true_model: Model, least: float, most: float
) -> jax.Array:
    """Mean over x of half the integral of |f - f_true| over y in [least, most], on a fixed grid."""
    x = -3 + 6 * (jnp.arange(_X) + 0.5) / _X
    y = least + (most - least) * (jnp.arange(_Y) + 0.5) / _Y
    points_x, points_y = jnp.repeat(x, _Y), jnp.tile(y, _X)
    fitted = jnp.exp(log_density(parameters, points_x, points_y, model))
    exact = jnp.exp(log_density(true, points_x, points_y, true_model))
    return 0.5 * jnp.abs(fitted - exact).mean() * (most - least)
