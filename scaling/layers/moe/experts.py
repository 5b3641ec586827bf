"""Experts: what one is, computed for all tokens at once or for blocks of rows that belong to one expert each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


def gated_mlp(x_RxD: jax.Array, up_DxG: jax.Array, down_FxD: jax.Array) -> jax.Array:
    """SwiGLU, (silu(x A) * (x B)) W with A and B side by side in `up` (G = 2 F): arXiv 2002.05202, eq. 6."""
    gate_RxF, value_RxF = jnp.split(x_RxD @ up_DxG, 2, axis=-1)
    return (jax.nn.silu(gate_RxF) * value_RxF) @ down_FxD


class MLPExperts(nn.Module):
    """E gated MLPs of width F. Weights up [E, D, 2F] and down [E, F, D], no biases."""

    n_experts: int
    width: int
    out_scale: float

    @nn.compact
    def __call__(self, x: jax.Array, expert_N: jax.Array | None = None) -> jax.Array:
        """x [T, D] -> [E, T, D], every expert on every token; or blocks x [N, R, D] of expert_N -> [N, R, D]."""
        n_experts, width, features = self.n_experts, self.width, x.shape[-1]
        up_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        down_init = nn.initializers.variance_scaling(self.out_scale, "fan_in", "normal", batch_axis=(0,))
        up_ExDxG = self.param("up", up_init, (n_experts, features, 2 * width))
        down_ExFxD = self.param("down", down_init, (n_experts, width, features))
        if expert_N is None:
            return jax.vmap(gated_mlp, in_axes=(None, 0, 0))(x, up_ExDxG, down_ExFxD)
        return jax.vmap(gated_mlp)(x, _per_block(up_ExDxG, expert_N), _per_block(down_ExFxD, expert_N))


@jax.custom_vjp
def _per_block(weight_ExAxB: jax.Array, expert_N: jax.Array) -> jax.Array:
    """The weights of each block's expert, [N, A, B]. Its transpose sums by a product with the 0/1 matrix of the choice:
    XLA's scatter-add, which the plain gather would use, is serial on CPU."""
    return weight_ExAxB[expert_N]


def _per_block_forward(weight_ExAxB: jax.Array, expert_N: jax.Array) -> tuple[jax.Array, tuple[jax.Array, int]]:
    return _per_block(weight_ExAxB, expert_N), (expert_N, weight_ExAxB.shape[0])


def _per_block_backward(kept: tuple[jax.Array, int], grad_NxAxB: jax.Array) -> tuple[jax.Array, None]:
    expert_N, n_experts = kept
    is_expert_ExN = (jnp.arange(n_experts)[:, None] == expert_N).astype(grad_NxAxB.dtype)
    return jnp.einsum("en,nab->eab", is_expert_ExN, grad_NxAxB), None


_per_block.defvjp(_per_block_forward, _per_block_backward)
