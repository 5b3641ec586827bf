"""Sums over a sample of any size by one compiled program, chunk by chunk: the likelihood with its gradient.

Axes: C rows of a chunk, P parameters. The padded arrays hold whole chunks, of which the first n rows are in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

CHUNK = 1024  # rows that stay in a core's cache with all that a mixture computes of them

RowLoss = Callable[[jax.Array, Any], jax.Array]
"""(parameters [P], arrays of C rows) -> loss of each row [C]."""


def padded_rows(n: int) -> int:
    """Rows of the arrays that hold n samples."""
    return -(-n // CHUNK) * CHUNK


def sum_over_chunks(of_chunk: Callable[[Any, jax.Array], Any], data: Any, n: jax.Array) -> Any:
    """The sum of `of_chunk(arrays of C rows, weights [C])` over the chunks in use; weights of rows past n are 0.

    n is a traced number, so the loop does the work of the chunks in use alone.
    """

    def chunk(number: jax.Array) -> Any:
        rows = jax.tree.map(lambda array: lax.dynamic_slice_in_dim(array, number * CHUNK, CHUNK), data)
        return of_chunk(rows, (number * CHUNK + jnp.arange(CHUNK) < n).astype(float))

    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(chunk, 0))
    return lax.fori_loop(
        0, (n + CHUNK - 1) // CHUNK, lambda number, total: jax.tree.map(jnp.add, total, chunk(number)), empty
    )


def mean_and_gradient(row_loss: RowLoss, parameters: jax.Array, data: Any, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean of `row_loss` over the n rows in use and its gradient in the parameters.

    A loop over a traced number of chunks has no reverse mode, so the gradient is summed as the value is.
    """

    def of_chunk(rows: Any, used: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.value_and_grad(lambda values: jnp.sum(used * row_loss(values, rows)))(parameters)

    value, gradient = sum_over_chunks(of_chunk, data, n)
    return value / n, gradient / n
