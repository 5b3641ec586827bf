"""Routers that do not choose the largest logits: hash, random, and the gate annealed to top-1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import F32, VOCAB, chosen_sets, expert, gated_mlp, layer, model, normal, routed, softmax, tokens
from routing_cases import training as at_step

from scaling.model.moe import routing
from scaling.model.moe.routers.dense_to_sparse import DenseToSparse
from scaling.model.moe.routing import Tokens
from scaling.training.phases import spawn_experts

E = 8


def balance(found):
    """The router's own penalty, which does not depend on the load."""
    n_experts = found.gates_TxE.shape[-1]
    return float(routing.balance_loss(found, jnp.ones(n_experts) / n_experts))


def fixed(config, known, x):
    return config.router_facts.load()(config).apply({}, x, known)


# ------------------------------------------------------------------------------------------- hash, random


@pytest.mark.parametrize("k", [1, 2])
def test_hash_routes_only_by_token_id(k):
    """Whatever the activations, place, layer or step: the same id goes to the same experts. It has no weights at
    all."""
    config = model("hash", n_experts=E, top_k=k)
    here = tokens(60, 2)
    there = Tokens(here.id_T, here.position_T + 5, 60, 3, at_step(9, 2))
    one, other = fixed(config, here, normal(120, 16)), fixed(config, there, 100 * normal(120, 16, seed=1))
    np.testing.assert_array_equal(one.chosen_TxK, other.chosen_TxK)
    np.testing.assert_array_equal(one.weight_TxK, 1 / k)
    sets = chosen_sets(one)
    assert all(len(chosen) == k for chosen in sets)
    by_id = {}
    for number, chosen in zip(np.asarray(here.id_T).tolist(), sets, strict=True):
        assert by_id.setdefault(number, chosen) == chosen
    assert len({tuple(sorted(chosen)) for chosen in by_id.values()}) > 4  # not all to one
    assert jax.tree.leaves(config.router_facts.load()(config).init(jax.random.key(0), normal(120, 16), here)) == []


def test_the_table_of_hashes_is_balanced_over_many_ids():
    """10,000 ids over 8 experts: each has 1,250, give or take four deviations of sqrt(10^4 / 8 x 7 / 8) = 33."""
    known = Tokens(jnp.arange(10_000), jnp.zeros(10_000, jnp.int32), 10_000, 0)
    count = np.asarray(routing.assignments(fixed(model("hash", n_experts=E, top_k=1), known, normal(10_000, 1)))) * 1e4
    assert np.abs(count - 1250).max() < 4 * np.sqrt(1e4 / 8 * 7 / 8)


def test_random_is_drawn_anew_in_training_and_fixed_at_inference():
    """In training by step, sequence, place and layer, at inference by token, place and layer: what a later part of a
    sequence gives is the same alone. Two independent draws of one of 8 experts agree in 1/8 of 400 places, give or take
    four deviations."""
    config, x, length = model("random", n_experts=E, top_k=1), normal(400, 4), 200
    ids = np.random.default_rng(0).integers(0, VOCAB, length)

    def chosen(training=None, layer=0, start=0, more=0):
        known = Tokens(jnp.tile(jnp.asarray(ids + more), 2), jnp.tile(jnp.arange(length), 2), length, layer, training)
        known = known.replace(id_T=jnp.roll(known.id_T, -start), position_T=known.position_T + start)
        return np.asarray(fixed(config, known, x).chosen_TxK)[:, 0]

    rest, first = chosen(), chosen(at_step(1, 2))
    np.testing.assert_array_equal(rest[:length], rest[length:])
    np.testing.assert_array_equal(rest[5:length], chosen(start=5)[: length - 5])
    np.testing.assert_array_equal(first, chosen(at_step(1, 2), more=1))
    pairs = {
        "step": (first, chosen(at_step(2, 2))),
        "layer": (first, chosen(at_step(1, 2), layer=1)),
        "key": (first, chosen(at_step(1, 2, seed=1))),
        "sequence": (first[:length], first[length:]),
        "inference": (first, rest),
        "layer at inference": (rest[:length], chosen(layer=1)[:length]),
        "token at inference": (rest[:length], chosen(more=1)[:length]),
        "place at inference": (rest[5:length], chosen(start=0)[: length - 5]),
    }
    for name, (one, other) in pairs.items():
        assert abs(np.mean(one == other) - 1 / E) < 4 * np.sqrt(1 / E * (1 - 1 / E) / len(one)), name
    np.testing.assert_array_equal(fixed(config, tokens(length, 2), x).weight_TxK, 1.0)


def test_noise_belongs_to_a_sequence_and_not_to_a_device():
    """The second sequence alone, under its number, draws what it draws in the batch."""
    both = tokens(20, 2, at_step(4, 2)).uniform(3)
    alone = tokens(20, 1, at_step(4).replace(sequence_B=jnp.array([1]))).uniform(3)
    np.testing.assert_array_equal(both[20:], alone)


