"""Causal self-attention with rotary positions, over whole sequences or one token at a time against a cache.

Axes: B sequences, T new tokens, S tokens attended to, H heads, K width of a head, D = H K.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

ROTARY_BASE = 10_000.0
MASKED = -1e30


@struct.dataclass
class Cache:
    """Keys (rotated) and values of one layer, [B, S, H, K], filled up to a position that the caller keeps."""

    key_BxSxHxK: jax.Array
    value_BxSxHxK: jax.Array


def rotate(x_BxTxHxK: jax.Array, position_T: jax.Array) -> jax.Array:
    """Rotary position embedding (arXiv 2104.09864, eq. 34): pairs (i, i + K/2) turn by position / base^(2i/K).

    The product of two rotated vectors depends on the difference of their positions alone.
    """
    half = x_BxTxHxK.shape[-1] // 2
    frequency = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_TxK = position_T.astype(jnp.float32)[:, None] * frequency
    cos, sin = jnp.cos(angle_TxK)[None, :, None, :], jnp.sin(angle_TxK)[None, :, None, :]
    first, second = x_BxTxHxK[..., :half], x_BxTxHxK[..., half:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


class Attention(nn.Module):
    """Multi-head causal attention without biases.

    Without a cache: position t sees 0..t. With one: the T new tokens stand at `start .. start + T - 1`, are written into
    the cache and see all that stands at or before their own position.
    """

    n_heads: int
    out_scale: float

    @nn.compact
    def __call__(
        self, x_BxTxD: jax.Array, cache: Cache | None = None, start: Any = 0
    ) -> tuple[jax.Array, Cache | None]:
        width = x_BxTxD.shape[-1]
        batch, new, heads = x_BxTxD.shape[0], x_BxTxD.shape[1], self.n_heads
        shape = (batch, new, heads, width // heads)
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        weight_DxE = self.param("qkv", init, (width, 3 * width))
        out_DxD = self.param(
            "out", nn.initializers.variance_scaling(self.out_scale, "fan_in", "normal"), (width, width)
        )

        query, key, value = (part.reshape(shape) for part in jnp.split(x_BxTxD @ weight_DxE, 3, axis=-1))
        position_T = start + jnp.arange(new)
        query, key = rotate(query, position_T), rotate(key, position_T)
        if cache is not None:
            cache = Cache(
                jax.lax.dynamic_update_slice_in_dim(cache.key_BxSxHxK, key, start, axis=1),
                jax.lax.dynamic_update_slice_in_dim(cache.value_BxSxHxK, value, start, axis=1),
            )
            key, value = cache.key_BxSxHxK, cache.value_BxSxHxK
        seen_TxS = jnp.arange(key.shape[1])[None, :] <= position_T[:, None]
        score_BxHxTxS = jnp.einsum("bthk,bshk->bhts", query * shape[-1] ** -0.5, key)
        score_BxHxTxS = jnp.where(seen_TxS, score_BxHxTxS.astype(jnp.float32), MASKED)  # softmax in float32
        share_BxHxTxS = jax.nn.softmax(score_BxHxTxS, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bhts,bshk->bthk", share_BxHxTxS, value).reshape(batch, new, width)
        return mixed @ out_DxD, cache
