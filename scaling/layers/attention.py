"""Causal self-attention with rotary positions, over whole sequences or one token at a time against a cache.

Axes: B sequences, T new tokens, S tokens attended to, H heads, K width of a head, D = H K.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from scaling.layers.products import product_of_sequences

ROTARY_BASE = 10_000.0
MASKED = -1e30


@struct.dataclass
class Cache:
    """Keys (rotated) and values of one layer, [B, H, S, K], filled up to a position that the caller keeps."""

    key_BxHxSxK: jax.Array
    value_BxHxSxK: jax.Array


@jax.custom_vjp
def rotate(x_BxHxTxK: jax.Array, position_T: jax.Array) -> jax.Array:
    """Rotary position embedding (arXiv 2104.09864, eq. 34): pairs (i, i + K/2) turn by position / base^(2i/K).

    The product of two rotated vectors depends on the difference of their positions alone. The gradient turns back.
    """
    return _turn(x_BxHxTxK, position_T.astype(jnp.float32))


def _turn(x_BxHxTxK: jax.Array, position_T: jax.Array) -> jax.Array:
    half = x_BxHxTxK.shape[-1] // 2
    frequency = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_TxK = position_T[:, None] * frequency
    cos, sin = jnp.cos(angle_TxK).astype(x_BxHxTxK.dtype), jnp.sin(angle_TxK).astype(x_BxHxTxK.dtype)
    first, second = x_BxHxTxK[..., :half], x_BxHxTxK[..., half:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def _rotate_forward(x_BxHxTxK: jax.Array, position_T: jax.Array) -> tuple[jax.Array, jax.Array]:
    return rotate(x_BxHxTxK, position_T), position_T


def _rotate_backward(position_T: jax.Array, grad_BxHxTxK: jax.Array) -> tuple[jax.Array, None]:
    return _turn(grad_BxHxTxK, -position_T.astype(jnp.float32)), None


rotate.defvjp(_rotate_forward, _rotate_backward)


@jax.custom_vjp
def attend(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array) -> jax.Array:
    """softmax(q k^T) v over the places that are `seen`; the caller scales q. Softmax in float32.

    query [B, H, T, K], key and value [B, H, S, K], seen [T, S] or [B, 1, T, S]; at least one place of each row is seen.
    The backward pass is the usual one written out (dS = P (dP - row sums of dO O)): fewer sweeps over [T, S] than
    differentiating the softmax, which at short contexts costs as much as the projections.
    """
    return _attend_forward(query, key, value, seen)[0]


def _attend_forward(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array) -> tuple[jax.Array, Any]:
    score = jnp.einsum("bhtk,bhsk->bhts", query, key, preferred_element_type=jnp.float32)
    score = jnp.where(seen, score, MASKED)
    share = jnp.exp(score - jnp.max(score, axis=-1, keepdims=True)).astype(value.dtype)  # not yet divided by its sum
    ones = jnp.ones_like(value[..., :1])  # their product is the sum over S: cheaper than a reduction on CPU
    mixed = jnp.einsum("bhts,bhsk->bhtk", share, jnp.concatenate([value, ones], -1), preferred_element_type=jnp.float32)
    scale = 1.0 / mixed[..., -1:]
    out = (mixed[..., :-1] * scale).astype(value.dtype)
    return out, (query, key, value, share, scale, out)


def _attend_backward(kept: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, share, scale, out = kept
    scaled = grad.astype(jnp.float32) * scale
    both = jnp.sum(scaled * out, axis=-1, keepdims=True)
    scaled = scaled.astype(value.dtype)
    grad_share = jnp.einsum("bhtk,bhsk->bhts", scaled, value, preferred_element_type=jnp.float32)
    grad_score = (share * (grad_share - both)).astype(query.dtype)
    return (
        jnp.einsum("bhts,bhsk->bhtk", grad_score, key),
        jnp.einsum("bhts,bhtk->bhsk", grad_score, query),
        jnp.einsum("bhts,bhtk->bhsk", share, scaled),
        None,
    )


attend.defvjp(_attend_forward, _attend_backward)


class Attention(nn.Module):
    """Multi-head causal attention without biases.

    Without a cache: position t sees 0..t. With one: the T new tokens stand at `start .. start + T - 1`, are written into
    the cache and see all that stands at or before their own position. `document` [B, T] numbers the documents of a
    sequence: a token sees its own alone.
    """

    n_heads: int
    out_scale: float

    @nn.compact
    def __call__(
        self, x_BxTxD: jax.Array, cache: Cache | None = None, start: Any = 0, document_BxT: jax.Array | None = None
    ) -> tuple[jax.Array, Cache | None]:
        width = x_BxTxD.shape[-1]
        batch, new, heads = x_BxTxD.shape[0], x_BxTxD.shape[1], self.n_heads
        into = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        out = nn.initializers.variance_scaling(self.out_scale, "fan_in", "normal")

        def projected(name: str) -> jax.Array:
            weight_DxD = self.param(name, into, (width, width)).astype(x_BxTxD.dtype)
            heads_BxTxHxK = product_of_sequences(x_BxTxD, weight_DxD).reshape(batch, new, heads, width // heads)
            return heads_BxTxHxK.transpose(0, 2, 1, 3)

        query, key, value = projected("query"), projected("key"), projected("value")
        position_T = start + jnp.arange(new)
        query, key = rotate(query * query.shape[-1] ** -0.5, position_T), rotate(key, position_T)
        if cache is not None:
            cache = Cache(
                jax.lax.dynamic_update_slice_in_dim(cache.key_BxHxSxK, key, start, axis=2),
                jax.lax.dynamic_update_slice_in_dim(cache.value_BxHxSxK, value, start, axis=2),
            )
            key, value = cache.key_BxHxSxK, cache.value_BxHxSxK
        seen = jnp.arange(key.shape[2])[None, :] <= position_T[:, None]
        if document_BxT is not None:
            seen = seen & (document_BxT[:, None, :, None] == document_BxT[:, None, None, :])
        mixed_BxHxTxK = attend(query, key, value, seen)
        mixed_BxTxD = mixed_BxHxTxK.transpose(0, 2, 1, 3).reshape(batch, new, width)
        out_DxD = self.param("out", out, (width, width)).astype(x_BxTxD.dtype)
        return product_of_sequences(mixed_BxTxD, out_DxD), cache