# ---------------------------------------------------------------------------------------- dense to sparse

# arXiv 2112.14397 by simulation of 20,000 tokens with equal logits: experts above .001 (reference/moe.md, 2.12).
ACTIVE = {
    8: {2: 8.00, 1: 7.93, 0.5: 6.40, 0.3: 4.11, 0.1: 1.77, 0.05: 1.34},
    16: {2: 16.00, 1: 15.73, 0.5: 10.12, 0.3: 5.18, 0.1: 1.86, 0.05: 1.37},
}
STEPS = 1_000_000


def annealed(n_experts=E, **changes):
    """One token a step, a million steps of anneal: every temperature is that of some step."""
    settings = {"anneal_tokens": STEPS, "tau_max": 2.0, "tau_min": 0.04}
    return model("dense-to-sparse", n_experts=n_experts, **settings | changes)


def step_of(tau, config):
    """Where tau = tau_max (tau_min / tau_max)^progress."""
    return round(STEPS * np.log(tau / config.tau_max) / np.log(config.tau_min / config.tau_max))


@pytest.mark.parametrize("n_experts", [8, 16])
def test_active_experts_along_the_anneal(n_experts):
    """At equal logits, 20,000 tokens: the count has a standard error below .5 %, and so has the table's. The penalty of
    the router is the same number there, since all experts are alike."""
    config, logits = annealed(n_experts), jnp.zeros((20_000, n_experts))
    run = jax.jit(lambda step: routed(config, logits, tokens(20_000, 1, at_step(0).replace(step=step))))
    for tau, expected in ACTIVE[n_experts].items():
        found = run(jnp.int32(step_of(tau, config)))
        active = float(jnp.sum(routing.assignments(found)))
        assert active == pytest.approx(expected, rel=0.02), tau
        assert balance(found) == pytest.approx(active, rel=0.02), tau


@pytest.mark.parametrize("anneal", ["exponential", "linear"])
def test_the_gate_is_a_gumbel_softmax_at_the_temperature_of_the_step(anneal):
    """By formula in float64 from the same uniform numbers. Both weights: the softmax without noise, or the gate
    itself."""
    z = normal(200, E)
    for weight in ("softmax", "gumbel"):
        config = annealed(anneal=anneal, tau_min=0.3, gate_weight=weight)
        for progress in (0.0, 0.25, 0.9):
            known = tokens(200, 1, at_step(round(progress * STEPS)))
            found = routed(config, z, known)
            tau = 2 * 0.15**progress if anneal == "exponential" else 2 - 1.7 * progress
            uniform = np.asarray(known.uniform(E), np.float64)
            gate = softmax((np.asarray(z, np.float64) - np.log(-np.log(uniform))) / tau)
            sure = np.abs(gate - 0.001) > 1e-5  # rounding decides no other
            assert sure.mean() > 0.99
            np.testing.assert_array_equal(np.asarray(routing.chosen_by_expert(found))[sure], (gate > 0.001)[sure])
            expected = (gate > 0.001) * (softmax(z) if weight == "softmax" else gate)
            # 1/tau times the rounding of logs of numbers near 0 and 1: log(-log u) is off by 2^-24 / (1 - u) there.
            rounding = 2.0**-24 / (1 - uniform.max()) / tau + 1e-5
            np.testing.assert_allclose(
                np.where(sure, routing.weights_by_expert(found), 0), np.where(sure, expected, 0), rtol=8 * rounding
            )


def test_at_high_temperature_all_experts_and_at_low_temperature_one_is_active():
    """tau -> infinity: every expert, weighed by its softmax probability. tau -> 0: the largest of logits plus noise
    alone, which is expert e with probability softmax(z)_e, and never another one."""
    z = normal(4000, E, seed=3)[:1] * jnp.ones((4000, 1))
    hot = routed(annealed(tau_max=1e6, tau_min=1e6), z, tokens(4000, 1, at_step()))
    assert bool(jnp.all(routing.chosen_by_expert(hot)))
    np.testing.assert_allclose(hot.weight_TxK, softmax(z), rtol=1e-6)
    known = tokens(4000, 1, at_step())
    cold = routed(annealed(tau_max=1e-4, tau_min=1e-4), z, known)
    noisy = np.asarray(z, np.float64) - np.log(-np.log(np.asarray(known.uniform(E), np.float64)))
    gap = np.diff(np.sort(noisy, axis=1)[:, -2:], axis=1)[:, 0]
    sets = chosen_sets(cold)
    decided = gap > 1e-4 * np.log(1e3) * 1.1  # a smaller gap leaves the second one above the threshold
    assert decided.mean() > 0.99
    assert all(sets[t] == {int(noisy[t].argmax())} for t in np.flatnonzero(decided))
    share, p = np.bincount(noisy.argmax(axis=1), minlength=E) / 4000, softmax(z)[0]
    assert np.all(np.abs(share - p) < 4 * np.sqrt(p * (1 - p) / 4000))


