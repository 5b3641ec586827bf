"""What the tests of routers and experts share: models, weights, tokens, routers with given logits, experts as loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config.model import ModelConfig
from scaling.config.registry import EXPERTS, ROUTERS
from scaling.model.moe.layer import MoE
from scaling.model.moe.routing import Tokens, TrainingStep, assignments, metrics
from scaling.model.transformer import Transformer

VOCAB = 50

# Sums of some hundred products of numbers of size 1, each rounded to 2^-24 of its size: a few parts in a million.
F32 = {"rtol": 1e-5, "atol": 1e-5}
# A value that is a handful of float32 operations away: some units in the last place, 2^-24.
ULPS = {"rtol": 1e-6, "atol": 1e-7}


def model(router="topk", experts="mlp", **changes):
    """A tiny model with this router and these experts, what they refuse as a language model included."""
    facts = ROUTERS[router]
    tiny = {"d_model": 16, "d_head": 8, "n_layers": 1, "n_experts": 4, "top_k": 1 if facts.without_k else 2}
    tiny |= {"d_expert": 8, "rank": 6, "leak_study": not facts.causal, "slots": 3}
    if "anneal_tokens" in facts.options:  # so that the first steps of a test are within the anneal
        tiny |= {"dense_tokens": 0, "anneal_tokens": 1000}
    return ModelConfig(router=router, experts=experts, **tiny | changes)


def refused(router, experts):
    """Whether the two do not go together: experts without weights or outputs of their own cannot be copied or
    filled."""
    return router in ("dense-to-sparse", "soft") and EXPERTS[experts].mixes


PAIRS = [(router, experts) for router in ROUTERS for experts in EXPERTS if not refused(router, experts)]
CAUSAL = [(router, experts) for router, experts in PAIRS if ROUTERS[router].causal]


def tokens(length, sequences=1, training=None, layer=0, seed=0):
    """What a router is told of `sequences` sequences of random tokens."""
    id_T = jnp.asarray(np.random.default_rng(seed).integers(0, VOCAB, sequences * length), jnp.int32)
    return Tokens(id_T, jnp.tile(jnp.arange(length), sequences), length, layer, training)


def training(step=0, sequences=1, batch_tokens=1, seed=0):
    """A training step."""
    return TrainingStep(jnp.int32(step), jax.random.key(seed), jnp.arange(sequences), batch_tokens)


def filled(shapes, seed=0):
    """Weights for a tree of shapes, none of them zero: adapters and gates that start at zero would hide what they
    do."""
    rng = np.random.default_rng(seed)

    def weight(leaf):
        fan_in = leaf.shape[-2] if leaf.ndim > 1 else 1
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return jax.tree.map(weight, shapes)


@functools.cache
def network(config, seed=0):
    """A Transformer and weights for it."""
    net = Transformer(config, VOCAB)
    return net, filled(jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32)), seed)


def layer(config, x, known, seed=0):
    """An MoE layer and weights for it."""
    moe = MoE(config, 1.0)
    return moe, filled(jax.eval_shape(moe.init, jax.random.key(0), x, known), seed)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def router(config):
    """(weights, tokens [T, D], what is known of them) -> the routing, as one program."""
    return jax.jit(config.router_facts.load()(config).apply)


def routed(config, logits, known=None, name="weight", **state):
    """The routing of given logits: the router reads them as its tokens, through the identity matrix."""
    logits = jnp.asarray(logits, jnp.float32)
    params = {"params": {name: jnp.eye(config.n_experts)}, **state}
    return router(config)(params, logits, tokens(len(logits)) if known is None else known)


measured = jax.jit(lambda routing: metrics(routing, assignments(routing)))
"""The metrics of a routing."""


def softmax(z, axis=-1):
    z = np.asarray(z, np.float64)
    p = np.exp(z - z.max(axis=axis, keepdims=True))
    return p / p.sum(axis=axis, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def gated_mlp(weights, x):
    """(silu(x A) * (x B)) W in float64."""
    weights, x = double(weights), np.asarray(x, np.float64)
    gate = x @ weights["gate"]
    return (gate * sigmoid(gate) * (x @ weights["up"])) @ weights["down"]


def expert(experts, e):
    """The weights of one expert."""
    return jax.tree.map(lambda leaf: leaf[e], experts)


def mixture(experts, weight_TxE, x):
    """sum_e w[t, e] F_e(x[t]) in float64, expert by expert, each on the tokens that it weighs."""
    x, weight_TxE = np.asarray(x, np.float64), np.asarray(weight_TxE, np.float64)
    out = np.zeros_like(x)
    for e in range(weight_TxE.shape[1]):
        mine = weight_TxE[:, e] != 0
        out[mine] += weight_TxE[mine, e, None] * gated_mlp(expert(experts, e), x[mine])
    return out


def chosen_sets(routing):
    """The set of experts of each token."""
    n_experts = routing.gates_TxE.shape[-1]
    return [{int(e) for e in row if e < n_experts} for row in np.asarray(routing.chosen_TxK)]
