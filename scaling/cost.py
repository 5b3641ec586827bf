"""What a model costs by its structure: parameters by group, FLOPs of training and inference, bytes.

Conventions. A multiply-add is 2 FLOPs; only matrix products count (norms, softmax and rotations do not, nor does the
padding of a dispatch); an embedding is a look-up and costs none; attention is causal, so a token attends to those before
it and to itself; the backward pass costs twice the forward pass. Embeddings and head are not tied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scaling.config import ModelConfig, RunConfig
from scaling.serving import distinct_experts


@dataclass(frozen=True)
class Parameters:
    """Parameters by group. `experts` counts all experts, `experts_active` the ones that one token passes through."""

    embedding: int
    head: int
    norms: int
    attention: int
    experts: int
    experts_active: int
    expert_per_layer: int
    router: int

    @property
    def n_active(self) -> int:
        return self.embedding + self.head + self.n_active_nonembed

    @property
    def n_total(self) -> int:
        return self.embedding + self.head + self.n_total_nonembed

    @property
    def n_active_nonembed(self) -> int:
        return self.norms + self.attention + self.experts_active

    @property
    def n_total_nonembed(self) -> int:
        return self.norms + self.attention + self.experts

    @property
    def n_dense_nonembed(self) -> int:
        """The dense backbone: one expert per layer. It is Clark's and Yun's N; for k > 1 it is below n_active_nonembed."""
        return self.norms + self.attention + self.expert_per_layer

    @property
    def allocated(self) -> int:
        """Every parameter of the initialised tree, routers in."""
        return self.n_total + self.router


def parameters(model: ModelConfig, vocab_size: int) -> Parameters:
    """Count the parameters of a model: V d + d V + (2 L + 1) d + 4 L d^2 + 3 L E d f + L d E of routers.

    At E = 1 the single MLP has width `top_k * d_expert` and there is no router.
    """
    d, layers = model.d_model, model.n_layers
    one = 3 * d * model.d_expert * layers
    dense = model.n_experts == 1
    active = model.top_k * one
    return Parameters(
        embedding=vocab_size * d,
        head=d * vocab_size,
        norms=(2 * layers + 1) * d,
        attention=4 * d * d * layers,
        experts=active if dense else model.n_experts * one,
        experts_active=active,
        expert_per_layer=active if dense else one,
        router=0 if dense else model.n_experts * d * layers,
    )


def forward_flops_by_group(model: ModelConfig, vocab_size: int, attended: float) -> dict[str, float]:
    """Forward FLOPs of one token that attends to `attended` tokens, itself among them, by group."""
    counts = parameters(model, vocab_size)
    return {
        "head": 2.0 * counts.head,
        "projections": 2.0 * counts.attention,
        "attention": 4.0 * model.n_layers * model.d_model * attended,
        "experts": 2.0 * counts.experts_active,
        "router": 2.0 * counts.router,
    }


def prefill_flops_per_token(model: ModelConfig, vocab_size: int, context: int) -> float:
    """Forward FLOPs per token of a prompt of `context` tokens: causal, so a token attends to (context + 1)/2 on average."""
    return sum(forward_flops_by_group(model, vocab_size, (context + 1) / 2).values())


def decode_flops_per_token(model: ModelConfig, vocab_size: int, context: int) -> float:
    """Forward FLOPs of one new token when the cache holds `context` tokens, the new one among them."""
    return sum(forward_flops_by_group(model, vocab_size, context).values())


def train_flops(config: RunConfig) -> float:
    """FLOPs of all training steps, forward and backward (3 x forward), causal attention and router in; achieved tokens."""
    forward = prefill_flops_per_token(config.model, config.data.vocab_size, config.train.seq_len)
    return 3.0 * forward * config.steps * config.train.batch_tokens


def value_bytes(model: ModelConfig) -> int:
    """Bytes of one weight or cached value when the model is served: its products' dtype."""
    return {"float32": 4, "bfloat16": 2}[model.dtype]


def weight_bytes(model: ModelConfig, vocab_size: int) -> int:
    """Resident bytes of the weights when served: every expert and the routers are held, whichever are used."""
    return parameters(model, vocab_size).allocated * value_bytes(model)


def kv_bytes_per_token(model: ModelConfig) -> int:
    """Bytes of keys and values of one cached token: 2 n_layers d_model values (all heads have their own)."""
    return 2 * model.n_layers * model.d_model * value_bytes(model)


def bytes_read(
    model: ModelConfig, vocab_size: int, *, batch: int, new_tokens: int, context: int, experts: float | None = None
) -> float:
    """Bytes that one inference call must read at least: weights of the experts touched, and the cache.

    `experts` of a layer were touched (mean over layers); None takes what uniform routing is expected to touch.

    `new_tokens` per sequence enter (the prompt in a prefill, 1 in a decode step) and attend to a cache of `context`
    tokens. Of the embedding only the rows of the new tokens are read.
    """
    counts = parameters(model, vocab_size)
    tokens = batch * new_tokens
    touched = distinct_experts(model.n_experts, model.top_k, tokens) if experts is None else experts
    share = float(touched) / model.n_experts
    embedding = min(counts.embedding, tokens * model.d_model)
    weights = counts.head + counts.norms + counts.attention + counts.router + counts.experts * share + embedding
    return value_bytes(model) * weights + batch * context * kv_bytes_per_token(model)


def capacity_rows(tokens: int, top_k: int, n_experts: int, factor: float) -> int:
    """Tokens that an expert takes at most, C = ceil(factor k T / E): Switch Transformer, arXiv 2101.03961, eq. 3."""
    return min(tokens, math.ceil(factor * top_k * tokens / n_experts - 1e-9))


def capacity_factor(config: RunConfig) -> float | None:
    """What rounding makes of the capacity factor in a training step, C E / (k T); None where nothing is dropped."""
    model, tokens = config.model, config.train.batch_tokens // config.train.accumulate
    if model.n_experts == 1 or model.dispatch != "capacity":
        return None
    rows = capacity_rows(tokens, model.top_k, model.n_experts, model.capacity_factor)
    return rows * model.n_experts / (model.top_k * tokens)


def training_memory_bytes(config: RunConfig) -> float:
    """Estimated peak bytes of training in float32: weights, gradients, two moments, and what backward keeps.

    Kept per token and layer: about 12 d of norms, projections and residuals, the softmax (2 H S), and per chosen expert
    its input, two hidden branches and their product with the padding of the dispatch (factor 1.5); once: three times the logits.
    """
    model, train = config.model, config.train
    counts = parameters(model, config.data.vocab_size)
    per_layer = 12.0 * model.d_model + 2 * model.n_heads * train.seq_len
    per_layer += 1.5 * model.top_k * (2 * model.d_model + 4 * model.d_expert)
    per_token = model.n_layers * per_layer + 3 * config.data.vocab_size
    return 4.0 * (4 * counts.allocated + train.batch_tokens * per_token)