def test_the_three_phases():
    """Dense, annealed, top-1: one expert of weight 1, then several, then as Switch; inference is as Switch
    throughout."""
    config = model("dense-to-sparse", n_experts=E, dense_tokens=640, anneal_tokens=1000)
    z, switch = normal(64, E), routed(model("switch", n_experts=E), normal(64, E))

    def at(step):
        return routed(config, z, tokens(64, 1, at_step(step, batch_tokens=64)))

    for step in (0, 9):  # 640 tokens are ten steps
        assert chosen_sets(at(step)) == [{0}] * 64
        np.testing.assert_array_equal(routing.weights_by_expert(at(step))[:, 0], 1.0)
        assert balance(at(step)) == 0.0
    for step in (10, 25):  # 1000 tokens are sixteen steps, the last of them begun
        assert max(map(len, chosen_sets(at(step)))) > 1
    for found in (at(26), at(10_000), routed(config, z)):
        np.testing.assert_array_equal(routing.weights_by_expert(found), routing.weights_by_expert(switch))
        assert chosen_sets(found) == chosen_sets(switch)


@pytest.mark.parametrize("weight", ["softmax", "gumbel"])
def test_identical_copies_are_one_expert_times_the_sum_of_weights(weight):
    config, x = annealed(4, gate_weight=weight, tau_max=0.5), normal(1, 30, 16)
    known = tokens(30, 1, at_step(1000))
    moe, params = layer(config, x, known)
    one = expert(params["params"]["experts"], 0)
    params["params"]["experts"] = jax.tree.map(lambda w: jnp.stack([w] * 4), one)
    out, found = jax.jit(moe.apply)(params, x, known)
    active = [len(chosen) for chosen in chosen_sets(found)]
    assert len(set(active)) > 1
    total = np.sum(np.asarray(found.weight_TxK, np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(out[0], total * gated_mlp(one, x[0]), **F32)


def test_uniform_gates_of_many_experts_are_not_all_dropped():
    """The released threshold of .001 would leave no expert at E = 1024, where an equal gate is 1/1024."""
    config = annealed(2048, tau_max=1e6, tau_min=1e6)
    found = DenseToSparse(config).apply(
        {"params": {"weight": jnp.zeros((4, 2048))}}, normal(3, 4), tokens(3, 1, at_step())
    )
    assert bool(jnp.all(routing.chosen_by_expert(found)))


# ------------------------------------------------------------------------------------------------ spawning


def tree(seed):
    shapes = {"gate": (4, 30, 20), "up": (4, 30, 20), "down": (4, 20, 30)}
    experts = {name: normal(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}
    return {
        "block_0": {"moe": {"experts": experts, "router": {"weight": normal(30, 4, seed=seed)}}},
        "head": normal(3, 3),
    }


def test_copied_experts_have_different_masks():
    """600 weights of each of 12 matrices, a quarter of them masked: the share is within four deviations. Masks of
    copies and matrices differ, and those of weights and moments are the same; nothing but experts changes."""
    before, share = tree(0), 0.25
    after, moments = (spawn_experts(one, share, jax.random.key(1)) for one in (before, tree(10)))
    np.testing.assert_array_equal(after["head"], before["head"])
    moe, moe_before, moe_moments = (one["block_0"]["moe"] for one in (after, before, moments))
    np.testing.assert_array_equal(moe["router"]["weight"], moe_before["router"]["weight"])
    masks = []
    for name, copies in moe["experts"].items():
        kept = np.asarray(copies) != 0
        first = np.broadcast_to(moe_before["experts"][name][:1], copies.shape)
        np.testing.assert_array_equal(np.asarray(copies)[kept], first[kept])
        np.testing.assert_array_equal(np.asarray(moe_moments["experts"][name]) != 0, kept)
        masks += [mask.ravel() for mask in kept]
    share_kept = np.mean(masks, axis=1)
    assert np.all(np.abs(share_kept - 0.75) < 4 * np.sqrt(0.25 * 0.75 / 600))
    for i, one in enumerate(masks):  # two independent masks agree in .75^2 + .25^2 = .625 of the places
        for other in masks[:i]:
            assert abs(np.mean(one == other) - 0.625) < 4.5 * np.sqrt(0.625 * 0.375 / 600)


def test_without_masks_the_copies_are_the_first_expert_exactly():
    after = spawn_experts(tree(0), 0.0, jax.random.key(1))["block_0"]["moe"]["experts"]
    for name, copies in after.items():
        np.testing.assert_array_equal(copies, np.stack([tree(0)["block_0"]["moe"]["experts"][name][0]] * 4))
