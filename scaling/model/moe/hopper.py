"""A grouped product by the kernels for Hopper devices that JAX brings along as examples of Mosaic.

`jax.experimental.pallas.ops.gpu.ragged_dot_mgpu` and `transposed_ragged_dot_mgpu`, one for products and one for the
gradient of the weights. Rows M of all experts in order, A and B widths, E experts.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

CAPABILITY = "9.0"
_TILE, _STEP = 128, 64
# 128 x 128 tiles in steps of 64, four of them on their way: 160 of the 227 kB that a multiprocessor shares.
_BLOCKS = {"block_m": _TILE, "block_n": _TILE, "block_k": _STEP, "max_concurrent_steps": 4}


@jax.custom_vjp
def ragged_dot(rows_MxA: jax.Array, weight_ExAxB: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """Each row times the weight of its expert, [M, B]; `sizes` are the rows of each expert, and what is left over at
    the end goes to the last. Half precision alone, widths in multiples of 128. Raises NotImplementedError for others.
    """
    return _product(rows_MxA, weight_ExAxB, _all_rows(sizes_E, rows_MxA))


def _product(rows: jax.Array, weight: jax.Array, sizes_E: jax.Array, *, transposed: bool = False) -> jax.Array:
    from jax.experimental.pallas.ops.gpu import ragged_dot_mgpu

    widths = weight.shape[1:]
    if any(width % _TILE for width in widths) or rows.dtype not in (jnp.bfloat16, jnp.float16):
        raise NotImplementedError(f"widths {widths} in {rows.dtype}; the kernel takes multiples of {_TILE} in 16 bits")
    out = widths[0] if transposed else widths[1]
    blocks: dict[str, Any] = {**_BLOCKS, "grid_block_n": _beside(out)}
    return ragged_dot_mgpu.ragged_dot(rows, weight, group_sizes=sizes_E, transpose_rhs=transposed, **blocks)


def _backward(residuals: tuple[jax.Array, ...], grad_MxB: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    from jax.experimental.pallas.ops.gpu import transposed_ragged_dot_mgpu

    rows_MxA, weight_ExAxB, sizes_E = residuals
    grad_MxB, sizes_E = grad_MxB.astype(rows_MxA.dtype), _all_rows(sizes_E, rows_MxA)
    grad_rows = _product(grad_MxB, weight_ExAxB, sizes_E, transposed=True)
    blocks: dict[str, Any] = {**_BLOCKS, "grid_block_n": _beside(grad_MxB.shape[1])}
    grad_weight = transposed_ragged_dot_mgpu.transposed_ragged_dot(rows_MxA, grad_MxB, group_sizes=sizes_E, **blocks)
    return grad_rows, grad_weight.astype(weight_ExAxB.dtype), None


ragged_dot.defvjp(lambda rows, weight, sizes: (ragged_dot(rows, weight, sizes), (rows, weight, sizes)), _backward)


def _all_rows(sizes_E: jax.Array, rows_MxA: jax.Array) -> jax.Array:
    """Sizes with the rows of no expert given to the last: the kernels leave the results of others undefined."""
    return sizes_E.at[-1].add(rows_MxA.shape[0] - jnp.sum(sizes_E)).astype(jnp.int32)


def _beside(width: int) -> int:
    """Tiles of a row of tiles that are computed beside each other, so that their rows are read once."""
    return 4 if width % (4 * _TILE) == 0 else 1
