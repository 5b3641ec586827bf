"""Parameters and FLOPs of the arms against the formulas of arXiv 2402.08609 and the initialised networks."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from scaling.tasks.rl.arms import (
    ARMS,
    Layer,
    forward_flops,
    head_parameters,
    layer_parameters,
    n_parameters,
    router_parameters,
)
from scaling.tasks.rl.network import QNetwork
from scaling.tasks.value_rl import ValueRL

NATURE_CNN = (8 * 8 * 4 * 32 + 32) + (4 * 4 * 32 * 64 + 64) + (3 * 3 * 64 * 64 + 64)
ONE_SCALE = 1  # learnt scale of normalised slots, which the published layer has and ours has not


@pytest.mark.parametrize(
    ("layer", "published"),
    [
        (Layer("dense", 1, 121 * 64, 1, 512), 4_046_502),
        (Layer("dense", 1, 121 * 64, 1, 8 * 512), 31_826_086),
        (Layer("slots", 121, 64, 1, 512, slots=121), 198_311 - ONE_SCALE),
        (Layer("slots", 121, 64, 8, 512, slots=16), 661_543 - ONE_SCALE),
    ],
)
def test_formulas_give_the_counts_of_the_published_networks(layer: Layer, published: int) -> None:
    """84 x 84 frames, Nature CNN, 121 tokens of 64, 6 actions, no layer norm."""
    ours = layer_parameters(layer, normalised=False) + router_parameters(layer) + head_parameters(layer, 6)
    assert NATURE_CNN + ours == published


@pytest.mark.parametrize("tokenisation", ["per-conv", "per-feat", "per-sample"])
@pytest.mark.parametrize("arm", ARMS)
def test_counts_are_those_of_the_initialised_network(arm: str, tokenisation: str) -> None:
    settings = ValueRL(arm=arm, game="asterix", n_experts=3, d_expert=5, d_conv=4, tokenisation=tokenisation)
    network = QNetwork(settings.layer, settings.d_conv, settings.facts.actions)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 10, 10, settings.facts.channels), bool))
    held = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    frozen = variables.get("constants", {}).get("layer", {}).get("phi")
    held += frozen.size if frozen is not None else 0
    assert n_parameters(settings.layer, settings.facts, settings.d_conv) == held


@pytest.mark.parametrize("n_experts", [2, 4, 8])
def test_the_matched_arm_is_within_half_a_unit_of_soft(n_experts: int) -> None:
    matched, soft = (ValueRL(arm=arm, n_experts=n_experts) for arm in ("dense-matched", "soft"))
    game = soft.facts
    unit = matched.layer.width + 3 + game.actions
    found, wanted = (n_parameters(s.layer, game, s.d_conv) for s in (matched, soft))
    assert abs(found - wanted) <= unit / 2


def test_widths_of_the_controls() -> None:
    assert ValueRL(arm="dense-wide", n_experts=8).layer.hidden == 8 * ValueRL(arm="dense").layer.hidden
    wide = ValueRL(arm="soft-one-wide", n_experts=8).layer
    assert (wide.n_experts, wide.hidden, wide.slots) == (1, 8 * 128, 64)


def test_soft_moe_costs_the_same_for_any_number_of_experts_that_divides_the_tokens() -> None:
    """E P = T slots in all, whatever E (arXiv 2308.00951, section 2.2)."""
    costs = {forward_flops(s.layer, s.facts, s.d_conv) for s in (ValueRL(n_experts=e) for e in (1, 2, 4, 8, 16))}
    assert len(costs) == 1


def products(jaxpr: Any) -> int:
    """FLOPs of all matrix products of a jaxpr and of those within it."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sides = [equation.invars[0].aval.shape[axis] for axis in contracted]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(sides)
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            total += products(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "top1-dropless"])
def test_counted_flops_are_those_of_the_products_that_are_traced(arm: str) -> None:
    """Exactly; but of `top1-dropless`, whose products stand in a loop of as many turns as its tokens need."""
    settings = ValueRL(arm=arm, game="asterix", n_experts=3, d_expert=5, d_conv=4)
    network = QNetwork(settings.layer, settings.d_conv, settings.facts.actions)
    observation = jnp.zeros((1, 10, 10, settings.facts.channels), bool)
    variables = jax.eval_shape(network.init, jax.random.key(0), observation)
    traced = jax.make_jaxpr(network.apply)(variables, observation)
    assert forward_flops(settings.layer, settings.facts, settings.d_conv) == products(traced.jaxpr)
