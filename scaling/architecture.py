"""The architecture of a decoder: what decides its parameters, bytes, cache and FLOPs.

A model is a stack of groups of equal layers, each an attention and an MLP, between an embedding and a head. Every count
may be a number or an array, so that a family of models of continuous size is described like one model. Conventions:
a multiply-add is 2 FLOPs; only matrix products count; embeddings are looked up at no cost; biases and the scales of
normalised queries and keys are left out (below .1 % of any public model).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaling.arrays import Values
from scaling.errors import InputError

Part = Literal["embedding", "head", "norms", "attention", "dense", "shared", "experts", "router"]
PARTS: tuple[Part, ...] = ("embedding", "head", "norms", "attention", "dense", "shared", "experts", "router")


@dataclass(frozen=True, eq=False)
class HeadAttention:
    """Attention with keys and values of its own for each of `n_kv_heads` groups of heads.

    Multi-head where `n_kv_heads` is `n_heads`, grouped-query below (arXiv 2305.13245). With a `window` a token attends
    to the last `window` tokens alone, and only they stay in the cache. `gated`: the output is multiplied by a gate of
    the width of the heads (one more matrix).
    """

    n_heads: Values
    n_kv_heads: Values
    head_dim: Values
    window: int | None = None
    gated: bool = False

    def parameters(self, d_model: Values) -> Values:
        """Of one layer: queries, keys, values and output."""
        return d_model * self.head_dim * ((3.0 if self.gated else 2.0) * self.n_heads + 2.0 * self.n_kv_heads)

    @property
    def cached_elements(self) -> Values:
        """Of one layer and cached token: 2 n_kv_heads head_dim."""
        return 2.0 * self.n_kv_heads * self.head_dim

    @property
    def state_elements(self) -> Values:
        """Of one layer and sequence, whatever its length."""
        return 0.0

    def attended(self, context: Values) -> Values:
        """Cached tokens that a token attends to."""
        return context if self.window is None else np.minimum(context, self.window)

    def flops_per_pair(self, *, decode: bool) -> Values:
        """Of one layer, token and attended token: 4 n_heads head_dim (scores, then values)."""
        return 4.0 * self.n_heads * self.head_dim

    @property
    def most_splits(self) -> Values:
        """Devices over which tensor parallelism divides the cache at most: it copies a head rather than split it."""
        return self.n_kv_heads


@dataclass(frozen=True, eq=False)
class LatentAttention:
    """Multi-head latent attention (MLA, arXiv 2405.04434, section 2.1): one compressed vector a token, for all heads.

    Keys and values come of `kv_lora_rank` latent elements and `qk_rope_head_dim` rotated ones, which all heads share
    and which are all that is cached. Queries come of `q_lora_rank` latent elements, or directly where it is 0.
    """

    n_heads: Values
    q_lora_rank: Values
    kv_lora_rank: Values
    qk_nope_head_dim: Values
    qk_rope_head_dim: Values
    v_head_dim: Values

    def parameters(self, d_model: Values) -> Values:
        """Of one layer: down- and up-projections of queries, of keys and values, and the output."""
        query = self.n_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        queries = np.where(
            np.asarray(self.q_lora_rank) > 0, self.q_lora_rank * (d_model + query), d_model * query
        )  # fmt: skip
        down = d_model * (self.kv_lora_rank + self.qk_rope_head_dim)
        up = self.kv_lora_rank * self.n_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return (queries + down + up + self.n_heads * self.v_head_dim * d_model)[()]

    @property
    def cached_elements(self) -> Values:
        """Of one layer and cached token: kv_lora_rank + qk_rope_head_dim."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def state_elements(self) -> Values:
        """Of one layer and sequence, whatever its length."""
        return 0.0

    def attended(self, context: Values) -> Values:
        """Cached tokens that a token attends to."""
        return context

    def flops_per_pair(self, *, decode: bool) -> Values:
        """Of one layer, token and attended token.

        In decode heads work on the latent vector itself, 2 n_heads (2 kv_lora_rank + qk_rope_head_dim); in prefill on
        keys and values made of it, 2 n_heads (qk_nope_head_dim + qk_rope_head_dim + v_head_dim).
        """
        absorbed = 2.0 * self.kv_lora_rank + self.qk_rope_head_dim
        made = self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim
        return 2.0 * self.n_heads * (absorbed if decode else made)

    @property
    def most_splits(self) -> Values:
        """The latent vector serves all heads, so tensor parallelism copies it to every device."""
        return 1.0


