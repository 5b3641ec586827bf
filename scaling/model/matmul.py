"""The product of rows with a weight, with a cheap order of the gradient."""

from __future__ import annotations

import jax


@jax.custom_vjp
def product(x_RxA: jax.Array, weight_AxB: jax.Array) -> jax.Array:
    """x W, [R, B].

    The gradient of W, x^T g, transposes one factor, which on a CPU copies it and its inputs. Here the narrower factor
    is transposed and, if needed, the small result.
    """
    return x_RxA @ weight_AxB


def _backward(residuals: tuple[jax.Array, jax.Array], grad_RxB: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_RxA, weight_AxB = residuals
    narrow = x_RxA.shape[-1] <= grad_RxB.shape[-1]
    grad_weight = x_RxA.T @ grad_RxB if narrow else (grad_RxB.T @ x_RxA).T
    return grad_RxB @ weight_AxB.T, grad_weight


product.defvjp(lambda x, weight: (x @ weight, (x, weight)), _backward)


def product_of_sequences(x_BxTxA: jax.Array, weight_AxB: jax.Array) -> jax.Array:
    """The same for [B, T, A] -> [B, T, B']."""
    return product(x_BxTxA.reshape(-1, x_BxTxA.shape[-1]), weight_AxB).reshape(*x_BxTxA.shape[:-1], -1)
