"""Causal self-attention with rotary positions, over whole sequences or one token at a time against a cache.

Two implementations give the same result up to rounding: `attend`, of plain products (XLA), which writes the scores of
all pairs of tokens to memory, and `fused`, one kernel of cuDNN that never writes them (FlashAttention, arXiv
2205.14135), where the device has it (`implementation`).

Axes: B sequences, T new tokens, S tokens attended to, H heads, G groups of heads, K width of a head, D width of the
model, A = H K that of all heads, which is D unless `d_head` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from scaling.model.matmul import product_of_sequences

ROTARY_BASE = 10_000.0
MASKED = -1e30

Implementation = Literal["xla", "cudnn"]
_HALVES = (jnp.bfloat16, jnp.float16)  # cuDNN has no fused attention in float32


@struct.dataclass
class Cache:
    """Rotated keys and values of one layer, [B, G, S, K]; the caller keeps track of the filled length."""

    key_BxGxSxK: jax.Array
    value_BxGxSxK: jax.Array


def rotary_tables(position_T: Any, width: int) -> tuple[jax.Array, jax.Array]:
    """Factors of an element and of its partner, cos and (-sin, sin), each [3, T, 1, 2, K/2].

    For query, key and value: the query is also scaled by 1/sqrt(K), and the value is not rotated. The tables are
    constants if the compiler knows the positions; otherwise XLA computes a cosine for each rotated element.
    """
    np_ = np if isinstance(position_T, np.ndarray) else jnp
    half = width // 2
    frequency = ROTARY_BASE ** (-np.arange(half, dtype=np.float32) / half)
    angle_TxK = position_T[:, None].astype(np.float32) * frequency
    cos, sin = np_.cos(angle_TxK), np_.sin(angle_TxK)
    cos_Tx2xK, sin_Tx2xK = np_.stack([cos, cos], axis=1), np_.stack([-sin, sin], axis=1)
    scale = width**-0.5
    own = np_.stack([cos_Tx2xK * scale, cos_Tx2xK, np_.ones_like(cos_Tx2xK)])
    partner = np_.stack([sin_Tx2xK * scale, sin_Tx2xK, np_.zeros_like(sin_Tx2xK)])
    return jnp.asarray(own)[:, :, None], jnp.asarray(partner)[:, :, None]


@jax.custom_vjp
def to_heads(x_BxTxNxD: jax.Array, own: jax.Array, partner: jax.Array) -> jax.Array:
    """Query, key and value of each head, or N of them, [N, B, H, T, K], scaled and rotated by `rotary_tables`.

    Rotary position embedding (arXiv 2104.09864, eq. 34): pairs (i, i + K/2) rotate by position / base^(2i/K), so that
    the product of two rotated vectors depends only on the difference of their positions. The gradient rotates back.
    The halves are an axis of length two that is flipped, because XLA:CPU concatenates slices element by element.
    """
    pairs = x_BxTxNxD.reshape(*x_BxTxNxD.shape[:3], -1, 2, own.shape[-1]).transpose(2, 0, 3, 1, 4, 5)
    turned = pairs * _by_head(own, pairs) + jnp.flip(pairs, -2) * _by_head(partner, pairs)
    return turned.reshape(*turned.shape[:-2], -1)


def _by_head(table: jax.Array, pairs: jax.Array) -> jax.Array:
    """[N, T, 1, 2, K/2] -> [N, 1, 1, T, 2, K/2] in the precision of the pairs."""
    return table.transpose(0, 2, 1, 3, 4)[:, None].astype(pairs.dtype)


def _to_heads_backward(tables: Any, grad_NxBxHxTxK: jax.Array) -> tuple[jax.Array, None, None]:
    own, partner = tables
    number, batch, heads, new, width = grad_NxBxHxTxK.shape
    pairs = grad_NxBxHxTxK.reshape(number, batch, heads, new, 2, width // 2)
    turned = pairs * _by_head(own, pairs) - jnp.flip(pairs, -2) * _by_head(partner, pairs)
    return turned.transpose(1, 3, 0, 2, 4, 5).reshape(batch, new, number, heads * width), None, None


to_heads.defvjp(lambda x, *tables: (to_heads(x, *tables), tables), _to_heads_backward)


@jax.custom_vjp
def attend(query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array) -> jax.Array:
    """softmax(q k^T) v over the `visible` positions; the caller scales q. Softmax in float32.

    query [B, H, T, K], key and value [B, H, S, K], visible [T, S] or [B, 1, T, S] with at least one position per row.
    The explicit backward pass, dS = P (dP - row sums of dO O), passes over [T, S] fewer times than differentiating the
    softmax, which at short contexts costs as much as the projections.
    """
    return _attend_forward(query, key, value, visible)[0]


def _attend_forward(query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array) -> tuple[jax.Array, Any]:
    score = jnp.einsum("bhtk,bhsk->bhts", query, key, preferred_element_type=jnp.float32)
    score = jnp.where(visible, score, MASKED)
    share = jnp.exp(score - jnp.max(score, axis=-1, keepdims=True)).astype(value.dtype)  # not yet normalised
    if _device_in_use().platform == "cpu":
        ones = jnp.ones_like(value[..., :1])  # multiplied by share, they give the sum over S, cheaper than a reduction
        value_and_1 = jnp.concatenate([value, ones], -1)
        mixed = jnp.einsum("bhts,bhsk->bhtk", share, value_and_1, preferred_element_type=jnp.float32)
        mixed, total = mixed[..., :-1], mixed[..., -1:]
    else:  # elsewhere the copy of the values, in decoding the whole cache, costs more than the reduction
        mixed = jnp.einsum("bhts,bhsk->bhtk", share, value, preferred_element_type=jnp.float32)
        total = jnp.sum(share, axis=-1, keepdims=True, dtype=jnp.float32)
    scale = 1.0 / total
    out = (mixed * scale).astype(value.dtype)
    return out, (query, key, value, share, scale, out)


def _attend_backward(residuals: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, share, scale, out = residuals
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


def fused(query: jax.Array, key: jax.Array, value: jax.Array, by: Implementation = "cudnn") -> jax.Array:
    """The same for position t attending to 0..t of as many keys, [B, H, T, K] and [B, G, T, K] -> [B, T, A].

    Heads of a group stand next to each other, as in `Attention`; the caller scales the query.
    """
    by_token = [x.transpose(0, 2, 1, 3) for x in (query, key, value)]
    mixed_BxTxHxK = jax.nn.dot_product_attention(*by_token, scale=1.0, is_causal=True, implementation=by)
    return mixed_BxTxHxK.reshape(*mixed_BxTxHxK.shape[:2], -1)


def implementation(dtype: Any, width: int) -> Implementation:
    """How attention over whole sequences is computed in this dtype with heads of this width, on the device in use.

    cuDNN's is taken where its own limits allow it (CUDA devices of compute capability 8.0, half precision, width a
    multiple of 8 up to 128, from 9.0 on up to 256) and a small program with its gradient compiles. Documents packed
    into a sequence and a token against a cache always take plain products: the first need a mask of all pairs, and for
    the second cuDNN's layout of keys and values would copy the whole cache at every token.
    """
    device = _device_in_use()
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; of AMD's devices a word
    if device.platform != "gpu" or jnp.dtype(dtype) not in map(jnp.dtype, _HALVES) or "." not in capability:
        return "xla"
    generation = int(capability.split(".")[0])
    fits = generation >= 8 and width % 8 == 0 and width <= (128 if generation < 9 else 256)
    return "cudnn" if fits and _compiles(jnp.dtype(dtype).name, width) else "xla"


def _device_in_use() -> jax.Device:
    """The device that a function traced now is for: that of `jax.default_device`, else the first."""
    chosen = getattr(jax.config, "jax_default_device", None)
    return chosen if isinstance(chosen, jax.Device) else jax.devices(chosen)[0]


@lru_cache(maxsize=32)
def _compiles(dtype: str, width: int) -> bool:
    """Whether cuDNN's attention and its gradient compile here: libraries report what they lack by errors of any type.

    In a thread of its own, because a model may be being traced in this one, for several devices.
    """
    shape = jax.ShapeDtypeStruct((1, 2, 128, width), dtype)

    def total(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.sum(fused(query, key, value).astype(jnp.float32))

    def compile_() -> None:
        jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()

    with ThreadPoolExecutor(1) as alone:
        return alone.submit(compile_).exception() is None


def split_heads(projected_BxTxC: jax.Array, n_heads: int, width: int, position_T: Any) -> tuple[jax.Array, ...]:
    """Query [B, H, T, K], key and value [B, G, T, K], from the three side by side, C = (H + 2 G) K."""
    own, partner = rotary_tables(position_T, width)
    sequences, of_query = projected_BxTxC.shape[:2], n_heads * width
    if projected_BxTxC.shape[-1] == 3 * of_query:  # as many keys as queries: all three at once
        return tuple(to_heads(projected_BxTxC.reshape(*sequences, 3, of_query), own, partner))
    query_BxTxA, rest_BxTxC = jnp.split(projected_BxTxC, [of_query], axis=-1)
    (query,) = to_heads(query_BxTxA[:, :, None], own[:1], partner[:1])
    key, value = to_heads(rest_BxTxC.reshape(*sequences, 2, -1), own[1:], partner[1:])
    return query, key, value


JOINED = "query_key_value"


def joined(params: Any) -> Any:
    """Weights with query, key and value of each layer side by side in one, as `Attention` multiplies with them.

    For calls that repeat with the same weights, which join them once, as a serving engine does when loading.
    """
    if not isinstance(params, Mapping):
        return params
    if {"query", "key", "value"} <= {*params}:
        rest = {name: leaf for name, leaf in params.items() if name not in ("query", "key", "value")}
        return rest | {JOINED: jnp.concatenate([params[name] for name in ("query", "key", "value")], axis=1)}
    return {name: joined(tree) for name, tree in params.items()}


class Attention(nn.Module):
    """Causal attention without biases: multi-head, or grouped-query with `n_kv_heads` below `n_heads`.

    In grouped-query attention (GQA, arXiv 2305.13245, section 2.2) the heads g H/G .. (g + 1) H/G - 1 share the keys
    and values of group g. Their queries are then more rows of one product with these keys, so that neither keys nor
    values are ever repeated.

    Without a cache, position t attends to 0..t. With one, the T new tokens have positions `start .. start + T - 1`, are
    written into the cache and attend to all positions up to their own. `document` [B, T] numbers the documents of a
    sequence, and a token attends only to its own document.
    """

    n_heads: int
    n_kv_heads: int
    out_scale: float
    d_head: int | None = None  # None: d_model / n_heads

    @nn.compact
    def __call__(
        self, x_BxTxD: jax.Array, cache: Cache | None = None, start: Any = 0, document_BxT: jax.Array | None = None
    ) -> tuple[jax.Array, Cache | None]:
        batch, new, width = x_BxTxD.shape
        heads, groups, of_head = self.n_heads, self.n_kv_heads, self.d_head or width // self.n_heads
        sizes = {"query": heads * of_head, "key": groups * of_head, "value": groups * of_head}
        into = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        out = nn.initializers.variance_scaling(self.out_scale, "fan_in", "normal")

        # One product for all three, because larger products run closer to the peak.
        if self.has_variable("params", JOINED):
            weights = [self.get_variable("params", JOINED)]
        else:
            weights = [self.param(name, into, (width, size)) for name, size in sizes.items()]
        weight_DxC = jnp.concatenate([weight.astype(x_BxTxD.dtype) for weight in weights], axis=1)
        position_T = start + (np.arange(new) if isinstance(start, int) else jnp.arange(new))
        query, key, value = split_heads(product_of_sequences(x_BxTxD, weight_DxC), heads, of_head, position_T)
        if cache is not None:
            cache = Cache(
                jax.lax.dynamic_update_slice_in_dim(cache.key_BxGxSxK, key, start, axis=2),
                jax.lax.dynamic_update_slice_in_dim(cache.value_BxGxSxK, value, start, axis=2),
            )
            key, value = cache.key_BxGxSxK, cache.value_BxGxSxK
        out_AxD = self.param("out", out, (heads * of_head, width)).astype(x_BxTxD.dtype)
        whole = new == key.shape[2] > 1 and document_BxT is None  # a cache of as many tokens was empty
        if whole and implementation(x_BxTxD.dtype, of_head) == "cudnn":
            return product_of_sequences(fused(query, key, value), out_AxD), cache
        visible = jnp.arange(key.shape[2])[None, :] <= position_T[:, None]
        if document_BxT is not None:
            visible = visible & (document_BxT[:, None, :, None] == document_BxT[:, None, None, :])
        # The queries of the heads of a group stand one after the other, as more tokens of the group.
        query_BxGxRxK = query.reshape(batch, groups, -1, of_head)
        visible_xRxS = jnp.concatenate([visible] * (heads // groups), axis=-2)
        mixed_BxHxTxK = attend(query_BxGxRxK, key, value, visible_xRxS).reshape(query.shape)
        mixed_BxTxA = mixed_BxHxTxK.transpose(0, 2, 1, 3).reshape(batch, new, heads * of_head)
        return product_of_sequences(mixed_BxTxA, out_AxD), cache
