"""Softmax-gated multinomial logistic experts on a covariate of finitely many values (arXiv 2310.14188).

p(y = l | x) = sum_i softmax_i(beta_1i M(x) + beta_0i) softmax_l(a_il x + c_il), with M one of `TRANSFORMS`.
The covariate is uniform on G values, so the table of counts [G, L] is sufficient and a fit costs the same at every n.
Axes: G values of x, L classes, I experts. The gate of the last expert and the logits of the last class are 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import Bounds
from scipy.special import softmax

from scaling.arrays import Array
from scaling.tasks.statistics import softmax_regression
from scaling.tasks.statistics.ascent import Maximum, best_of, climb
from scaling.tasks.statistics.voronoi import Atoms

TRANSFORMS: Mapping[str, Callable[[Array], Array]] = {
    "x": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "cos": np.cos,
}
"""What a gate reads. All but the plain one keep x and M(x) apart, so that slopes of gate and experts do not mix."""

COVARIATE = -3 + 6 * (np.arange(256) + 0.5) / 256
"""The values of x: as good as uniform on [-3, 3]."""


class Mixture(NamedTuple):
    """gate [I, 2] (intercept, slope), experts [I, L, 2] (intercept, slope)."""

    gate: Array
    experts: Array

    def free(self) -> Array:
        """The free parameters [P]: without the last gate and class, which are brought to 0."""
        gate, experts = self.gate - self.gate[-1:], self.experts - self.experts[:, -1:]
        return np.concatenate([gate[:-1].ravel(), experts[:, :-1].ravel()])

    def atoms(self) -> Atoms:
        """Masses exp(beta_0), parameters [I, 1 + 2 (L - 1)]: slope of the gate, slopes and intercepts of the expert."""
        experts = (self.experts - self.experts[:, -1:])[:, :-1]
        parameters = np.concatenate([self.gate[:, 1:], experts[..., 1], experts[..., 0]], axis=1)
        return Atoms(np.exp(self.gate[:, 0]), parameters)

    def chances(self, reads: Array) -> Array:
        """p(y | x) [G, L] at `COVARIATE` of a gate that reads M(x) = `reads`."""
        gates = softmax(self.gate[:, 0] + reads[:, None] * self.gate[:, 1], axis=-1)
        classes = softmax(self.experts[..., 0] + COVARIATE[:, None, None] * self.experts[..., 1], axis=-1)
        return np.einsum("gi,gil->gl", gates, classes)


def mixture(parameters: Array, n_experts: int, n_classes: int) -> Mixture:
    """The mixture of free parameters [P]."""
    gates = 2 * (n_experts - 1)
    gate = np.pad(parameters[:gates].reshape(-1, 2), ((0, 1), (0, 0)))
    return Mixture(gate, np.pad(parameters[gates:].reshape(n_experts, n_classes - 1, 2), ((0, 0), (0, 1), (0, 0))))


def _parts(parameters: jax.Array, n_experts: int, n_classes: int) -> tuple[jax.Array, jax.Array]:
    gates = 2 * (n_experts - 1)
    gate = jnp.pad(parameters[:gates].reshape(-1, 2), ((0, 1), (0, 0)))
    return gate, jnp.pad(parameters[gates:].reshape(n_experts, n_classes - 1, 2), ((0, 0), (0, 1), (0, 0)))


def _free(gate: jax.Array, experts: jax.Array) -> jax.Array:
    return jnp.concatenate([gate[:-1].reshape(-1), experts[:, :-1].reshape(-1)])


def _log_joint(gate: jax.Array, experts: jax.Array, x: jax.Array, reads: jax.Array) -> jax.Array:
    """log of gate times chance of the class [G, I, L]."""
    gates = jax.nn.log_softmax(gate[:, 0] + reads[:, None] * gate[:, 1], axis=-1)
    chances = jax.nn.log_softmax(experts[..., 0] + x[:, None, None] * experts[..., 1], axis=-1)
    return gates[:, :, None] + chances


def loss(parameters: jax.Array, table: jax.Array, x: jax.Array, reads: jax.Array, n_experts: int) -> jax.Array:
    """-sum of counts log p / n of a table of counts [G, L]: the mean of -log p(y | x), in nats."""
    gate, experts = _parts(parameters, n_experts, table.shape[-1])
    return -jnp.sum(table * jax.nn.logsumexp(_log_joint(gate, experts, x, reads), axis=1)) / jnp.sum(table)


def em_step(parameters: jax.Array, table: jax.Array, x: jax.Array, reads: jax.Array, n_experts: int) -> jax.Array:
    """One step of generalised EM, by one step of `softmax_regression` for gate and experts: no likelihood falls."""
    gate, experts = _parts(parameters, n_experts, table.shape[-1])
    joint = table[:, None, :] * jax.nn.softmax(_log_joint(gate, experts, x, reads), axis=1)
    ones = jnp.ones_like(x)
    gate_rows, expert_rows = jnp.stack([ones, reads], axis=-1), jnp.stack([ones, x], axis=-1)
    gate = softmax_regression.step(gate, gate_rows, joint.sum(axis=-1))
    step_of_expert = jax.vmap(softmax_regression.step, in_axes=(0, None, 1))
    return _free(gate, step_of_expert(experts, expert_rows, joint))


@functools.partial(jax.jit, static_argnames="n_experts")
def loss_and_gradient(
    parameters: jax.Array, table: jax.Array, x: jax.Array, reads: jax.Array, n_experts: int
) -> tuple[jax.Array, jax.Array]:
    """`loss` and its gradient."""
    return jax.value_and_grad(loss)(parameters, table, x, reads, n_experts)


@functools.partial(jax.jit, static_argnames=("n_experts", "steps"))
def em(
    parameters: jax.Array, table: jax.Array, x: jax.Array, reads: jax.Array, n_experts: int, steps: int
) -> jax.Array:
    """Parameters after steps of EM."""
    return lax.fori_loop(0, steps, lambda _, values: em_step(values, table, x, reads, n_experts), parameters)


def fit(starts_SxP: Array, table: Array, reads: Array, bound: float, n_experts: int, em_steps: int) -> Maximum:
    """The best of several starts: steps of EM, then `ascent.climb` with every parameter within +- bound."""
    data = jnp.asarray(table), jnp.asarray(COVARIATE), jnp.asarray(reads)

    def likelihood(values: Array) -> tuple[float, Array]:
        value, gradient = loss_and_gradient(values, *data, n_experts)
        return float(value), np.asarray(gradient)

    bounds = Bounds(np.full(starts_SxP.shape[1], -bound), np.full(starts_SxP.shape[1], bound))
    begun = (np.asarray(em(start, *data, n_experts, em_steps)) for start in starts_SxP)
    return best_of(climb(likelihood, start, int(table.sum()), bounds) for start in begun)


def drawn(rng: np.random.Generator, n: int, chances: Array) -> Array:
    """The table of counts [G, L] of n samples: x uniform on `COVARIATE`, y given x by `chances` [G, L]."""
    joint = chances.ravel() / chances.sum()
    return rng.multinomial(n, joint).reshape(chances.shape).astype(float)
