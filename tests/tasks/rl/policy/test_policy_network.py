"""Actor and critic against slow loops, and what their definitions imply."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.tasks.rl.policy.examination import PROBE_ROWS, Examination
from scaling.tasks.rl.policy.measures import inside_metrics
from scaling.tasks.rl.policy.network import ActorCritic
from scaling.tasks.rl.policy.towers import (
    ACTIONS,
    INPUTS,
    Tower,
    forward_flops,
    input_flops,
    parameters,
    tower_of,
)

BATCH = 4
PLACES, ROUTERS = ("middle", "final", "all", "big"), ("soft", "top-k", "hard")
CASES = [("none", "soft"), *((place, router) for place in PLACES for router in ROUTERS)]


def made(place: str, router: str = "soft", *, experts: int = 3, top_k: int = 2, hidden: int = 5) -> ActorCritic:
    return ActorCritic(*(tower_of(place, router, experts, top_k, hidden, outputs) for outputs in (ACTIONS, 1)))  # type: ignore[arg-type]


def weights_of(network: ActorCritic) -> Any:
    """Weights of the size that layers start with, biases among them."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(Examination(network).start, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape) * a.shape[-2] ** -0.5, jnp.float32), shapes)


def observed(rows: int = BATCH) -> tuple[jax.Array, jax.Array]:
    return jax.random.bernoulli(jax.random.key(1), 0.1, (rows, 10, 10, 10)), jnp.arange(rows, dtype=jnp.int32) % 3


def gates(x: np.ndarray, phi: Any, router: str, task: int, experts: int, top_k: int) -> np.ndarray:
    if router == "hard":
        return np.eye(experts)[task]
    logits = x @ np.asarray(phi, float)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    if router == "top-k":
        shares[np.argsort(shares)[:-top_k]] = 0
    return shares


def slow(x: np.ndarray, task: int, tower: Tower, weights: Any) -> np.ndarray:
    """The output of a tower for one observation, expert by expert."""
    part = lambda name: np.asarray(weights[name], float)  # noqa: E731
    choose = lambda x, name: gates(x, weights.get(name), tower.router, task, tower.n_experts, tower.top_k)  # noqa: E731

    def layer(number: int, expert: int, x: np.ndarray) -> np.ndarray:
        y = x @ part(f"layer_{number}_kernel")[expert] + part(f"layer_{number}_bias")[expert]
        return np.maximum(y, 0) if number < 2 else y

    if tower.place == "big":
        outputs = [layer(2, e, layer(1, e, layer(0, e, x))) for e in range(tower.n_experts)]
        return choose(x, "router") @ np.array(outputs)
    routed = {"none": (), "middle": (1,), "final": (2,), "all": (0, 1, 2)}[tower.place]
    for number in range(3):
        if number in routed:
            share = choose(x, f"router_{number}")
            x = share @ np.array([layer(number, e, x) for e in range(tower.n_experts)])
        else:
            x = layer(number, 0, x)
    return x


