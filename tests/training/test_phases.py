"""Trainings that start with a dense model: frozen weights by phase, and copying one expert to all."""

import functools

import jax
import numpy as np
import pytest

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.training.phases import ADDED, spawn_experts, spawns
from scaling.training.program import program
from scaling.training.step import StepFunction, metric_names

VOCAB = 23
TRAIN = TrainConfig(batch_tokens=48, seq_len=12, warmup_tokens=0)
DENSE, ANNEAL = 3, 4  # steps of each phase


def model(**changes):
    phases = {"dense_tokens": DENSE * 48, "anneal_tokens": ANNEAL * 48}
    return ModelConfig(
        **{"d_model": 16, "d_head": 8, "n_layers": 1, "d_expert": 8, "n_experts": 4, **phases, **changes}
    )


LORA = model(router="tsallis", top_k=2, experts="lora")
EVO = model(router="dense-to-sparse")


@functools.cache
def steps(config, n):
    """States before and after each of n steps, and the metrics of each."""
    compiled = program(StepFunction(config, VOCAB, TRAIN), tuple(jax.devices()[:1]))
    state = compiled.first([0])
    rng, states, seen = np.random.default_rng(0), [state], []
    for _ in range(n):
        batch = rng.integers(0, VOCAB, (4, 13)).astype(np.int32)
        state, metrics = compiled.step(compiled.copy(state), batch, np.float32(1e-2))
        states.append(state)
        seen.append(dict(zip(metric_names(config), np.asarray(metrics).tolist(), strict=True)))
    return states, seen


def moved(before, after):
    """Names of the weights that a step has changed."""
    pairs = zip(
        *(jax.tree_util.tree_leaves_with_path(state.params["params"]) for state in (before, after)), strict=True
    )
    return {jax.tree_util.keystr(path) for (path, one), (_, other) in pairs if np.any(one != other)}


def test_lora_trains_the_base_first_and_then_only_routers_and_adapters():
    """Every weight of one kind moves and none of the other, to the bit: decay and clipping included. (The downward
    adapters move from the second step on: at first their gradient goes through an upward one that is zero, but
    decay.)"""
    states, _ = steps(LORA, DENSE + 3)
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(states[0].params["params"])}
    added = {name for name in names if any(f"'{part}'" in name for part in ADDED)}
    assert added
    assert added < names
    for number in range(DENSE):
        assert moved(states[number], states[number + 1]) == names - added
    assert moved(states[DENSE + 1], states[DENSE + 2]) == added


def test_gradients_of_frozen_weights_do_not_affect_clipping():
    """The norm that a step reports is that of what moves: in the dense phase the same as without any adapter's part."""
    _, seen = steps(LORA, DENSE + 3)
    assert all(one["grad_norm"] > 0 for one in seen)
    assert seen[DENSE]["grad_norm"] < seen[DENSE - 1]["grad_norm"]  # adapters at the start have a small one


def test_dense_to_sparse_starts_with_one_expert_and_ends_as_top_1():
    _, seen = steps(EVO, DENSE + ANNEAL + 2)
    active = [one["experts_per_token"] for one in seen]
    assert active[:DENSE] == [1.0] * DENSE
    assert seen[0]["gate_sum"] == 1.0
    assert seen[0]["max_load"] == pytest.approx(4.0)  # all on the first of four
    assert all(1 < value <= 4 for value in active[DENSE : DENSE + ANNEAL - 1])
    assert active[DENSE + ANNEAL :] == [1.0, 1.0]
    assert seen[-1]["max_load"] < 4.0


def test_the_dense_phase_trains_only_the_first_expert():
    """The others have no gradient: their first moments stay zero."""
    states, _ = steps(EVO, DENSE)
    for leaf in jax.tree.leaves(states[-1].moments[0].mu["block_0"]["moe"]["experts"]):
        assert np.any(leaf[0] != 0)
        assert not np.any(leaf[1:])


def test_spawned_experts_are_masked_copies_of_the_first():
    states, _ = steps(EVO, DENSE)
    params = states[-1].params["params"]
    found = spawn_experts(params, 0.25, jax.random.key(3))
    for name in ("gate", "up", "down"):
        first, copies = (tree["block_0"]["moe"]["experts"][name] for tree in (params, found))
        first = np.asarray(first[0])
        kept = np.asarray(copies) != 0
        np.testing.assert_array_equal(np.asarray(copies)[kept], np.broadcast_to(first, copies.shape)[kept])
        # Three standard errors of a share of 512 draws.
        assert 1 - kept.mean() == pytest.approx(0.25, abs=3 * np.sqrt(0.25 * 0.75 / copies.size))
        assert len({kept[e].tobytes() for e in range(4)}) == 4
    np.testing.assert_array_equal(found["head"], params["head"])
    whole = spawn_experts(params, 0.0, jax.random.key(3))["block_0"]["moe"]["experts"]["gate"]
    np.testing.assert_array_equal(whole, np.broadcast_to(np.asarray(whole[0]), whole.shape))


def test_weights_and_moments_get_the_same_masks():
    compiled = program(StepFunction(EVO, VOCAB, TRAIN), tuple(jax.devices()[:1]))
    states, _ = steps(EVO, DENSE)
    state = compiled.spawn(states[-1])
    for name in ("gate", "up", "down"):
        weight, mu, nu = (
            np.asarray(tree["block_0"]["moe"]["experts"][name])
            for tree in (state.params["params"], state.moments[0].mu, state.moments[0].nu)
        )
        np.testing.assert_array_equal(weight == 0, nu == 0)
        assert np.all(mu[weight == 0] == 0)
        assert np.any(nu[1:] > 0)


def test_only_dense_to_sparse_copies_experts():
    assert spawns(EVO)
    assert not spawns(LORA)
    assert not spawns(model(router="dense-to-sparse", n_experts=1))
