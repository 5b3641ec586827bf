"""Weighted softmax regression: one step that never lowers the likelihood, for the M-steps of EM.

Axes: R rows, D regressors, L classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def inverse_bound(gram_DxD: jax.Array, classes: int) -> jax.Array:
    """Inverse of a matrix that no Hessian of the weighted log-likelihood exceeds, [(L-1) D, (L-1) D].

    1/2 (I - 1 1'/L) (x) X' W X with L - 1 free classes, for `gram_DxD` = X' W X. Boehning, Annals of the Institute of
    Statistical Mathematics 44, 1992, 197-200, theorem 1.
    """
    inverse_of_classes = 2 * (jnp.eye(classes - 1) + jnp.ones((classes - 1, classes - 1)))
    return jnp.kron(inverse_of_classes, jnp.linalg.inv(gram_DxD))


def step(coefficients_LxD: jax.Array, rows_RxD: jax.Array, targets_RxL: jax.Array) -> jax.Array:
    """One step uphill on sum_rl targets_rl log softmax_l(coefficients x_r); the last class's coefficients stay.

    Newton's step with the bound of `inverse_bound` for the Hessian: it never lowers that sum, wherever it starts.
    """
    weights_R = jnp.sum(targets_RxL, axis=-1)
    gram = jnp.einsum("rd,r,re->de", rows_RxD, weights_R, rows_RxD) + 1e-12 * jnp.eye(rows_RxD.shape[-1])
    chances_RxL = jax.nn.softmax(rows_RxD @ coefficients_LxD.T, axis=-1)
    slope_LxD = (targets_RxL - weights_R[:, None] * chances_RxL)[:, :-1].T @ rows_RxD
    move = inverse_bound(gram, targets_RxL.shape[-1]) @ slope_LxD.reshape(-1)
    return coefficients_LxD.at[:-1].add(move.reshape(slope_LxD.shape))