@pytest.mark.parametrize(("place", "router"), CASES)
def test_every_place_and_router_is_its_definition(place: str, router: str) -> None:
    network = made(place, router)
    params, (observation, task) = weights_of(network), observed()
    logits, values, _ = jax.jit(network.apply)({"params": params}, observation, task)
    for row in range(BATCH):
        x = np.asarray(observation[row], float).reshape(-1)
        number = int(task[row])
        np.testing.assert_allclose(logits[row], slow(x, number, network.actor, params["actor"]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            values[row], slow(x, number, network.critic, params["critic"])[0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("place", "router"), [*CASES, ("wide", "soft"), ("matched", "soft")])
def test_parameters_are_those_of_the_weights(place: str, router: str) -> None:
    network = made(place, router)
    shapes = jax.eval_shape(Examination(network).start, jax.random.key(0))
    counted = parameters(network.actor) + parameters(network.critic)
    assert counted == sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_matched_control_has_the_parameters_of_whole_networks_as_experts() -> None:
    """No number of units is closer."""
    for experts, hidden in ((3, 64), (8, 16), (2, 3)):
        wanted = parameters(Tower("big", "soft", experts, 1, hidden, ACTIONS))
        found = tower_of("matched", "soft", experts, 1, hidden, ACTIONS)
        gaps = [
            abs(parameters(Tower("none", "soft", 1, 1, units, ACTIONS)) - wanted) for units in range(1, 10 * hidden)
        ]
        assert abs(parameters(found) - wanted) == min(gaps)


def test_flops_count_every_product() -> None:
    """Top-1 of three experts on the second of layers 1000 -> 8 -> 8 -> 6, with its router 8 -> 3."""
    tower = tower_of("middle", "top-k", 3, 1, 8, 6)
    ends = 2 * (INPUTS * 8 + 8 * 6)
    assert forward_flops(tower, 10) == ends + 3 * 2 * 64 + 2 * 8 * 3
    assert forward_flops(tower, 10, needed=True) == ends + 2 * 64 + 2 * 8 * 3
    assert input_flops(tower, 10) == 2 * INPUTS * 8
    assert input_flops(tower_of("big", "soft", 3, 1, 8, 6), 4) == 2 * 400 * 3 * (8 + 1)
    assert forward_flops(tower, 10) - forward_flops(tower, 4) == 2 * 600 * 8


def test_whole_networks_by_game_are_independent_of_each_other() -> None:
    """No weight of another game's expert has a gradient."""
    network = made("big", "hard")
    params, (observation, _) = weights_of(network), observed()
    task = jnp.full(BATCH, 1, jnp.int32)

    def total(params: Any) -> jax.Array:
        logits, values, _ = network.apply({"params": params}, observation, task)
        return jnp.sum(jnp.sin(logits)) + jnp.sum(jnp.sin(values))

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total))(params)):
        assert not gradient[jnp.array([0, 2])].any()
        assert gradient[1].any()


def test_initial_experts_are_orthogonal_and_differ() -> None:
    params = jax.jit(Examination(made("all")).start)(jax.random.key(0))
    kernel_ExIxF = np.asarray(params["actor"]["layer_0_kernel"])
    for kernel in kernel_ExIxF:
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(5), atol=1e-5)
    assert np.abs(kernel_ExIxF[0] - kernel_ExIxF[1]).max() > 0.01
    assert np.linalg.svd(params["actor"]["layer_2_kernel"][0], compute_uv=False) == pytest.approx(np.full(5, 0.01))


def test_dead_units_are_dormant_and_cost_plasticity() -> None:
    """With the first layer dead nothing depends on the observation: of noise of variance 1 on n rows the biases of the
    last layer can take its mean alone, so that the error stays near 1."""
    network = made("none", hidden=32)
    examination = Examination(network)
    params = jax.jit(examination.start)(jax.random.key(0))
    dead = jax.tree.map(lambda a: a, params)
    for tower in dead.values():
        tower["layer_0_bias"] -= 1000.0
    rows = observed(PROBE_ROWS)
    probe = jax.jit(examination.probe)
    fresh, left = float(probe(params, *rows)), float(probe(dead, *rows))
    assert left == pytest.approx(1, abs=0.15)
    assert fresh < 0.8 * left
    inside = jax.jit(examination.inspect)(dead, *rows)
    found = inside_metrics(*inside, np.asarray(rows[1]))
    assert found["silent_frac"] >= 0.5
    assert found["dormant_frac_worst"] == 1
    assert np.isnan(found["router_entropy"])


def test_inspection_sees_gates_and_the_rows_of_experts() -> None:
    network = made("all", "top-k", top_k=1)
    rows = observed(12)
    _, _, (actor, _) = jax.jit(network.apply)({"params": weights_of(network)}, *rows)
    assert [one.shape for one in actor.gates] == 3 * [(12, 3)]
    assert [one.shape for one in actor.hidden] == 2 * [(3, 12, 5)]
    assert actor.features.shape == (1, 12, 5)
    for reached, weight in zip(actor.reached, actor.gates, strict=False):
        np.testing.assert_array_equal(reached.T, np.asarray(weight) > 0)
        assert np.asarray(reached).sum() == 12


@pytest.mark.parametrize("place", ["none", "all", "big"])
def test_channels_that_no_game_shows_can_be_left_out(place: str) -> None:
    """They multiply zeros."""
    network = made(place)
    params, (observation, task) = {"params": weights_of(network)}, observed()
    shown = observation.at[..., 4:].set(False)
    apply = jax.jit(network.apply)
    for whole, part in zip(apply(params, shown, task)[:2], apply(params, shown[..., :4], task)[:2], strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-6)