@dataclass(frozen=True, eq=False)
class LinearAttention:
    """Linear attention or a recurrence: a state of fixed size, and no cache that grows with the context.

    `layer_parameters` and `layer_state` are elements of one layer; the state of a sequence is read and written by every
    token.
    """

    layer_parameters: Values
    layer_state: Values

    def parameters(self, d_model: Values) -> Values:
        """Of one layer."""
        return self.layer_parameters

    @property
    def cached_elements(self) -> Values:
        """Of one layer and cached token."""
        return 0.0

    @property
    def state_elements(self) -> Values:
        """Of one layer and sequence, whatever its length."""
        return self.layer_state

    def attended(self, context: Values) -> Values:
        """Cached tokens that a token attends to."""
        return 0.0 * np.asarray(context)

    def flops_per_pair(self, *, decode: bool) -> Values:
        """Of one layer, token and attended token."""
        return 0.0

    @property
    def most_splits(self) -> Values:
        """Its heads are independent."""
        return np.inf


Attention = HeadAttention | LatentAttention | LinearAttention


@dataclass(frozen=True, eq=False)
class Mlp:
    """An MLP of hidden `width`; gated (three matrices) as in SwiGLU, or not (two)."""

    width: Values
    gated: bool = True

    def parameters(self, d_model: Values) -> Values:
        """Of one layer."""
        return (3.0 if self.gated else 2.0) * d_model * self.width


@dataclass(frozen=True, eq=False)
class Experts:
    """Routed experts: `top_k` of `n_experts` MLPs of one width for each token, and shared experts for all tokens.

    `shared_width` is the hidden width of the shared experts together. `router_parameters` of one layer; None: a matrix,
    d_model x E.
    """

    n_experts: int
    top_k: Values
    width: Values
    shared_width: Values = 0.0
    gated: bool = True
    router_parameters: Values | None = None

    def __post_init__(self) -> None:
        if self.n_experts < 1 or np.any(np.asarray(self.top_k) < 1) or np.any(np.asarray(self.top_k) > self.n_experts):
            raise InputError(f"`top_k` = {self.top_k} of `n_experts` = {self.n_experts}; allowed: 1 <= k <= E")

    def expert(self, d_model: Values) -> Values:
        """Parameters of one expert of one layer."""
        return (3.0 if self.gated else 2.0) * d_model * self.width

    def shared(self, d_model: Values) -> Values:
        """Parameters of the shared experts of one layer."""
        return (3.0 if self.gated else 2.0) * d_model * self.shared_width

    def router(self, d_model: Values) -> Values:
        """Parameters of the router of one layer."""
        return d_model * self.n_experts if self.router_parameters is None else self.router_parameters


@dataclass(frozen=True, eq=False)
class CountedExperts(Experts):
    """Experts that are no MLPs, such as factors or adapters, told by their parameters in one layer.

    A token passes through `top_k` experts of `expert_parameters` each, and through the `shared_parameters`. Hidden
    units have no meaning for them: `width` is 0.
    """

    width: Values = 0.0
    expert_parameters: Values = 0.0
    shared_parameters: Values = 0.0

    def expert(self, d_model: Values) -> Values:
        """Parameters of one expert of one layer."""
        return self.expert_parameters

    def shared(self, d_model: Values) -> Values:
        """Parameters of one layer that every token uses."""
        return self.shared_parameters


@dataclass(frozen=True, eq=False)
class Layers:
    """`count` equal layers: an attention and an MLP, or experts in its place."""

    count: Values
    attention: Attention
    mlp: Mlp | Experts


