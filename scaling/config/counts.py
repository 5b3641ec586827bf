"""Counts of a model from its architecture: parameters by group, FLOPs of training and inference, bytes.

Conventions. A multiply-add is 2 FLOPs; only matrix products count (not norms, softmax, rotations or the padding of a
dispatch); embeddings are looked up at no cost; attention is causal, so a token attends to earlier tokens and itself;
the backward pass costs twice the forward pass. A matrix that is embedding and head counts as an embedding, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from scaling.architecture import Architecture, CountedExperts, Experts, HeadAttention, Layers, Mlp
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.expert_rows import capacity_rows
from scaling.serving.expert_load import distinct_experts

_KEPT = 8192  # models whose counts are kept: a plan asks for those of each some ten times


@dataclass(frozen=True)
class Parameters:
    """Parameters by group. `experts` counts all experts, `experts_active` those that one token passes through;
    `shared` counts what every token uses in addition: shared experts, factors, a frozen base."""

    embedding: int
    head: int
    norms: int
    attention: int
    shared: int
    experts: int
    experts_active: int
    expert_per_layer: int
    router: int

    @property
    def unembedding(self) -> int:
        """Weights that logits are products with: the head, or the embedding where it is both."""
        return self.head or self.embedding

    @property
    def n_active(self) -> int:
        return self.embedding + self.head + self.n_active_nonembed

    @property
    def n_total(self) -> int:
        return self.embedding + self.head + self.n_total_nonembed

    @property
    def n_active_nonembed(self) -> int:
        return self.norms + self.attention + self.shared + self.experts_active

    @property
    def n_total_nonembed(self) -> int:
        return self.norms + self.attention + self.shared + self.experts

    @property
    def n_dense_nonembed(self) -> int:
        """The dense backbone, one expert per layer: N in Clark's and Yun's laws; below n_active_nonembed if k > 1."""
        return self.norms + self.attention + self.shared + self.expert_per_layer

    @property
    def allocated(self) -> int:
        """Every trained parameter of the initialised tree, including routers."""
        return self.n_total + self.router


@lru_cache(_KEPT)
def architecture_of(model: ModelConfig, vocab_size: int) -> Architecture:
    """The architecture of a model, from which everything here follows.

    At E = 1 its layers have a single MLP of width `dense_width` and no router. Experts that are no MLPs, and routers
    that are no matrix, are told by their parameters (`scaling/config/registry.py`). k is what the router chooses, on
    average where it decides; factorised experts enter every product, so all are active.
    """
    groups = (Layers(model.n_layers, attention_of(model), _mlp_of(model)),)
    return Architecture("a cell of a grid", model.d_model, vocab_size, groups, tied=model.tie_embeddings)


def attention_of(model: ModelConfig) -> HeadAttention:
    """The attention of each layer."""
    return HeadAttention(model.n_heads, model.n_kv_heads, model.d_head)


def _mlp_of(model: ModelConfig) -> Mlp | Experts:
    if model.n_experts == 1:
        return Mlp(model.dense_width)
    kind, router = model.experts_kind, model.router_facts.parameters(model)
    top_k = model.n_experts if kind.all_active else model.router_facts.experts_per_token(model)
    if kind.sizes is None:
        return Experts(model.n_experts, top_k, model.d_expert, model.shared_width, router_parameters=router)
    shared, expert = kind.sizes(model)
    return CountedExperts(
        model.n_experts, top_k, expert_parameters=expert, shared_parameters=shared, router_parameters=router
    )


@lru_cache(_KEPT)
def parameters(model: ModelConfig, vocab_size: int, experts_per_token: float | None = None) -> Parameters:
    """Count the parameters of a model by its architecture.

    `experts_per_token`: the measured number, where the router decides it; None for the expected one.
    """
    described = architecture_of(model, vocab_size)
    counts = {part: round(float(count)) for part, count in described.parameters().items()}
    fixed = {name: counts[name] for name in ("embedding", "head", "norms", "attention", "shared", "router")}
    if model.n_experts == 1:
        mlp = counts["dense"]
        return Parameters(**fixed, experts=mlp, experts_active=mlp, expert_per_layer=mlp)
    expert = counts["experts"] // model.n_experts
    return Parameters(
        **fixed,
        experts=counts["experts"],
        experts_active=round(_active(model, float(described.top_k), experts_per_token) * expert),
        expert_per_layer=expert,
    )


def _active(model: ModelConfig, expected: float, experts_per_token: float | None) -> float:
    """Experts whose parameters one token uses, where the architecture expects so many."""
    if experts_per_token is not None and not model.experts_kind.all_active:
        expected = experts_per_token
    if model.dispatch == "capacity":  # the capacity limits the experts per token
        return min(expected, model.capacity_factor * places_per_token(model))
    return expected


def forward_flops_by_group(
    model: ModelConfig, vocab_size: int, attended: float, experts_per_token: float | None = None
) -> dict[str, float]:
    """Forward FLOPs by group of one token that attends to `attended` tokens, including itself.

    `shared`: shared experts, factors or a frozen base.   `router`: scores, and for soft MoE the mixing of tokens into
    slots and back, 4 E p d.
    """
    described, counts = architecture_of(model, vocab_size), parameters(model, vocab_size, experts_per_token)
    routed = model.n_experts > 1
    mixing = 4.0 * model.n_experts * model.slots * model.d_model if routed and model.dispatch == "soft" else 0.0
    products = model.experts_kind.products(model) if routed else 0
    return {
        "head": 2.0 * counts.unembedding,
        "projections": 2.0 * counts.attention,
        "attention": float(described.attention_flops(attended, decode=True)),
        "shared": 2.0 * (counts.shared + products * model.n_layers),
        "experts": 2.0 * counts.experts_active,
        "router": 2.0 * counts.router + mixing * model.n_layers,
    }


def prefill_flops_per_token(
    model: ModelConfig, vocab_size: int, context: int, experts_per_token: float | None = None
) -> float:
    """Forward FLOPs per token of a prompt of `context` tokens: causal, so the mean token attends to (context + 1)/2."""
    return sum(prefill_flops_by_group(model, vocab_size, context, experts_per_token).values())


def prefill_flops_by_group(
    model: ModelConfig, vocab_size: int, context: int, experts_per_token: float | None = None
) -> dict[str, float]:
    """The same by group. Soft MoE computes E p slots for a prompt of any length: E p / context experts per token."""
    if model.n_experts > 1 and model.dispatch == "soft":
        experts_per_token = model.n_experts * model.slots / context
    return forward_flops_by_group(model, vocab_size, (context + 1) / 2, experts_per_token)


def decode_flops_per_token(
    model: ModelConfig, vocab_size: int, context: int, experts_per_token: float | None = None
) -> float:
    """Forward FLOPs of one new token when the cache holds `context` tokens, including the new one."""
    return sum(forward_flops_by_group(model, vocab_size, context, experts_per_token).values())


def train_flops(config: RunConfig, experts_per_token: float | None = None) -> float:
    """FLOPs of all training steps: 3 x forward over the achieved tokens, including causal attention and routers.

    `experts_per_token`: the mean measured over the training, where the router decides it; None for the mean expected
    from its schedule. With a frozen base (LoRA experts), a step before freezing costs 3 forward passes of the base. A
    step after it costs 2 forward passes of the base, whose weights need no gradient, and 3 of routers, experts and
    attention, which multiplies no weights. This counts the method; our program also computes gradients it discards.
    """
    model, vocab, seq_len = config.model, config.data.vocab_size, config.train.seq_len
    tokens = config.steps * config.train.batch_tokens
    if model.n_experts > 1 and experts_per_token is None and model.router_facts.training_experts_per_token:
        experts_per_token = model.router_facts.training_experts_per_token(model, tokens)
    by_group = prefill_flops_by_group(model, vocab, seq_len, experts_per_token)
    if model.n_experts == 1 or not model.experts_kind.frozen_base:
        return 3.0 * sum(by_group.values()) * tokens
    added = by_group["experts"] + by_group["router"]
    base, attention = sum(by_group.values()) - added, by_group["attention"]
    first = config.dense_steps * config.train.batch_tokens
    return 3.0 * base * first + (2.0 * (base - attention) + 3.0 * (attention + added)) * (tokens - first)


def value_bytes(model: ModelConfig) -> int:
    """Bytes of one weight or cached value when the model is served, in the dtype of its products."""
    return {"float32": 4, "bfloat16": 2}[model.dtype]


def weight_bytes(model: ModelConfig, vocab_size: int) -> int:
    """Resident bytes of the weights when served: all experts and routers, whether activated or not."""
    return parameters(model, vocab_size).allocated * value_bytes(model)


def kv_bytes_per_token(model: ModelConfig) -> int:
    """Bytes of keys and values of one cached token: 2 n_layers n_kv_heads d_head values."""
    return round(float(model.n_layers * attention_of(model).cached_elements)) * value_bytes(model)


def bytes_read(
    model: ModelConfig, vocab_size: int, *, batch: int, new_tokens: int, context: int, experts: float | None = None
) -> float:
    """Minimum bytes that one inference call reads: weights of the activated experts, and the cache.

    `experts`: experts activated per layer (mean over layers); None for the number expected under uniform routing.
    `new_tokens` per sequence (the prompt in a prefill, 1 in a decode step) attend to a cache of `context` tokens. Only
    the embedding rows of the new tokens are read.
    """
    counts = parameters(model, vocab_size)
    tokens = batch * new_tokens
    if experts is None:
        per_token = min(_active(model, float(architecture_of(model, vocab_size).top_k), None), model.n_experts)
        experts = float(distinct_experts(model.n_experts, per_token, tokens))
    share = 1.0 if model.n_experts == 1 or model.experts_kind.all_active else experts / model.n_experts
    embedding = 0 if model.tie_embeddings else min(counts.embedding, tokens * model.d_model)
    always = counts.unembedding + counts.norms + counts.attention + counts.router + counts.shared
    weights = always + counts.experts * share + embedding
    return value_bytes(model) * weights + batch * context * kv_bytes_per_token(model)


def capacity_factor(config: RunConfig) -> float | None:
    """The capacity factor that a training step achieves after rounding, C E / (k T); None if nothing is dropped."""
    model, tokens = config.model, config.train.batch_tokens // config.train.accumulate
    if model.n_experts == 1 or model.dispatch != "capacity":
        return None
    rows = capacity_rows(tokens, places_per_token(model), model.n_experts, model.capacity_factor)
    return rows * model.n_experts / (model.top_k * tokens)


def places_per_token(model: ModelConfig) -> int:
    """k in the capacity: `top_k` for "kx", 1 for "1x", which costs as much as a top-1 router (arXiv 2105.15082)."""
    return model.top_k if model.capacity_per == "kx" else 1
