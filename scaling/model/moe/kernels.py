"""Kernels that apply experts to rows sorted by expert, in padded blocks of one expert each.

All give the same result up to rounding. Axes: N blocks of R rows, D width, E experts held by this device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scaling.model.matmul import product
from scaling.model.moe import hopper
from scaling.model.moe.experts import ExpertForm, Weights

Kernel = Callable[[ExpertForm, Weights, jax.Array, jax.Array, jax.Array], jax.Array]
"""(form, weights of all experts, blocks [N, R, D], expert of each block [N], number of used blocks) -> [N, R, D]."""

_at = partial(jax.lax.dynamic_index_in_dim, keepdims=False)
_put = partial(jax.lax.dynamic_update_index_in_dim, axis=0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def loop(form: ExpertForm, weights: Weights, x_NxRxD: jax.Array, expert_N: jax.Array, used: jax.Array) -> jax.Array:
    """One used block after another, so that the cost follows the tokens for any E and any skew.

    The fastest kernel on CPU, where a block's rows and its expert's weights stay in the cache. Unused blocks are zero.
    """
    return _loop_forward(form, weights, x_NxRxD, expert_N, used)[0]


def _loop_forward(
    form: ExpertForm, weights: Weights, x_NxRxD: jax.Array, expert_N: jax.Array, used: jax.Array
) -> tuple[jax.Array, Any]:
    def expert(block: jax.Array) -> Weights:
        return jax.tree.map(lambda w: _at(w, expert_N[block]), weights)

    def compute(block: jax.Array, outputs: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        out, hidden = outputs
        inner = form.inner(expert(block), _at(x_NxRxD, block), product)
        hidden = jax.tree.map(lambda all_, own: _put(all_, own, index=block), hidden, inner)
        return _put(out, form.outer(expert(block), inner, product), index=block), hidden

    first_expert, first_block = jax.tree.map(lambda w: w[0], weights), x_NxRxD[0]
    shapes = jax.eval_shape(lambda w, x: form.inner(w, x, product), first_expert, first_block)
    hidden = jax.tree.map(lambda s: jnp.zeros((x_NxRxD.shape[0], *s.shape), s.dtype), shapes)
    out, hidden = jax.lax.fori_loop(0, used, compute, (jnp.zeros_like(x_NxRxD), hidden))
    return out, (weights, x_NxRxD, expert_N, used, hidden)


def _loop_backward(form: ExpertForm, residuals: Any, grad_NxRxD: jax.Array) -> tuple[Any, jax.Array, None, None]:
    weights, x_NxRxD, expert_N, used, hidden = residuals

    def add(block: jax.Array, sums: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        grad_weights, grad_x = sums
        index = expert_N[block]
        own = jax.tree.map(lambda w: _at(w, index), weights)
        inner = jax.tree.map(lambda h: _at(h, block), hidden)
        _, outer_vjp = jax.vjp(lambda w, h: form.outer(w, h, product), own, inner)
        from_outer, grad_inner = outer_vjp(_at(grad_NxRxD, block))
        _, inner_vjp = jax.vjp(lambda w, x: form.inner(w, x, product), own, _at(x_NxRxD, block))
        from_inner, grad_block = inner_vjp(grad_inner)
        grad_weights = jax.tree.map(
            lambda total, a, b: _put(total, _at(total, index) + a + b, index=index),
            grad_weights,
            from_outer,
            from_inner,
        )
        return grad_weights, _put(grad_x, grad_block, index=block)

    # Sums over blocks are float32 for weights of any dtype.
    start = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), weights)
    grad_weights, grad_x = jax.lax.fori_loop(0, used, add, (start, jnp.zeros_like(x_NxRxD)))
    grad_weights = jax.tree.map(lambda g, w: g.astype(w.dtype), grad_weights, weights)
    return grad_weights, grad_x, None, None


loop.defvjp(_loop_forward, _loop_backward)


def batched(form: ExpertForm, weights: Weights, x_NxRxD: jax.Array, expert_N: jax.Array, used: jax.Array) -> jax.Array:
    """All blocks at once, each with a copy of its expert's weights: one batched product, which suits GPUs."""
    return jax.vmap(form)(jax.tree.map(lambda w: _copies(w, expert_N), weights), x_NxRxD)


@jax.custom_vjp
def _copies(weight_ExAxB: jax.Array, expert_N: jax.Array) -> jax.Array:
    """The weights of each block's expert, [N, A, B]. The gradient is a product with the 0/1 matrix of choices, because
    XLA's scatter-add, the gradient of a plain gather, is serial on CPU."""
    return weight_ExAxB[expert_N]


def _copies_backward(residuals: tuple[jax.Array, int], grad_NxAxB: jax.Array) -> tuple[jax.Array, None]:
    expert_N, n_experts = residuals
    is_expert_ExN = (jnp.arange(n_experts)[:, None] == expert_N).astype(grad_NxAxB.dtype)
    return jnp.einsum("en,nab->eab", is_expert_ExN, grad_NxAxB), None


_copies.defvjp(lambda weight, expert: (_copies(weight, expert), (expert, weight.shape[0])), _copies_backward)


def _ragged(product: Callable[..., jax.Array]) -> Kernel:
    """A kernel of one grouped matrix product (rows [M, D], weights [E, D, F], rows of each expert [E]) -> [M, F]."""

    def kernel(
        form: ExpertForm, weights: Weights, x_NxRxD: jax.Array, expert_N: jax.Array, used: jax.Array
    ) -> jax.Array:
        n_experts = jax.tree.leaves(weights)[0].shape[0]
        in_use_N = jnp.arange(expert_N.shape[0]) < used
        blocks_E = jnp.sum((expert_N[:, None] == jnp.arange(n_experts)) & in_use_N[:, None], axis=0, dtype=jnp.int32)
        sizes_E = blocks_E * x_NxRxD.shape[1]
        rows = x_NxRxD.reshape(-1, x_NxRxD.shape[-1])
        return form(weights, rows, lambda x, weight: product(x, weight, sizes_E)).reshape(x_NxRxD.shape)

    return kernel


def tokamax_library() -> Any:
    """The module tokamax (extra `gpu`), with its flags at their defaults: at its first call it would otherwise read the
    command line of this program, and fail at options that it does not know."""
    import tokamax
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return tokamax


def _tokamax(rows: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
    """Grouped product of the tokamax library: Triton and Mosaic kernels for recent GPUs."""
    return tokamax_library().ragged_dot(rows, weights, sizes)


KERNELS: dict[str, Kernel] = {
    "loop": loop,
    "batched": batched,
    "ragged": _ragged(jax.lax.ragged_dot),
    "hopper": _ragged(hopper.ragged_dot),
    "tokamax": _ragged(_tokamax),
}
