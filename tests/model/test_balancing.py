"""Load balancing and its metrics: the balance penalty, selection bias, and capacity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import F32, chosen_sets, layer, measured, mixture, model, normal, routed, sigmoid, softmax, tokens

from scaling.model.moe import routing
from scaling.model.moe.routers.token_choice import moved_bias
from scaling.model.moe.routing import Routing
from scaling.model.transformer import rebalanced

E = 8


def bias(values):
    return {"balance": {"bias": jnp.asarray(values, jnp.float32)}}


def loads(found):
    return np.asarray(routing.assignments(found), np.float64)


def max_vio(load):
    return load.max() / load.mean() - 1


# ------------------------------------------------------------------------------------------------ penalty


def test_with_flat_gates_the_load_but_not_the_penalty_shows_collapse():
    """Every argmax falls on one expert by a hair, which the penalty barely sees. P_0 is at most e^d/E for a logit d
    above the others, so with d = 1e-4 the penalty is within 1e-3 of 1; MaxVio is E - 1."""
    found = routed(model("switch", n_experts=E), np.tile(np.eye(E)[0] * 1e-4, (64, 1)))
    values = measured(found)
    assert float(values["balance_loss"]) == pytest.approx(1.0, abs=1e-3)
    assert float(values["max_load"]) - 1 == E - 1
    assert float(values["utilisation"]) == pytest.approx(1 / E, rel=1e-6)


def test_the_penalty_has_its_gradient_through_the_mean_gates():
    """d/dz of E sum_e f_e P_e with f fixed is E/T p_i (f_i - sum_e f_e p_e); written out in float64."""
    config, z = model("topk", n_experts=E), normal(30, E)

    def penalty(z):
        found = routed(config, z)
        load_E = routing.assignments(found)
        return routing.balance_loss(found, load_E / jnp.sum(load_E))

    p, load = softmax(z), loads(routed(config, z))
    share = load / load.sum()
    expected = E / 30 * p * (share - np.sum(share * p, axis=1, keepdims=True))
    np.testing.assert_allclose(jax.jit(jax.grad(penalty))(z), expected, rtol=1e-5, atol=1e-8)


def test_z_loss_of_equal_logits():
    """(c + ln E)^2 when every logit is c; the entropy of such gates is the largest there is."""
    for c in (0.0, -2.5):
        values = measured(routed(model("switch", n_experts=E), np.full((5, E), c)))
        assert float(values["z_loss"]) == pytest.approx((c + np.log(E)) ** 2, rel=1e-6)
        assert float(values["router_entropy"]) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("router", "changes"), [("topk", {}), ("tsallis", {}), ("sigmoid", {"route_scale": 2.5})])
def test_metrics_match_numpy(router, changes):
    found = routed(model(router, n_experts=E, **changes), 2 * normal(64, E))
    chosen = np.asarray(routing.chosen_by_expert(found))
    weight = np.asarray(routing.weights_by_expert(found), np.float64)
    gates = np.asarray(found.gates_TxE, np.float64)
    load = chosen.sum(axis=0)
    cv = load.std() / load.mean()
    values = {name: float(v) for name, v in measured(found).items()}
    expected = {
        "load_cv": cv,
        "max_load": load.max() / load.mean(),
        "utilisation": load.sum() ** 2 / (E * np.sum(load**2)),  # Jain's index as it is defined
        "router_entropy": -np.mean(np.sum(gates * np.log(gates), axis=1)) / np.log(E),
        "experts_per_token": chosen.sum(axis=1).mean(),
        "gate_sum": weight.sum(axis=1).mean(),
        "dropped_frac": 0.0,
    }
    assert values["utilisation"] == pytest.approx(1 / (1 + cv**2), rel=1e-5)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-5), name


# --------------------------------------------------------------------------------------------------- bias


def v3(z, b, k, n_groups=1, kept=1, scale=1.0):
    """DeepSeek-V3's gate for one token in float64: the chosen set, its weights, and the smallest margin of a
    comparison."""
    s = sigmoid(z)
    v, size, margins = s + b, len(z) // n_groups, [np.inf]
    groups = range(n_groups)
    if kept < n_groups:
        score = [np.sort(v[g * size : (g + 1) * size])[-2:].sum() for g in groups]
        best = np.argsort(score)[::-1]
        margins.append(score[best[kept - 1]] - score[best[kept]])
        groups = best[:kept]
    inside = [e for g in groups for e in range(g * size, (g + 1) * size)]
    order = sorted(inside, key=lambda e: -v[e])
    if k < len(order):
        margins.append(v[order[k - 1]] - v[order[k]])
    chosen = order[:k]
    return set(chosen), {e: scale * s[e] / s[chosen].sum() for e in chosen}, min(margins)


@pytest.mark.parametrize(
    ("b", "groups"),
    [(0.0, (1, 1)), (-0.9, (8, 4)), (0.3, (8, 4)), ("random", (8, 4)), ("random", (4, 1)), ("random", (1, 1))],
)
def test_the_gate_of_deepseek_v3(b, groups):
    """E = 32, k = 4, weights that add up to 2.5. With b = -0.9 every score is negative, so groups that are masked with
    0 instead of -inf would win. Tokens that a rounding of float32 (scores and sums below 2: 2^-23, a few times) could
    decide otherwise are left out, and are few."""
    rng = np.random.default_rng(0)
    n_experts, z = 32, np.asarray(normal(500, 32), np.float64)
    b = rng.normal(scale=0.2, size=n_experts) if b == "random" else np.full(n_experts, b)
    b = b.astype(np.float32).astype(np.float64)
    config = model(
        "sigmoid", n_experts=n_experts, top_k=4, normalise_over="selected", route_scale=2.5, bias_rate=0.001,
        n_groups=groups[0], groups_kept=groups[1],
    )  # fmt: skip
    found = routed(config, z, **bias(b))
    by_hand = [v3(row, b, 4, *groups, 2.5) for row in z]
    sure = np.array([margin > 1e-6 for *_, margin in by_hand])
    assert sure.mean() > 0.95
    weight, sets = np.asarray(routing.weights_by_expert(found)), chosen_sets(found)
    for t in np.flatnonzero(sure):
        chosen, expected, _ = by_hand[t]
        assert sets[t] == chosen
        np.testing.assert_allclose(weight[t, list(expected)], list(expected.values()), rtol=1e-6)
    used = np.stack([g.any(axis=1) for g in np.split(weight > 0, groups[0], axis=1)], axis=1).sum(axis=1)
    assert used.max() <= groups[1]
    np.testing.assert_allclose(weight.sum(axis=1), 2.5, rtol=1e-6)


def test_a_group_scores_its_largest_without_a_bias_and_its_two_largest_with_one():
    """Group 0 has the largest score, group 1 the largest pair."""
    z = np.log([[9.0, 0.1, 4.0, 4.0]])  # scores .9, .09, .8, .8
    settings = {"n_experts": 4, "top_k": 1, "n_groups": 2, "groups_kept": 1}
    assert chosen_sets(routed(model("sigmoid", **settings), z)) == [{0}]
    assert chosen_sets(routed(model("sigmoid", bias_rate=0.001, **settings), z, **bias(np.zeros(4))))[0] < {2, 3}


@pytest.mark.parametrize("router", ["switch", "topk", "bounded", "prototype", "sigmoid"])
def test_a_bias_affects_selection_but_not_weights(router):
    """A bias that moves no choice leaves every number as it was; one that does moves choices alone; and nothing comes
    back to it as a gradient."""
    config, z = model(router, n_experts=E, bias_rate=0.001), 2 * normal(60, E)
    plain = routed(config, z, **bias(np.zeros(E)))
    no_bias = routed(config.model_copy(update={"bias_rate": 0.0}), z)
    np.testing.assert_array_equal(plain.chosen_TxK, no_bias.chosen_TxK)
    np.testing.assert_array_equal(plain.weight_TxK, no_bias.weight_TxK)
    shifted = routed(config, z, **bias(np.full(E, 0.5)))
    np.testing.assert_array_equal(shifted.chosen_TxK, plain.chosen_TxK)
    np.testing.assert_array_equal(shifted.weight_TxK, plain.weight_TxK)
    pushed = np.zeros(E)
    pushed[5] = 10.0
    everywhere = routed(config, z, **bias(pushed))
    assert all(5 in chosen for chosen in chosen_sets(everywhere))
    same = np.array([a == b for a, b in zip(chosen_sets(everywhere), chosen_sets(plain), strict=True)])
    assert 0 < same.sum() < 60
    before, after = (np.asarray(routing.weights_by_expert(one))[same] for one in (plain, everywhere))
    # Chosen in another order, so renormalising sums add in another order.
    np.testing.assert_allclose(after, before, rtol=2**-22, atol=0)

    def loss(b):
        found = routed(config, z, **bias(b))
        return jnp.sum(jnp.sin(found.weight_TxK)) + routing.balance_loss(found, jnp.ones(E) / E) + routing.z_loss(found)

    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(jnp.asarray(pushed, jnp.float32)), 0.0)


def test_the_bias_balances_loads_and_the_opposite_sign_does_not():
    """Fixed sigmoid scores of skewed logits, T = 2048, E = 8, k = 2, 3000 updates of 1e-3. At the end the bias steps to
    and fro by 1e-3, which moves some thousandths of the tokens of an expert; upside down everyone goes where most
    are."""
    config = model("sigmoid", n_experts=E, bias_rate=0.001)
    z = normal(2048, E) + jnp.linspace(-1.5, 1.5, E)

    @jax.jit
    def after(rate):
        def update(b, _):
            return moved_bias(b, routing.assignments(routed(config, z, **bias_of(b))), rate), None

        return jax.lax.scan(update, jnp.zeros(E), length=3000)[0]

    def bias_of(b):
        return {"balance": {"bias": b}}

    violation = {rate: max_vio(loads(routed(config, z, **bias_of(after(rate))))) for rate in (1e-3, -1e-3)}
    assert max_vio(loads(routed(config, z, **bias(np.zeros(E))))) > 0.5
    assert violation[1e-3] < 0.02
    assert violation[-1e-3] > 1


def test_an_update_of_the_bias():
    """Up where an expert has too few tokens, by the rate whatever the difference; not at all where loads are equal."""
    b = jnp.array([0.5, -0.5, 0.0, 0.25])
    np.testing.assert_allclose(
        moved_bias(b, jnp.array([0.1, 0.3, 0.2, 0.2]), 0.125), [0.625, -0.625, 0.0, 0.25], rtol=0
    )
    np.testing.assert_array_equal(moved_bias(b, jnp.full(4, 0.5), 0.125), b)
    np.testing.assert_array_equal(moved_bias(b, jnp.array([0.1, 0.3, 0.2, 0.0]), 0.0), b)


def test_each_layer_updates_its_own_bias():
    config = model("topk", n_layers=2, bias_rate=0.25)
    weights = {"params": {"kept": jnp.ones(2)}}
    before = {f"block_{i}": {"moe": {"router": {"bias": jnp.zeros(4)}}} for i in range(2)}
    assigned = jnp.array([[2.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.25, 0.75]])
    after = rebalanced(config, {**weights, "balance": before}, assigned)
    np.testing.assert_array_equal(after["balance"]["block_0"]["moe"]["router"]["bias"], [-0.25, 0.25, 0.25, 0.25])
    np.testing.assert_array_equal(after["balance"]["block_1"]["moe"]["router"]["bias"], [0.0, 0.0, 0.25, -0.25])
    assert after["params"] is weights["params"]
    assert rebalanced(config, weights, assigned) is weights


# ----------------------------------------------------------------------------------------------- capacity


@pytest.mark.parametrize(("per", "room"), [("kx", 16), ("1x", 4)])
@pytest.mark.parametrize("router", ["prototype", "topk"])
def test_capacity_grows_with_k_or_stays_that_of_a_top_1_router(router, per, room):
    """T = 32, E = 8, factor 1: k = 4 gives C = 4 x 32 / 8 = 16 places, "1x" 32 / 8 = 4. What has no place is counted by
    hand from the choices, and reported by the layer; its output is the same sum without it."""
    config = model(router, n_experts=E, top_k=4, dispatch="capacity", capacity_factor=1.0, capacity_per=per)
    x, known = normal(1, 32, 16), tokens(32)
    moe, params = layer(config, x, known)
    out, found = jax.jit(moe.apply)(params, x, known)
    filled, kept = np.zeros(E, int), np.zeros((32, 4), bool)
    for t, chosen in enumerate(np.asarray(found.chosen_TxK)):
        for column, e in enumerate(chosen):
            kept[t, column] = filled[e] < room
            filled[e] += 1
    assert not kept.all()
    assert float(found.dropped) == pytest.approx(1 - kept.mean(), abs=1e-6)
    less = Routing(jnp.where(kept, found.chosen_TxK, E), found.weight_TxK, found.gates_TxE)
    expected = mixture(params["params"]["experts"], routing.weights_by_expert(less), x[0])
    np.testing.assert_allclose(out[0], expected, **F32)


def test_room_for_every_token_drops_nothing():
    """C = T: the same as dropless."""
    x, known = normal(1, 32, 16), tokens(32)
    config = model("topk", n_experts=E, dispatch="capacity", capacity_factor=E / 2)
    moe, params = layer(config, x, known)
    out, found = jax.jit(moe.apply)(params, x, known)
    assert float(found.dropped) == 0.0
    other = layer(config.model_copy(update={"dispatch": "grouped"}), x, known)[0]
    np.testing.assert_allclose(out, jax.jit(other.apply)(params, x, known)[0], **F32)