@dataclass(frozen=True, eq=False)
class Architecture:
    """A decoder of width `d_model`: groups of equal layers between an embedding and a head of `vocab_size` rows.

    `tied`: embedding and head share one matrix. `name` says which model or family it is, `source` where it was read,
    `notes` what was assumed.
    """

    name: str
    d_model: Values
    vocab_size: Values
    groups: tuple[Layers, ...]
    tied: bool = False
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def n_layers(self) -> Values:
        return sum(group.count for group in self.groups)

    @property
    def n_routed_layers(self) -> Values:
        """Layers with routed experts."""
        return sum((group.count for group in self.routed), 0.0)

    @property
    def routed(self) -> tuple[Layers, ...]:
        """The groups with routed experts."""
        return tuple(group for group in self.groups if isinstance(group.mlp, Experts))

    @property
    def n_experts(self) -> int:
        """E of the routed layers; 1 of a dense model."""
        return max((group.mlp.n_experts for group in self.groups if isinstance(group.mlp, Experts)), default=1)

    @property
    def top_k(self) -> Values:
        """k of the routed layers; 1 of a dense model."""
        return next((group.mlp.top_k for group in self.groups if isinstance(group.mlp, Experts)), 1)

    def parameters(self) -> dict[Part, Values]:
        """Parameters by part. `experts` counts all; a tied head counts nothing more."""
        d = self.d_model
        counts: dict[Part, Values] = dict.fromkeys(PARTS, 0.0)
        counts["embedding"] = d * self.vocab_size
        counts["head"] = 0.0 * counts["embedding"] if self.tied else d * self.vocab_size
        counts["norms"] = (2.0 * self.n_layers + 1.0) * d
        for group in self.groups:
            counts["attention"] = counts["attention"] + group.count * group.attention.parameters(d)
            if isinstance(group.mlp, Experts):
                experts = group.mlp
                counts["shared"] = counts["shared"] + group.count * experts.shared(d)
                counts["experts"] = counts["experts"] + group.count * experts.n_experts * experts.expert(d)
                counts["router"] = counts["router"] + group.count * experts.router(d)
            else:
                counts["dense"] = counts["dense"] + group.count * group.mlp.parameters(d)
        return counts

    @property
    def experts_active(self) -> Values:
        """Parameters of the experts that one token passes through: k of E in every routed layer."""
        return sum(
            (group.count * group.mlp.top_k * group.mlp.expert(self.d_model) for group in self.groups
             if isinstance(group.mlp, Experts)),
            0.0,
        )  # fmt: skip

    @property
    def n_total(self) -> Values:
        """Every parameter, routers too: what public model cards count."""
        return sum(self.parameters().values())

    def n_active(self, *, embedding: bool = True, head: bool = True) -> Values:
        """Parameters that one token uses, routers too. Model cards differ in what they count of embedding and head.

        A tied matrix is the head.
        """
        counts = self.parameters()
        outside = ("embedding", "head", "experts")
        inside = sum(count for part, count in counts.items() if part not in outside) + self.experts_active
        read = counts["embedding"] if self.tied else counts["head"]
        return inside + (read if head else 0.0) + (counts["embedding"] if embedding and not self.tied else 0.0)

    def cache_elements(self, context: Values) -> Values:
        """Elements that one sequence of `context` tokens keeps in the cache over all layers, states of linear attention
        too."""
        return sum(
            group.count
            * (group.attention.cached_elements * group.attention.attended(context) + group.attention.state_elements)
            for group in self.groups
        )

    @property
    def cache_elements_per_token(self) -> Values:
        """Elements that one more cached token adds over all layers while no window is full."""
        return sum(group.count * group.attention.cached_elements for group in self.groups)

    def attention_flops(self, context: Values, *, decode: bool) -> Values:
        """FLOPs of attention of one token over all layers.

        In decode it attends to `context` cached tokens. In prefill `context` is the length of the prompt, and a token
        attends to half of it on average, or to its window.
        """
        return sum(
            group.count
            * group.attention.flops_per_pair(decode=decode)
            * (group.attention.attended(context) if decode else _mean_attended(group.attention, context))
            for group in self.groups
        )


def attended_pairs(tokens: Values, window: int | None) -> Values:
    """Pairs of a token and one that it attends to, over a sequence: t^2/2, or w t - w^2/2 with a window w below t."""
    within = tokens if window is None else np.minimum(tokens, window)
    return within * tokens - within * within / 2.0


def _mean_attended(attention: Attention, prompt: Values) -> Values:
    """Tokens that a token of a prompt attends to, on average; 0 without a prompt."""
    tokens = np.asarray(prompt, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(tokens > 0, attended_pairs(tokens, getattr(attention, "window", None)) / tokens, 0.0)[()]
