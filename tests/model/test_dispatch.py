"""Dispatches compared with the dense one and with plain loops, for common and extreme loads."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_cases import tokens as known

from scaling.config.model import ModelConfig
from scaling.expert_rows import capacity_rows
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP, ExpertForm
from scaling.model.moe.layer import MoE
from scaling.model.moe.routing import Routing
from scaling.model.sharding import SINGLE_DEVICE
from scaling.model.transformer import Block

D, F = 6, 5
KERNELS = ["loop", "batched", "ragged", "tokamax"]
HAVE = [kernel for kernel in KERNELS if kernel != "tokamax" or importlib.util.find_spec("tokamax")]


def loads(tokens, top_k, n_experts, seed=0):
    """Choices [T, k] of several loads by name; a token never chooses an expert twice."""
    rng = np.random.default_rng(seed)
    any_order = np.argsort(rng.random((tokens, n_experts)), axis=1)[:, :top_k]
    weighted = np.argsort(rng.random((tokens, n_experts)) - 2.0 * (np.arange(n_experts) < top_k), axis=1)[:, :top_k]
    return {
        "random": any_order,
        "skewed": np.where(rng.random((tokens, 1)) < 0.8, weighted, any_order),
        "all on the first": np.broadcast_to(np.arange(top_k), (tokens, top_k)),
        "all on the last": n_experts - 1 - np.broadcast_to(np.arange(top_k), (tokens, top_k)),
        "in turn": (np.arange(tokens)[:, None] + np.arange(top_k)) % n_experts,
    }


def routing_of(chosen, n_experts, weight=None):
    chosen = jnp.asarray(chosen, jnp.int32)
    flat = jnp.full((chosen.shape[0], n_experts), 1 / n_experts)
    return Routing(chosen, jnp.ones(chosen.shape) if weight is None else weight, flat, jnp.log(flat))


def problem(tokens, top_k, n_experts, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    x, weight = jax.random.normal(keys[0], (tokens, D)), jax.random.uniform(keys[1], (tokens, top_k))
    shapes = {"gate": (n_experts, D, F), "up": (n_experts, D, F), "down": (n_experts, F, D)}
    experts = {name: jax.random.normal(key, shapes[name]) for name, key in zip(shapes, keys[2:], strict=True)}
    return x, weight, experts


def by_hand(x, chosen, weight, experts):
    """Token by token in float64."""
    x, weight, experts = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (x, weight, experts))
    out = np.zeros_like(x)
    for t in range(len(x)):
        for e, w in zip(chosen[t], weight[t], strict=True):
            gate, up = x[t] @ experts["gate"][e], x[t] @ experts["up"][e]
            out[t] += w * ((gate / (1 + np.exp(-gate)) * up) @ experts["down"][e])
    return out


WAYS = {
    "dense": dispatch.dense,
    **{
        kernel: lambda x, routing, form, weights, kernel=kernel: dispatch.grouped(x, routing, form, weights, kernel)
        for kernel in HAVE
    },
    # A factor of E/k is room for every token at every expert.
    "capacity": lambda x, r, form, w: dispatch.capacity(x, r, form, w, r.gates_TxE.shape[1] / r.chosen_TxK.shape[1]),
}


def value_and_gradients(way, n_experts):
    """Compiled once for all loads of a shape: the choice is an argument."""

    def loss(x, weight, experts, chosen):
        out = WAYS[way](x, routing_of(chosen, n_experts, weight), GATED_MLP, experts)
        return jnp.sum(jnp.sin(out)), out

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def close(found, expected, terms):
    """To rounding: each value is a sum of `terms` products, and each of them is off by a few units in the last place of
    the largest intermediate value (2^-24 of it, times 8 for the chain of products that a term is)."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.max(np.abs(other))))
        np.testing.assert_allclose(one, other, rtol=0, atol=8 * 2.0**-24 * np.sqrt(terms) * scale * D)


def check_all_ways(tokens, top_k, n_experts, seed):
    x, weight, experts = problem(tokens, top_k, n_experts, seed)
    programs = {way: value_and_gradients(way, n_experts) for way in WAYS}
    for name, chosen in loads(tokens, top_k, n_experts, seed).items():
        chosen = np.ascontiguousarray(chosen)
        (_, out), gradients = programs["dense"](x, weight, experts, chosen)
        close(out, by_hand(x, chosen, weight, experts), top_k * F)
        for way in [way for way in WAYS if way != "dense"]:
            (_, found), found_gradients = programs[way](x, weight, experts, chosen)
            close(found, out, top_k * F)
            close(found_gradients, gradients, tokens * top_k)
            idle = np.setdiff1d(np.arange(n_experts), chosen)
            assert all(not np.any(np.asarray(g)[idle]) for g in jax.tree.leaves(found_gradients[2])), (way, name)


@pytest.mark.parametrize(("tokens", "top_k", "n_experts"), [(37, 2, 4), (96, 1, 3), (5, 3, 8)])
def test_every_dispatch_equals_the_dense_one_in_values_and_gradients(tokens, top_k, n_experts):
    """Odd counts, experts without a token (gradient exactly zero), blocks of one row and of sixteen."""
    check_all_ways(tokens, top_k, n_experts, seed=tokens)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 150), st.integers(1, 3), st.integers(2, 17), st.integers(0, 99))
def test_every_dispatch_equals_the_dense_one_for_any_shape(tokens, top_k, n_experts, seed):
    check_all_ways(tokens, min(top_k, n_experts), n_experts, seed)


