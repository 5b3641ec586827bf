"""Grouped-query attention: multi-head attention with repeated keys and values, and the same model by its cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from routing_cases import F32, VOCAB, network

from scaling.config.counts import kv_bytes_per_token, parameters
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.model.attention import Attention, attend, rotary_tables, to_heads
from scaling.model.transformer import empty_caches

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (3, 24)), jnp.int32)
HEADS, WIDTH, OF_HEAD = 8, 32, 4


def model(n_kv_heads=None, **changes):
    sizes = {"d_model": WIDTH, "d_head": OF_HEAD, "n_layers": 2, "d_expert": 16, "n_experts": 4}
    return ModelConfig(**sizes | changes, n_kv_heads=n_kv_heads)


def repeated(params, groups):
    """The weights with keys and values of a group once for each of its heads."""

    def of_every_head(path, leaf):
        if not any(getattr(key, "key", None) in ("key", "value") for key in path):
            return leaf
        by_group = leaf.reshape(leaf.shape[0], groups, 1, OF_HEAD)
        return jnp.broadcast_to(by_group, (leaf.shape[0], groups, HEADS // groups, OF_HEAD)).reshape(leaf.shape[0], -1)

    return jax.tree_util.tree_map_with_path(of_every_head, params)


def loss(net, params):
    return jnp.sum(jnp.sin(net.apply(params, TOKENS).logits_BxTxV))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_heads_are_heads_whose_keys_and_values_are_repeated(groups):
    """Logits, and gradients: that of a shared key is the sum over the heads that share it."""
    (grouped, params), (plain, _) = network(model(groups)), network(model())
    assert params["params"]["block_0"]["attention"]["key"].shape == (WIDTH, groups * OF_HEAD)
    ours = jax.jit(jax.value_and_grad(functools.partial(loss, grouped)))(params)
    theirs = jax.jit(jax.value_and_grad(lambda params: loss(plain, repeated(params, groups))))(params)
    # A sum of terms up to 1 of either sign: single precision adds each to within 6e-8 of the partial sums.
    n_terms = TOKENS.size * VOCAB
    assert float(ours[0]) == pytest.approx(float(theirs[0]), abs=6e-8 * n_terms)
    for one, other in zip(*(jax.tree.leaves(each[1]) for each in (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max(), rtol=0)
    logits = [jax.jit(net.apply)(p, TOKENS).logits_BxTxV for net, p in
              ((grouped, params), (plain, repeated(params, groups)))]  # fmt: skip
    np.testing.assert_allclose(*logits, **F32)


def test_a_group_for_each_head_is_multi_head_attention_to_the_last_bit():
    """The same model as without the field, and its attention is the product of all heads at once."""
    assert model(HEADS) == model()
    _, params = network(model(HEADS, n_layers=1, n_experts=1))
    weights = params["params"]["block_0"]["attention"]
    x = jax.random.normal(jax.random.key(0), (3, 24, WIDTH))

    @jax.jit
    def plain(x):
        projected = x.reshape(-1, WIDTH) @ jnp.concatenate([weights[name] for name in ("query", "key", "value")], 1)
        heads = to_heads(projected.reshape(3, 24, 3, WIDTH), *rotary_tables(np.arange(24), OF_HEAD))
        mixed = attend(*heads, jnp.tril(jnp.ones((24, 24), bool)))
        return mixed.transpose(0, 2, 1, 3).reshape(-1, WIDTH) @ weights["out"]

    ours = jax.jit(Attention(HEADS, HEADS, 1.0).apply)({"params": weights}, x)[0]
    np.testing.assert_array_equal(ours.reshape(-1, WIDTH), plain(x))


@pytest.mark.parametrize("heads", [{"n_kv_heads": 1}, {"n_kv_heads": 2, "n_heads": 6, "d_head": 8}])
def test_decoding_with_the_smaller_cache_is_the_whole_sequence(heads):
    config = model(**heads, router="topk", top_k=2)
    net, params = network(config)
    whole = jax.jit(net.apply)(params, TOKENS).logits_BxTxV
    caches = empty_caches(config, len(TOKENS), TOKENS.shape[1])
    step = jax.jit(net.apply)
    prompt = 16
    output = step(params, TOKENS[:, :prompt], caches, jnp.int32(0))
    found = [output.logits_BxTxV]
    for place in range(prompt, TOKENS.shape[1]):
        output = step(params, TOKENS[:, place : place + 1], output.caches, jnp.int32(place))
        found.append(output.logits_BxTxV)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, **F32)


def test_a_model_with_fewer_heads_of_one_width_is_that_without_what_the_others_say():
    """Heads whose output is multiplied by 0 may as well not be there: five heads of 4 in a model 32 wide."""
    few = 5
    (plain, params), (narrow, _) = network(model()), network(model(n_heads=few))

    def changed(path, leaf, kept):
        name = getattr(path[-1], "key", None)
        if name in ("query", "key", "value") and not kept:
            return leaf[:, : few * OF_HEAD]
        if name != "out":
            return leaf
        return leaf.at[few * OF_HEAD :].set(0.0) if kept else leaf[: few * OF_HEAD]

    logits = [
        jax.jit(net.apply)(jax.tree_util.tree_map_with_path(functools.partial(changed, kept=kept), params), TOKENS)
        for net, kept in ((plain, True), (narrow, False))
    ]
    np.testing.assert_allclose(*(each.logits_BxTxV for each in logits), **F32)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_and_parameters_are_those_of_the_arrays(groups, dtype):
    config = model(groups, dtype=dtype)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(empty_caches(config, 3, 24)))
    assert held == 3 * 24 * kv_bytes_per_token(config)
    assert kv_bytes_per_token(config) == 2 * 2 * groups * OF_HEAD * (4 if dtype == "float32" else 2)
    counts = parameters(config, VOCAB)
    assert counts.attention == 2 * (2 * WIDTH**2 + 2 * WIDTH * groups * OF_HEAD)
    assert counts.allocated == sum(leaf.size for leaf in jax.tree.leaves(network(config)[1]))


def test_only_grouped_heads_are_part_of_the_names_of_cells():
    """Cells of before the field existed keep theirs."""
    cells = [RunConfig(model=model(groups, n_experts=e)) for e in (1, 4) for groups in (None, HEADS, 2)]
    runs, shapes = ([name(cell) for cell in cells] for name in (lambda cell: cell.run_id(""), RunConfig.shape_id))
    for names in (runs, shapes):
        assert names[0] == names[1] != names[2]
        assert names[3] == names[4] != names[5]
    assert ["n_kv_heads" in cell.model.identity() for cell in cells] == [False, False, True] * 2


@pytest.mark.parametrize("groups", [3, 16])
def test_groups_that_do_not_divide_the_heads_are_refused(groups):
    with pytest.raises(ValidationError, match=rf"n_kv_heads={groups} .*n_heads=8"):
        model(groups)
