"""Routers that look at all tokens of a sequence: expert choice, soft MoE, BASE. Not causal, which test_causality.py
shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import (
    F32,
    ULPS,
    chosen_sets,
    expert,
    filled,
    gated_mlp,
    layer,
    mixture,
    model,
    normal,
    routed,
    softmax,
    tokens,
)
from routing_cases import training as at_step
from scipy.optimize import linear_sum_assignment

from scaling.config import counts
from scaling.config.run import RunConfig
from scaling.model.moe import routing
from scaling.model.moe.routers.base_layers import assign
from scaling.model.sharding import SINGLE_DEVICE
from scaling.model.transformer import Block

E, LENGTH = 4, 24


# ------------------------------------------------------------------------------------------ expert choice


@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_expert_takes_the_tokens_with_the_highest_scores(k):
    """By sorting in float64, sequence by sequence. Each load is exactly T k / E of a sequence, so k experts a token on
    average; weights are the softmax over experts, not renormalised."""
    z = normal(2 * LENGTH, E)
    found = routed(model("expert-choice", top_k=k), z, tokens(LENGTH, 2))
    scores = softmax(z).reshape(2, LENGTH, E)
    taken = np.argsort(np.argsort(-scores, axis=1), axis=1) < LENGTH * k // E
    chosen = np.asarray(routing.chosen_by_expert(found)).reshape(2, LENGTH, E)
    np.testing.assert_array_equal(chosen, taken)
    np.testing.assert_array_equal(chosen.sum(axis=1), LENGTH * k // E)
    assert float(jnp.sum(routing.assignments(found))) == k
    if k == 1:
        assert {len(of) for of in chosen_sets(found)} >= {0, 1, 2}
    np.testing.assert_allclose(routing.weights_by_expert(found), (taken * scores).reshape(-1, E), **ULPS)


def test_expert_choice_of_every_token_is_the_dense_mixture():
    x, known = normal(2, LENGTH, 16), tokens(LENGTH, 2)
    moe, params = layer(model("expert-choice", top_k=E), x, known)
    out, _ = jax.jit(moe.apply)(params, x, known)
    rows = np.asarray(x, np.float64).reshape(-1, 16)
    weight = softmax(rows @ np.asarray(params["params"]["router"]["weight"], np.float64))
    np.testing.assert_allclose(out.reshape(-1, 16), mixture(params["params"]["experts"], weight, rows), **F32)


@pytest.mark.parametrize("router", ["expert-choice", "soft"])
def test_a_group_is_one_sequence(router):
    """Sequences of a batch are independent: each one alone has the same output."""
    x = normal(2, LENGTH, 16)
    moe, params = layer(model(router), x, tokens(LENGTH, 2))
    both, alone = jax.jit(moe.apply)(params, x, tokens(LENGTH, 2))[0], jax.jit(moe.apply)
    for i in range(2):
        np.testing.assert_allclose(alone(params, x[i : i + 1], tokens(LENGTH))[0][0], both[i], **F32)


# ------------------------------------------------------------------------------------------------ soft MoE


@functools.cache
def soft(slots=3, normalise=True, length=LENGTH):
    config = model("soft", slots=slots, normalise_slots=normalise)
    x, known = normal(2, length, 16), tokens(length, 2)
    moe, params = layer(config, x, known)
    return jax.jit(lambda p, x: moe.apply(p, x, known)), params["params"], x


def soft_by_hand(params, x, normalise):
    """Slot by slot in float64: dispatch softmax over tokens, combine softmax over slots. And the two, [T, E, P]."""
    phi, x = np.asarray(params["router"]["phi"], np.float64), np.asarray(x, np.float64)
    read = x
    if normalise:
        read = x / np.linalg.norm(x, axis=1, keepdims=True)
        phi = float(params["router"]["scale"]) * phi / np.linalg.norm(phi, axis=0)
    logits = np.einsum("td,dep->tep", read, phi)
    dispatch = softmax(logits, axis=0)
    combine = softmax(logits.reshape(len(x), -1)).reshape(logits.shape)
    out = np.zeros_like(x)
    for e in range(phi.shape[1]):
        for p in range(phi.shape[2]):
            slot = dispatch[:, e, p] @ x
            out += combine[:, e, p, None] * gated_mlp(expert(params["experts"], e), slot)
    return out, dispatch, combine


@pytest.mark.parametrize("normalise", [True, False])
def test_soft_moe_slot_by_slot(normalise):
    apply, params, x = soft(normalise=normalise)
    if normalise:
        params = {**params, "router": {**params["router"], "scale": jnp.float32(3.0)}}
    out, found = apply({"params": params}, x)
    for g in range(2):
        expected, dispatch, combine = soft_by_hand(params, x[g], normalise)
        np.testing.assert_allclose(out[g], expected, **F32)
        np.testing.assert_allclose(found.slots.dispatch_GxTxExP[g], dispatch, **F32)
        np.testing.assert_allclose(found.slots.combine_GxTxExP[g], combine, **F32)
    np.testing.assert_allclose(np.sum(found.slots.dispatch_GxTxExP, axis=1), 1.0, **ULPS)
    np.testing.assert_allclose(np.sum(found.slots.combine_GxTxExP, axis=(2, 3)), 1.0, **ULPS)
    np.testing.assert_allclose(np.sum(found.gates_TxE, axis=1), 1.0, **ULPS)


def test_soft_moe_permutes_its_outputs_with_its_tokens():
    apply, params, x = soft()
    order = np.random.default_rng(0).permutation(LENGTH)
    np.testing.assert_allclose(
        apply({"params": params}, x[:, order])[0], apply({"params": params}, x)[0][:, order], **F32
    )


def test_soft_moe_without_preferences_gives_every_token_the_mean_expert_of_the_mean_token():
    apply, params, x = soft(normalise=False)
    params = {**params, "router": {"phi": jnp.zeros_like(params["router"]["phi"])}}
    out, _ = apply({"params": params}, x)
    for g in range(2):
        mean = np.mean(np.asarray(x[g], np.float64), axis=0)
        expected = np.mean([gated_mlp(expert(params["experts"], e), mean) for e in range(E)], axis=0)
        np.testing.assert_allclose(out[g], np.tile(expected, (LENGTH, 1)), **F32)


def test_soft_moe_of_one_token():
    """Every slot is the token, so the output is the softmax-weighted sum of experts."""
    apply, params, x = soft(length=1)
    out, found = apply({"params": params}, x)
    np.testing.assert_array_equal(found.slots.dispatch_GxTxExP, 1.0)
    np.testing.assert_allclose(out[:, 0], mixture(params["experts"], found.gates_TxE, x[:, 0]), **F32)


def test_soft_moe_of_well_separated_logits_is_hard():
    """Four tokens, two experts of two slots, the logits 60 on the diagonal and 0 elsewhere: each slot takes one token
    and each token one slot, up to 3 e^-60."""
    config = model("soft", n_experts=2, slots=2, normalise_slots=False)
    router = config.router_facts.load()(config)
    found = router.apply({"params": {"phi": 60 * jnp.eye(4).reshape(4, 2, 2)}}, jnp.eye(4), tokens(4))
    for shares in (found.slots.dispatch_GxTxExP, found.slots.combine_GxTxExP):
        np.testing.assert_allclose(shares.reshape(4, 4), np.eye(4), atol=1e-3)


def cell(**changes):
    settings = {"router": "soft", "leak_study": True, "d_expert": 32, "top_k": 2, "n_layers": 1} | changes
    return RunConfig(model=settings, train={"seq_len": 32, "batch_tokens": 320}, tokens=100_000)


def test_the_cost_of_soft_moe_does_not_depend_on_the_number_of_experts():
    """At E p = 64 slots for 32 tokens, which is what slots are where nothing is said: 64 / 32 rows a token of 3 d f
    products; scores, mixing into slots and back are 6 E p d, and 2 for the scale."""
    for n_experts in (2, 4, 8, 16):
        config = cell(n_experts=n_experts).model
        assert config.n_experts * config.slots == 64
        flops = counts.forward_flops_by_group(config, 257, 16.5)
        assert flops["experts"] == 64 / 32 * 2 * 3 * config.d_model * 32
        assert flops["router"] == 6 * 64 * config.d_model + 2


def test_fewer_slots_cost_less():
    """E p rows a sequence, whatever top_k says: 4 experts of 4 slots for 32 tokens are half a row a token, not two."""
    usual, few = cell(n_experts=4), cell(n_experts=4, slots=4)
    d, trained = few.model.d_model, few.steps * 320
    saved = (64 - 16) / 32 * 2 * 3 * d * 32 + 6 * (64 - 16) * d
    assert counts.train_flops(usual) - counts.train_flops(few) == pytest.approx(3 * trained * saved, rel=1e-9)


# ---------------------------------------------------------------------------------------------------- BASE


@pytest.mark.parametrize(("length", "n_experts"), [(24, 4), (8, 8), (30, 3)])
def test_base_assigns_as_scipy_does(length, n_experts):
    """The optimum of the linear assignment, each expert's column T/E times; the assignment itself need not be
    unique."""
    program = jax.jit(assign)
    for seed in range(5):
        affinity = np.asarray(
            normal(length, n_experts, seed=seed) + 2 * normal(1, n_experts, seed=seed + 99), np.float64
        )
        chosen = np.asarray(program(jnp.asarray(affinity, jnp.float32)))
        np.testing.assert_array_equal(np.bincount(chosen, minlength=n_experts), length // n_experts)
        rows, columns = linear_sum_assignment(np.repeat(affinity, length // n_experts, axis=1), maximize=True)
        best = affinity[rows, columns // (length // n_experts)].sum()
        assert affinity[np.arange(length), chosen].sum() == pytest.approx(best, rel=1e-6)


def test_base_is_balanced_in_training_and_greedy_at_inference():
    """Of each sequence; the weight is the sigmoid of the affinity, through which alone the centroids learn."""
    config, a = model("base"), normal(2 * LENGTH, E) + jnp.array([3.0, 0.0, 0.0, 0.0])
    trained = routed(config, a, tokens(LENGTH, 2, at_step(sequences=2)), name="centroid")
    by_sequence = np.asarray(trained.chosen_TxK).reshape(2, LENGTH)
    for row in by_sequence:
        np.testing.assert_array_equal(np.bincount(row, minlength=E), LENGTH // E)
    greedy = routed(config, a, tokens(LENGTH, 2), name="centroid")
    np.testing.assert_array_equal(greedy.chosen_TxK[:, 0], np.argmax(a, axis=1))
    for found, in_training in ((trained, True), (greedy, False)):
        chosen = np.asarray(found.chosen_TxK)
        q = 1 / (1 + np.exp(-np.take_along_axis(np.asarray(a, np.float64), chosen, axis=1)))
        np.testing.assert_allclose(found.weight_TxK, q, **ULPS)

        def total(a, in_training=in_training):
            known = tokens(LENGTH, 2, at_step(sequences=2) if in_training else None)
            return jnp.sum(routed(config, a, known, name="centroid").weight_TxK)

        expected = np.zeros((2 * LENGTH, E))
        np.put_along_axis(expected, chosen, q * (1 - q), axis=1)
        np.testing.assert_allclose(jax.jit(jax.grad(total))(a), expected, **ULPS)


def test_base_centroids_start_orthogonal():
    config = model("base")
    router = config.router_facts.load()(config)
    centroid = router.init(jax.random.key(0), normal(8, 16), tokens(8))["params"]["centroid"]
    np.testing.assert_allclose(centroid @ centroid.T, 0.01 * np.eye(E), atol=1e-8)  # rounding of .01


@pytest.mark.parametrize("train", [False, True])
def test_a_block_of_zero_base_experts_is_the_identity(train):
    """q F(x) + (1 - q) x with F(x) = x + MLP(x) is x where the MLP's last matrix is zero, as BASE starts; attention is
    silenced likewise. Exactly."""
    config, x = model("base"), normal(1, LENGTH, 16)
    known = tokens(LENGTH, 1, at_step() if train else None)
    block = Block(config, "loop", SINGLE_DEVICE)
    params = filled(jax.eval_shape(block.init, jax.random.key(1), x, None, 0, None, known))["params"]
    params["attention"]["out"] = jnp.zeros_like(params["attention"]["out"])
    params["moe"]["experts"]["down"] = jnp.zeros_like(params["moe"]["experts"]["down"])
    out, _, _ = jax.jit(lambda p: block.apply({"params": p}, x, None, 0, None, known))(params)
    np.testing.assert_array_equal(out, x)
