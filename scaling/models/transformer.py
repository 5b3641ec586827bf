"""A decoder-only Transformer whose MLPs are mixtures of experts.

Axes: B sequences, T new tokens, D width, V symbols.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from scaling.config import ModelConfig
from scaling.layers.attention import Attention, Cache
from scaling.layers.moe import MoE, Routing


@struct.dataclass
class Output:
    """Logits [B, T, V] float32, the routing of each MoE layer, and the caches when they were given."""

    logits_BxTxV: jax.Array
    routings: tuple[Routing, ...]
    caches: tuple[Cache, ...] | None


class Transformer(nn.Module):
    """Pre-norm blocks of causal attention and MoE over a residual stream: RMSNorm, rotary positions, untied head.

    The output at a position depends on that and earlier positions of its own sequence alone.
    """

    config: ModelConfig
    vocab_size: int

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array, caches: tuple[Cache, ...] | None = None, start: Any = 0) -> Output:
        config = self.config
        # Residual branches start at 1/(2 L) of the variance, so that the stream's does not grow with depth.
        out_scale = 1.0 / (2 * config.n_layers)
        embed = nn.Embed(self.vocab_size, config.d_model, embedding_init=nn.initializers.normal(1.0), name="embedding")
        x_BxTxD = embed(tokens_BxT)
        routings: list[Routing] = []
        new_caches: list[Cache] = []
        for layer in range(config.n_layers):
            attention = Attention(config.n_heads, out_scale, name=f"attention_{layer}")
            cache = caches[layer] if caches is not None else None
            mixed_BxTxD, cache = attention(_norm(f"attention_norm_{layer}")(x_BxTxD), cache, start)
            x_BxTxD = x_BxTxD + mixed_BxTxD
            if cache is not None:
                new_caches.append(cache)
            moe = MoE(
                config.n_experts,
                config.top_k,
                config.d_expert,
                config.router,
                config.dispatch,
                out_scale,
                name=f"moe_{layer}",
            )
            expert_BxTxD, routing = moe(_norm(f"moe_norm_{layer}")(x_BxTxD))
            x_BxTxD = x_BxTxD + expert_BxTxD
            if routing is not None:
                routings.append(routing)
        x_BxTxD = _norm("norm")(x_BxTxD)
        head = nn.Dense(self.vocab_size, use_bias=False, name="head", kernel_init=nn.initializers.normal(0.02))
        logits_BxTxV = head(x_BxTxD).astype(jnp.float32)
        return Output(logits_BxTxV, tuple(routings), tuple(new_caches) if caches is not None else None)


def apply(network: Transformer, params: Any, tokens_BxT: jax.Array, caches: Any = None, start: Any = 0) -> Output:
    """The network's output for given weights, `{"params": ...}`."""
    output: Output = network.apply(params, tokens_BxT, caches, start)  # type: ignore[assignment]
    return output


def _norm(name: str) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=1e-6, name=name)


def empty_caches(config: ModelConfig, batch: int, length: int) -> tuple[Cache, ...]:
    """Caches of all layers with room for `length` tokens."""
    shape = (batch, length, config.n_heads, config.d_head)
    return tuple(Cache(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(config.n_layers))