# What a dispatch keeps can be read off experts that return a vector of their own, whatever they are given.
MARK = ExpertForm(lambda mark, x, dot: x, lambda mark, x, dot: jnp.broadcast_to(mark, x.shape))


def kept_by(way, chosen, n_experts, *arguments):
    """[T, E], 1 where the token reached the expert."""
    x = jnp.zeros((len(chosen), n_experts))
    return way(x, routing_of(chosen, n_experts), MARK, jnp.eye(n_experts), *arguments)


def token_major(chosen, n_experts, room):
    """Fill expert by expert in the order of the tokens; by hand."""
    kept, filled = np.zeros((len(chosen), n_experts)), np.zeros(n_experts, int)
    for t, experts in enumerate(chosen):
        for e in experts:
            kept[t, e], filled[e] = filled[e] < room, filled[e] + 1
    return kept


def rank_major(chosen, n_experts, room):
    """All first choices before all second ones, as GShard fills."""
    kept, filled = np.zeros((len(chosen), n_experts)), np.zeros(n_experts, int)
    for rank in range(chosen.shape[1]):
        for t, e in enumerate(chosen[:, rank]):
            kept[t, e], filled[e] = filled[e] < room, filled[e] + 1
    return kept


@pytest.mark.parametrize(
    ("tokens", "top_k", "n_experts", "factor"), [(32, 2, 4, 1.0), (29, 1, 5, 1.25), (16, 3, 4, 0.5)]
)
def test_capacity_keeps_the_tokens_counted_by_hand(tokens, top_k, n_experts, factor):
    room = capacity_rows(tokens, top_k, n_experts, factor)
    assert room == int(np.ceil(factor * top_k * tokens / n_experts))
    run = jax.jit(lambda chosen: kept_by(dispatch.capacity, chosen, n_experts, factor))
    lost = jax.jit(lambda chosen: dispatch.dropped(routing_of(chosen, n_experts), factor))
    for name, chosen in loads(tokens, top_k, n_experts).items():
        kept, expected = np.asarray(run(chosen)), token_major(chosen, n_experts, room)
        np.testing.assert_array_equal(kept, expected, err_msg=name)
        assert kept.sum(axis=0).max() <= room
        assert float(lost(chosen)) == pytest.approx(1 - expected.sum() / (tokens * top_k), abs=1e-7)
        if name.startswith("all on"):
            assert kept.sum() == top_k * room < tokens * top_k  # full to the last row, and something is dropped


def test_grouped_keeps_everything():
    for name, chosen in loads(33, 2, 5).items():
        kept = kept_by(dispatch.grouped, chosen, 5, "loop")
        np.testing.assert_array_equal(kept, token_major(chosen, 5, room=33), err_msg=name)
        assert kept.sum() == 66


def test_no_token_loses_its_place_to_a_later_one():
    """The prefix test: one sequence of 32, E = 4, k = 2, C = 16, all from token 20 on replaced, 200 draws. In the order
    of the text nothing changes before 20; filled by rank of the choice some draws do change, so the test can fail."""
    rng = np.random.default_rng(0)
    run = jax.jit(jax.vmap(lambda chosen: kept_by(dispatch.capacity, chosen, 4, 1.0)))
    before = np.argsort(rng.random((200, 32, 4)), axis=2)[:, :, :2]
    after = before.copy()
    after[:, 20:] = np.argsort(rng.random((200, 12, 4)), axis=2)[:, :, :2]
    one, other = np.asarray(run(before)), np.asarray(run(after))
    np.testing.assert_array_equal(one[:, :20], other[:, :20])
    assert np.any(one[:, 20:] != other[:, 20:])
    leaks = [np.any(rank_major(a, 4, 16)[:20] != rank_major(b, 4, 16)[:20]) for a, b in zip(before, after, strict=True)]
    assert any(leaks)


def test_a_dropped_token_leaves_the_block_unchanged():
    """Attention is silenced by a zero output projection; then the block is x + experts(x), and x where none had
    room."""
    config = ModelConfig(
        d_model=8, d_head=8, n_layers=1, d_expert=4, n_experts=4, dispatch="capacity", capacity_factor=0.5
    )
    x = jnp.abs(jax.random.normal(jax.random.key(0), (1, 40, 8)))
    block = Block(config, "loop", SINGLE_DEVICE)
    params = jax.jit(block.init)(jax.random.key(1), x, None, 0, None, known(40))["params"]
    params["attention"]["out"] = jnp.zeros_like(params["attention"]["out"])
    out, _, routing = jax.jit(lambda p: block.apply({"params": p}, x, None, 0, None, known(40)))(params)
    kept = token_major(np.asarray(routing.chosen_TxK), 4, capacity_rows(40, 1, 4, 0.5)).any(axis=1)
    assert 0 < kept.sum() < 40
    np.testing.assert_array_equal(out[0][~kept], x[0][~kept])
    assert np.all(np.any(np.asarray(out[0][kept] != x[0][kept]), axis=1))
    assert float(routing.dropped) == pytest.approx(1 - kept.mean(), abs=1e-7)


def test_every_dispatch_uses_the_same_weights():
    x = jax.random.normal(jax.random.key(0), (2, 9, D))
    layers = [
        MoE(ModelConfig(d_expert=F, n_experts=4, top_k=2, router="topk", dispatch=name, capacity_factor=2.0), 1.0)
        for name in ("dense", "grouped", "capacity")
    ]
    params = jax.jit(layers[0].init)(jax.random.key(1), x, known(9, 2))
    outs = [jax.jit(lambda p, layer=layer: layer.apply(p, x, known(9, 2))[0])(params) for layer in layers]
    close(outs[1:], [outs[0]] * 2, 2 * F)
