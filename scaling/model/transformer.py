"""A decoder-only Transformer whose MLPs are mixtures of experts.

Axes: B sequences, T new tokens, D width, V symbols.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from scaling.config.model import ModelConfig
from scaling.model.attention import Attention, Cache
from scaling.model.matmul import product_of_sequences
from scaling.model.moe.layer import MoE
from scaling.model.moe.routers.token_choice import moved_bias
from scaling.model.moe.routing import Routing, Tokens, TrainingStep
from scaling.model.sharding import SINGLE_DEVICE, Placement


@struct.dataclass
class Output:
    """Logits [B, T, V] in float32, the routing of each MoE layer, and the caches if any were given."""

    logits_BxTxV: jax.Array
    routings: tuple[Routing, ...]
    caches: tuple[Cache, ...] | None


class Block(nn.Module):
    """Pre-norm causal attention, then experts, each added to the residual stream."""

    config: ModelConfig
    kernel: str
    placement: Placement

    @nn.compact
    def __call__(
        self, x_BxTxD: jax.Array, cache: Cache | None, start: Any, document_BxT: jax.Array | None, tokens: Tokens
    ) -> tuple[jax.Array, Cache | None, Routing | None]:
        # Residual branches start with 1/(2 L) of the variance, so that that of the stream does not grow with depth.
        out_scale = 1.0 / (2 * self.config.n_layers)
        of_heads = (self.config.n_heads, self.config.n_kv_heads, out_scale, self.config.d_head)
        attention = Attention(*of_heads, name="attention")
        mixed_BxTxD, cache = attention(_norm("attention_norm", x_BxTxD.dtype)(x_BxTxD), cache, start, document_BxT)
        x_BxTxD = x_BxTxD + mixed_BxTxD
        moe = MoE(self.config, out_scale, self.kernel, self.placement, name="moe")
        expert_BxTxD, routing = moe(_norm("moe_norm", x_BxTxD.dtype)(x_BxTxD), tokens)
        return x_BxTxD + expert_BxTxD, cache, routing


class Transformer(nn.Module):
    """Pre-norm blocks of causal attention and MoE over a residual stream: RMSNorm, rotary positions, a head of its own
    or tied to the embedding.

    The output at a position depends only on that and earlier positions of its sequence, and of its document if
    `documents` [B, T] numbers them. Weights are float32; the stream and the products have `config.dtype`.

    kernel: kernel of `grouped` dispatch (moe/kernels.py).   placement: the devices of `jax.shard_map`.
    remat: keep only the stream between blocks for the backward pass and recompute the rest.
    """

    config: ModelConfig
    vocab_size: int
    kernel: str = "loop"
    placement: Placement = SINGLE_DEVICE
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        tokens_BxT: jax.Array,
        caches: tuple[Cache, ...] | None = None,
        start: Any = 0,
        documents_BxT: jax.Array | None = None,
        training: TrainingStep | None = None,
    ) -> Output:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        # As one matrix it starts small, so that logits do, and is multiplied so that the stream starts at variance 1.
        tied = (config.d_model / config.width_ratio) ** -0.5 if config.tie_embeddings else 1.0
        embed = nn.Embed(
            self.vocab_size, config.d_model, embedding_init=nn.initializers.normal(tied), dtype=dtype, name="embedding"
        )
        x_BxTxD = embed(tokens_BxT)
        if config.tie_embeddings:
            x_BxTxD = x_BxTxD * jnp.asarray(1 / tied, dtype)
        batch, length = tokens_BxT.shape
        position_T = start + jnp.arange(length)
        block_class = nn.remat(Block) if self.remat else Block
        routings: list[Routing] = []
        new_caches: list[Cache] = []
        for layer in range(config.n_layers):
            block = block_class(config, self.kernel, self.placement, name=f"block_{layer}")
            cache = caches[layer] if caches is not None else None
            tokens = Tokens(tokens_BxT.reshape(-1), jnp.tile(position_T, batch), length, layer, training)
            x_BxTxD, cache, routing = block(x_BxTxD, cache, start, documents_BxT, tokens)
            if cache is not None:
                new_caches.append(cache)
            if routing is not None:
                routings.append(routing)
        x_BxTxD = _norm("norm", dtype)(x_BxTxD)
        if config.tie_embeddings:
            head_DxV = embed.embedding.T
        else:
            head_DxV = self.param("head", nn.initializers.normal(0.02), (config.d_model, self.vocab_size))
        logits_BxTxV = product_of_sequences(x_BxTxD, head_DxV.astype(dtype)).astype(jnp.float32)
        if config.width_ratio != 1:  # arXiv 2203.03466, table 8
            logits_BxTxV = logits_BxTxV / config.width_ratio
        return Output(logits_BxTxV, tuple(routings), tuple(new_caches) if caches is not None else None)


def apply(network: Transformer, params: Any, tokens_BxT: jax.Array, *inputs: Any, **named_inputs: Any) -> Output:
    """The output for weights `{"params": ...}` and, of balanced routers, `{"balance": ...}`, and these inputs."""
    output: Output = network.apply(params, tokens_BxT, *inputs, **named_inputs)  # type: ignore[assignment]
    return output


def rebalanced(model: ModelConfig, params: Any, assigned_LxE: jax.Array) -> Any:
    """The weights with the biases of loss-free balancing updated after a step with these loads."""
    if "balance" not in params:
        return params

    def update(path: Any, bias_E: jax.Array) -> jax.Array:
        return moved_bias(bias_E, assigned_LxE[int(path[0].key.removeprefix("block_"))], model.bias_rate)

    return {**params, "balance": jax.tree_util.tree_map_with_path(update, params["balance"])}


def _norm(name: str, dtype: Any) -> nn.RMSNorm:
    """RMSNorm with statistics in float32 for any dtype of the stream."""
    return nn.RMSNorm(epsilon=1e-6, dtype=dtype, name=name)


def empty_caches(config: ModelConfig, batch: int, length: int) -> tuple[Cache, ...]:
    """Empty caches of all layers with room for `length` tokens."""
    shape, dtype = (batch, config.n_kv_heads, length, config.d_head), jnp.dtype(config.dtype)
    return tuple(Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.n_layers))
