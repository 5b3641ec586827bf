"""Dispatch: how tokens reach their experts and come back.

Rows are places in the padded layout of N blocks of R rows, each for one expert; A = T k assignments in token order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scaling.expert_rows import block_count, block_rows, capacity_rows
from scaling.model.moe.experts import ExpertForm, Weights
from scaling.model.moe.kernels import KERNELS
from scaling.model.moe.routing import Routing, weights_by_expert
from scaling.model.sharding import DATA, EXPERT, SINGLE_DEVICE, Placement


def dense(x_TxD: jax.Array, routing: Routing, form: ExpertForm, weights: Weights) -> jax.Array:
    """The reference: every expert computes every token, and the weights select. Costs E/k times the work."""
    weight_TxE = weights_by_expert(routing).astype(x_TxD.dtype)
    return jnp.einsum("te,etd->td", weight_TxE, jax.vmap(form, in_axes=(0, None))(weights, x_TxD))


def capacity(
    x_TxD: jax.Array,
    routing: Routing,
    form: ExpertForm,
    weights: Weights,
    factor: float,
    placement: Placement = SINGLE_DEVICE,
    places: int | None = None,
) -> jax.Array:
    """Each expert takes its first C = ceil(factor places T / E) tokens in text order and drops later ones.

    `places` per token: its k choices, or 1 for the cost of a top-1 router (arXiv 2105.15082). Experts are filled token
    by token (all k choices of a token before the next token), so that no token's place depends on a later one; filling
    by rank of the choice, as in GShard, would not be causal. A dropped choice adds nothing to the residual stream.

    C counts the tokens of all devices, and tokens of earlier devices come first, so that the result does not depend on
    the number of devices.
    """
    tokens, top_k = routing.chosen_TxK.shape
    n_experts = routing.gates_TxE.shape[-1]
    room = capacity_rows(tokens * placement.devices, places or top_k, n_experts, factor)
    rows = min(room, tokens)
    chosen_A = routing.chosen_TxK.reshape(-1)
    position_A, count_E = _positions(chosen_A, n_experts)
    free_A = room if placement.devices == 1 else (room - _on_devices_before(count_E))[chosen_A]
    row_A = jnp.where(position_A < free_A, chosen_A * rows + position_A, n_experts * rows)
    assignment_R = _inverse(row_A, n_experts * rows)
    x_ExRxD = _to_rows(x_TxD, assignment_R, row_A.reshape(tokens, top_k)).reshape(n_experts, rows, -1)
    out_RxD = jax.vmap(form)(weights, x_ExRxD).reshape(n_experts * rows, -1)
    return _combine(out_RxD, row_A, assignment_R, routing.weight_TxK)


def _on_devices_before(count_E: jax.Array) -> jax.Array:
    """Number of assignments of each expert on earlier devices, [E]."""
    count_NxE = jax.lax.all_gather(count_E, (DATA, EXPERT))
    before_N = jnp.arange(count_NxE.shape[0]) < jax.lax.axis_index((DATA, EXPERT))
    return jnp.sum(jnp.where(before_N[:, None], count_NxE, 0), axis=0)


def dropped(
    routing: Routing, factor: float, placement: Placement = SINGLE_DEVICE, places: int | None = None
) -> jax.Array:
    """Share of the assignments of all devices that `capacity` drops."""
    tokens, top_k = routing.chosen_TxK.shape
    tokens, n_experts = tokens * placement.devices, routing.gates_TxE.shape[-1]
    count_E = jnp.sum(routing.chosen_TxK.reshape(-1, 1) == jnp.arange(n_experts), axis=0)
    if placement.devices > 1:
        count_E = jax.lax.psum(count_E, (DATA, EXPERT))
    over_E = jnp.maximum(count_E - capacity_rows(tokens, places or top_k, n_experts, factor), 0)
    return jnp.sum(over_E) / (tokens * top_k)


def grouped(
    x_TxD: jax.Array,
    routing: Routing,
    form: ExpertForm,
    weights: Weights,
    kernel: str,
    placement: Placement = SINGLE_DEVICE,
    expected_columns: int | None = None,
) -> jax.Array:
    """Sort assignments by expert, pad each expert's share to whole blocks, compute the blocks, and restore the order.

    Dropless (after MegaBlocks, arXiv 2211.15841): E shares padded to whole blocks of R rows need at most
    (T k + E (R - 1)) / R blocks, so there are always enough. Unused columns of a token cost no block; R follows from
    `expected_columns`, the expected number of used ones (None for all).

    If experts are split over devices, each device gathers the tokens of its group, computes those of its own experts,
    and returns the sums to the devices of the tokens.
    """
    spread = placement.expert > 1
    chosen_TxK, weight_TxK = routing.chosen_TxK, routing.weight_TxK
    n_experts = routing.gates_TxE.shape[-1] // placement.expert
    rows = int(block_rows(chosen_TxK.shape[0], expected_columns or chosen_TxK.shape[1], n_experts))
    if spread:
        x_TxD, weight_TxK, chosen_TxK = _gather_group(x_TxD, weight_TxK, chosen_TxK)
        chosen_TxK = chosen_TxK - jax.lax.axis_index(EXPERT) * n_experts
        chosen_TxK = jnp.where((chosen_TxK >= 0) & (chosen_TxK < n_experts), chosen_TxK, n_experts)  # not held here
    tokens, top_k = chosen_TxK.shape
    row_A, assignment_R, expert_N, used = _blocks(chosen_TxK.reshape(-1), n_experts, rows)
    x_NxRxD = _to_rows(x_TxD, assignment_R, row_A.reshape(tokens, top_k)).reshape(-1, rows, x_TxD.shape[-1])
    out_RxD = KERNELS[kernel](form, weights, x_NxRxD, expert_N, used).reshape(-1, x_TxD.shape[-1])
    out_TxD = _combine(out_RxD, row_A, assignment_R, weight_TxK)
    return jax.lax.psum_scatter(out_TxD, EXPERT, tiled=True) if spread else out_TxD


def soft(x_TxD: jax.Array, routing: Routing, form: ExpertForm, weights: Weights) -> jax.Array:
    """Experts compute slots, each a mixture of all tokens of a sequence; each output is a mixture of all slots.

    The slots of all experts are one axis R of both mixtures, and one expert alone is no batch of experts: on a CPU the
    products are then up to twice as fast.
    """
    dispatch_GxTxExP = routing.slots.dispatch_GxTxExP.astype(x_TxD.dtype)
    combine_GxTxExP = routing.slots.combine_GxTxExP.astype(x_TxD.dtype)
    groups, length, n_experts, slots = dispatch_GxTxExP.shape
    dispatch_GxTxR, combine_GxTxR = (a.reshape(groups, length, -1) for a in (dispatch_GxTxExP, combine_GxTxExP))
    slot_GxRxD = jnp.einsum("gtr,gtd->grd", dispatch_GxTxR, x_TxD.reshape(groups, length, -1))
    if n_experts == 1:
        one = jax.tree.map(lambda w: w[0], weights)
        out_GxRxD = form(one, slot_GxRxD.reshape(groups * slots, -1)).reshape(groups, slots, -1)
    else:
        slot_ExGxPxD = slot_GxRxD.reshape(groups, n_experts, slots, -1).swapaxes(0, 1)
        out_ExSxD = jax.vmap(form)(weights, slot_ExGxPxD.reshape(n_experts, groups * slots, -1))
        out_GxRxD = (
            out_ExSxD.reshape(n_experts, groups, slots, -1).swapaxes(0, 1).reshape(groups, n_experts * slots, -1)
        )
    return jnp.einsum("gtr,grd->gtd", combine_GxTxR, out_GxRxD).reshape(x_TxD.shape)


@jax.custom_vjp
def _gather_group(x_TxD: jax.Array, weight_TxK: jax.Array, chosen_TxK: jax.Array) -> tuple[jax.Array, ...]:
    """The tokens of all devices of the group. With a float32 stream one exchange replaces three, because devices wait
    for the slowest one at every exchange and at its gradient."""
    small_Tx2K = jnp.concatenate([weight_TxK, chosen_TxK.astype(weight_TxK.dtype)], axis=1)
    x_TxD, small_Tx2K = _exchanged(partial(jax.lax.all_gather, axis_name=EXPERT, tiled=True), x_TxD, small_Tx2K)
    top_k = weight_TxK.shape[1]
    return x_TxD, small_Tx2K[:, :top_k], small_Tx2K[:, top_k:].astype(jnp.int32)


def _exchanged(
    exchange: Callable[[jax.Array], jax.Array], wide: jax.Array, narrow: jax.Array
) -> tuple[jax.Array, jax.Array]:
    if wide.dtype != narrow.dtype:
        return exchange(wide), exchange(narrow)
    both = exchange(jnp.concatenate([wide, narrow], axis=1))
    return both[:, : wide.shape[1]], both[:, wide.shape[1] :]


def _gather_backward(_: None, grads: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, None]:
    scatter = partial(jax.lax.psum_scatter, axis_name=EXPERT, tiled=True)
    return *_exchanged(scatter, grads[0], grads[1]), None


_gather_group.defvjp(lambda *inputs: (_gather_group(*inputs), None), _gather_backward)


def _positions(chosen_A: jax.Array, n_experts: int) -> tuple[jax.Array, jax.Array]:
    """The position of each assignment among those of its expert, [A], and the number of each expert, [E].

    An assignment to `n_experts`, which stands for no expert here, has position 0.
    """
    is_expert_AxE = (chosen_A[:, None] == jnp.arange(n_experts)).astype(jnp.int32)
    upto_AxE = jnp.cumsum(is_expert_AxE, axis=0)
    return jnp.sum((upto_AxE - 1) * is_expert_AxE, axis=1), upto_AxE[-1]


def _blocks(chosen_A: jax.Array, n_experts: int, rows: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Row of each assignment [A], assignment of each row [R], expert of each block [N], number of used blocks.

    Assignments without a row point one past the last row, and padding rows point one past the last assignment.
    """
    n_blocks = block_count(chosen_A.shape[0], n_experts, rows)
    position_A, count_E = _positions(chosen_A, n_experts)
    blocks_E = -(-count_E // rows)
    end_E = jnp.cumsum(blocks_E)
    start_A = jnp.concatenate([end_E - blocks_E, jnp.full(1, n_blocks)])[chosen_A] * rows
    row_A = start_A + position_A
    expert_N = jnp.minimum(jnp.searchsorted(end_E, jnp.arange(n_blocks), side="right"), n_experts - 1)
    return row_A, _inverse(row_A, n_blocks * rows), expert_N, end_E[-1]


def _inverse(row_A: jax.Array, n_rows: int) -> jax.Array:
    assignments = jnp.arange(row_A.shape[0], dtype=jnp.int32)
    return jnp.full(n_rows, row_A.shape[0], jnp.int32).at[row_A].set(assignments, mode="drop")


def _combine(out_RxD: jax.Array, row_A: jax.Array, assignment_R: jax.Array, weight_TxK: jax.Array) -> jax.Array:
    """The weighted sum of each token's rows, [T, D]; a choice without a row adds nothing."""
    has_row_TxK = (row_A < out_RxD.shape[0]).reshape(weight_TxK.shape)
    weight_TxK = jnp.where(has_row_TxK, weight_TxK, 0).astype(out_RxD.dtype)
    out_TxKxD = _from_rows(out_RxD, row_A, assignment_R).reshape(*weight_TxK.shape, -1)
    return jnp.sum(out_TxKxD * weight_TxK[:, :, None], axis=1)


# The two moves are transposes of each other up to padding, so gradients are gathers too. The gradient of a plain gather
# would be XLA's scatter-add, which is serial on CPU.


def _take(values_RxD: jax.Array, index: jax.Array) -> jax.Array:
    """Rows by index; zeros beyond the last row."""
    return jnp.take(values_RxD, index, axis=0, mode="fill", fill_value=0)


@jax.custom_vjp
def _to_rows(x_TxD: jax.Array, assignment_R: jax.Array, row_TxK: jax.Array) -> jax.Array:
    """Copy each token into the rows of its assignments; padding rows are zero."""
    return _take(x_TxD, assignment_R // row_TxK.shape[1])


def _to_rows_backward(row_TxK: jax.Array, grad_RxD: jax.Array) -> tuple[jax.Array, None, None]:
    return jnp.sum(_take(grad_RxD, row_TxK), axis=1), None, None


_to_rows.defvjp(lambda x, assignment, row: (_to_rows(x, assignment, row), row), _to_rows_backward)


@jax.custom_vjp
def _from_rows(out_RxD: jax.Array, row_A: jax.Array, assignment_R: jax.Array) -> jax.Array:
    """The row of each assignment, [A, D]."""
    return _take(out_RxD, row_A)


def _from_rows_backward(assignment_R: jax.Array, grad_AxD: jax.Array) -> tuple[jax.Array, None, None]:
    return _take(grad_AxD, assignment_R), None, None


_from_rows.defvjp(lambda out, row, assignment: (_from_rows(out, row, assignment), assignment), _from_rows_backward)
