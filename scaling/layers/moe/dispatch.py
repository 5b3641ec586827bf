"""Dispatch: how tokens reach their experts and come back. Both forms drop nothing and agree to rounding.

Rows below are places in the padded layout: R of them, in N blocks of one expert each.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from scaling.layers.moe.routing import Routing

Experts = Callable[..., jax.Array]
MAX_BLOCK = 128


def dense(x_TxD: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """The reference: every expert computes every token and the weights pick. Costs E/k times the work."""
    n_experts = routing.gates_TxE.shape[-1]
    chosen_TxKxE = routing.chosen_TxK[:, :, None] == jnp.arange(n_experts)
    weight_TxE = jnp.sum(jnp.where(chosen_TxKxE, routing.weight_TxK[:, :, None], 0), axis=1).astype(x_TxD.dtype)
    return jnp.einsum("te,etd->td", weight_TxE, experts(x_TxD))


def block_rows(tokens: int, top_k: int, n_experts: int) -> int:
    """Rows of a block: about a third of the mean load, between 1 and MAX_BLOCK, a power of two.

    Small blocks waste few rows on padding (half a block per expert on average), large ones gather each expert's weights
    less often.
    """
    mean_load = tokens * top_k / n_experts
    rows = 1
    while rows * 2 <= min(MAX_BLOCK, mean_load / 2):
        rows *= 2
    return rows


def grouped(x_TxD: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Sort assignments by expert, pad each expert's share to whole blocks, compute the blocks, put the results back.

    Dropless (after MegaBlocks, arXiv 2211.15841): there are always enough blocks, since E shares padded to whole blocks
    of R rows need at most (T k + E (R - 1)) / R of them.
    """
    tokens, top_k = routing.chosen_TxK.shape
    n_experts = routing.gates_TxE.shape[-1]
    rows = block_rows(tokens, top_k, n_experts)
    row_A, assignment_R, expert_N = _layout(routing.chosen_TxK, n_experts, rows)
    blocks_NxRxD = _to_rows(x_TxD, assignment_R, row_A.reshape(tokens, top_k)).reshape(-1, rows, x_TxD.shape[-1])
    out_RxD = experts(blocks_NxRxD, expert_N).reshape(-1, x_TxD.shape[-1])
    out_AxD = _from_rows(out_RxD, row_A, assignment_R)
    weight_TxKx1 = routing.weight_TxK[:, :, None].astype(x_TxD.dtype)
    return jnp.sum(out_AxD.reshape(tokens, top_k, -1) * weight_TxKx1, axis=1)


def _layout(chosen_TxK: jax.Array, n_experts: int, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Row of each assignment [T k], assignment of each row [R] (T k where it is padding), expert of each block [N]."""
    chosen_A = chosen_TxK.reshape(-1)
    assignments = chosen_A.shape[0]
    n_blocks = (assignments + n_experts * (rows - 1)) // rows
    is_expert_AxE = (chosen_A[:, None] == jnp.arange(n_experts)).astype(jnp.int32)
    before_AxE = jnp.cumsum(is_expert_AxE, axis=0)
    blocks_E = -(-before_AxE[-1] // rows)
    end_E = jnp.cumsum(blocks_E)
    start_A = (end_E - blocks_E)[chosen_A] * rows
    row_A = start_A + jnp.take_along_axis(before_AxE, chosen_A[:, None], axis=1)[:, 0] - 1
    assignment_R = (
        jnp.full(n_blocks * rows, assignments, jnp.int32).at[row_A].set(jnp.arange(assignments, dtype=jnp.int32))
    )
    expert_N = jnp.minimum(jnp.searchsorted(end_E, jnp.arange(n_blocks), side="right"), n_experts - 1)
    return row_A, assignment_R, expert_N


# The two moves are each other's transpose up to padding, so both directions of both are gathers: XLA's scatter-add, which
# the gradient of a plain gather would be, is serial on CPU.


@jax.custom_vjp
def _to_rows(x_TxD: jax.Array, assignment_R: jax.Array, row_TxK: jax.Array) -> jax.Array:
    """Copy each token into the rows of its assignments; padding rows are zero."""
    top_k = row_TxK.shape[1]
    padded = jnp.concatenate([x_TxD, jnp.zeros_like(x_TxD[:1])])
    return padded[assignment_R // top_k]


def _to_rows_forward(x_TxD: jax.Array, assignment_R: jax.Array, row_TxK: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _to_rows(x_TxD, assignment_R, row_TxK), row_TxK


def _to_rows_backward(row_TxK: jax.Array, grad_RxD: jax.Array) -> tuple[jax.Array, None, None]:
    return jnp.sum(grad_RxD[row_TxK], axis=1), None, None


_to_rows.defvjp(_to_rows_forward, _to_rows_backward)


@jax.custom_vjp
def _from_rows(out_RxD: jax.Array, row_A: jax.Array, assignment_R: jax.Array) -> jax.Array:
    """The row of each assignment, [T k, D]."""
    return out_RxD[row_A]


def _from_rows_forward(out_RxD: jax.Array, row_A: jax.Array, assignment_R: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _from_rows(out_RxD, row_A, assignment_R), assignment_R


def _from_rows_backward(assignment_R: jax.Array, grad_AxD: jax.Array) -> tuple[jax.Array, None, None]:
    return jnp.concatenate([grad_AxD, jnp.zeros_like(grad_AxD[:1])])[assignment_R], None, None


_from_rows.defvjp(_from_rows_forward, _from_rows_backward)

DISPATCHES: dict[str, Callable[[jax.Array, Routing, Experts], jax.Array]] = {"dense": dense, "grouped": grouped}
