"""Soft MoE: every slot of an expert is a mixture of all tokens. Not causal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens


@struct.dataclass
class Slots:
    """Mixing weights for G sequences of T tokens and P slots per expert.

    dispatch_GxTxExP: share of each token in a slot, summing to 1 over tokens.
    combine_GxTxExP: share of each slot in a token's output, summing to 1 over slots.
    """

    dispatch_GxTxExP: jax.Array
    combine_GxTxExP: jax.Array


class Soft(nn.Module):
    """Soft MoE, arXiv 2308.00951, section 2.1: L[t, e, s] = x[t] . Phi[:, e, s]; D = softmax of L over the tokens of a
    sequence, M = softmax over all slots; slot[e, s] = sum_t D x[t], y[t] = sum_{e, s} M F_e(slot[e, s]).

    `normalise_slots`: x and Phi are l2-normalised along the width, and a learned scale multiplies Phi (section 2.3 of
    the paper). `slots` per expert and sequence default to k T / E. At fixed E p the cost of experts does not depend on
    E. Nothing is dropped or balanced. Every output depends on every token of the sequence: not causal, refused for
    language models without `leak_study`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        n_experts, slots, width = self.config.n_experts, self.config.slots, x_TxD.shape[-1]
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(1, 2))
        phi_DxExP = self.param("phi", init, (width, n_experts, slots)).astype(jnp.float32)
        x_GxTxD = x_TxD.astype(jnp.float32).reshape(-1, tokens.length, width)
        if self.config.normalise_slots:
            scale = self.param("scale", nn.initializers.ones_init(), ())
            x_GxTxD = x_GxTxD * jax.lax.rsqrt(jnp.sum(x_GxTxD**2, axis=-1, keepdims=True) + 1e-12)
            phi_DxExP = scale * phi_DxExP * jax.lax.rsqrt(jnp.sum(phi_DxExP**2, axis=0, keepdims=True) + 1e-12)
        logits_GxTxExP = jnp.einsum("gtd,dep->gtep", x_GxTxD, phi_DxExP)
        dispatch_GxTxExP = jax.nn.softmax(logits_GxTxExP, axis=1)
        combine_GxTxExP = jax.nn.softmax(logits_GxTxExP, axis=(2, 3))
        gates_TxE = jnp.sum(combine_GxTxExP, axis=3).reshape(-1, n_experts)
        every_TxE = jnp.broadcast_to(jnp.arange(n_experts), gates_TxE.shape)
        return Routing(every_TxE, gates_TxE, gates_TxE, slots=Slots(dispatch_GxTxExP, combine_GxTxExP))
