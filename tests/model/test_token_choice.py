"""Routers of the token-choice kind against float64 loops over experts, their identities, and what they must not
notice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import F32, ULPS, layer, mixture, model, normal, routed, sigmoid, softmax, tokens, training

from scaling.model.moe import routing
from scaling.model.moe.routers.token_choice import TopK

E, K, T, D = 8, 2, 40, 16


def top(score, k=K):
    """0/1 matrix of the k largest of each row."""
    order = np.argsort(-score, axis=1)[:, :k]
    return np.any(order[:, :, None] == np.arange(score.shape[1]), axis=1)


def kept_softmax(z):
    return softmax(np.where(top(z), z, -np.inf))


def by_group(z, groups=K):
    """Softmax and its largest in each of `groups` groups, side by side."""
    parts = np.split(z, groups, axis=1)
    return np.concatenate([softmax(part) * top(part, 1) for part in parts], axis=1)


def best_groups(z, n_groups, kept):
    """The k largest of the experts in the groups with the largest largest."""
    of_group = top(np.stack([part.max(axis=1) for part in np.split(z, n_groups, axis=1)], axis=1), kept)
    return top(np.where(np.repeat(of_group, z.shape[1] // n_groups, axis=1), z, -np.inf))


def over(chosen, z, total, scale=1.0):
    """Scores of the chosen over a sum of scores."""
    return scale * sigmoid(z) * chosen / np.sum(sigmoid(z) * total, axis=1, keepdims=True)


def transformed(name, function):
    return model("bounded", n_experts=E, gate_transform=name), lambda x, w: kept_softmax(function(x) @ w)


def of_logits(config, weights):
    return config, lambda x, w: weights(x @ w)


# A configuration, and the weights [T, E] it should give, from tokens and router weights in float64.
CASES = {
    "switch": of_logits(model("switch", n_experts=E), lambda z: softmax(z) * top(z, 1)),
    "topk": of_logits(model("topk", n_experts=E), kept_softmax),
    "topk before": of_logits(model("topk", n_experts=E, renormalise=False), lambda z: softmax(z) * top(z)),
    "topk of one": of_logits(model("topk", n_experts=E, top_k=1), lambda z: softmax(z) * top(z, 1)),
    "bounded sigmoid": transformed("sigmoid", sigmoid),
    "bounded tanh": transformed("tanh", np.tanh),
    "bounded cos": transformed("cos", np.cos),
    "bounded identity": transformed("identity", lambda x: x),
    "prototype": of_logits(model("prototype", n_experts=E), by_group),
    "sigmoid all": of_logits(model("sigmoid", n_experts=E), lambda z: over(top(z), z, 1.0)),
    "sigmoid selected": of_logits(
        model("sigmoid", n_experts=E, normalise_over="selected", route_scale=2.5),
        lambda z: over(top(z), z, top(z), 2.5),
    ),
    "sigmoid groups": of_logits(
        model("sigmoid", n_experts=E, n_groups=4, groups_kept=2), lambda z: over(best_groups(z, 4, 2), z, 1.0)
    ),
}


@functools.cache
def compiled(name):
    config, expected = CASES[name]
    x = normal(2, T // 2, D)
    moe, params = layer(config, x, tokens(T // 2, 2))
    return jax.jit(lambda p, x: moe.apply(p, x, tokens(T // 2, 2))), params["params"], x, expected


@pytest.mark.parametrize("name", CASES)
def test_the_layer_matches_a_loop_over_experts(name):
    """The choice is the same for every token, and the output to rounding. The draws have no two scores so near that
    float32 could order them otherwise."""
    apply, params, x, expected = compiled(name)
    out, routed_ = apply({"params": params}, x)
    rows = np.asarray(x, np.float64).reshape(T, D)
    weight_TxE = expected(rows, np.asarray(params["router"]["weight"], np.float64))
    np.testing.assert_array_equal(routing.chosen_by_expert(routed_), weight_TxE > 0)
    np.testing.assert_allclose(routing.weights_by_expert(routed_), weight_TxE, **F32)
    np.testing.assert_allclose(out.reshape(T, D), mixture(params["experts"], weight_TxE, rows), **F32)
    np.testing.assert_allclose(np.sum(routed_.gates_TxE, axis=1), 1.0, **ULPS)
    assert float(jnp.sum(routing.assignments(routed_))) == pytest.approx(np.mean(np.sum(weight_TxE > 0, axis=1)))


@pytest.mark.parametrize("name", CASES)
def test_permuting_experts_changes_nothing(name):
    """Columns of the router and weights of the experts alike. Groups go with their experts: the order moves halves as a
    whole, and pairs within them."""
    apply, params, x, _ = compiled(name)
    order = np.array([6, 7, 5, 4, 2, 3, 0, 1])
    moved = {
        "experts": jax.tree.map(lambda w: w[order], params["experts"]),
        "router": {"weight": params["router"]["weight"][:, order]},
    }
    np.testing.assert_allclose(apply({"params": moved}, x)[0], apply({"params": params}, x)[0], **F32)


@pytest.mark.parametrize("name", CASES)
def test_permuting_tokens_permutes_the_outputs(name):
    """Dropless: a token's output does not depend on where it stands, or on the others."""
    apply, params, x, _ = compiled(name)
    order = np.random.default_rng(1).permutation(T)
    move = lambda y: y.reshape(T, D)[order].reshape(2, T // 2, D)  # noqa: E731
    np.testing.assert_allclose(apply({"params": params}, move(x))[0], move(apply({"params": params}, x)[0]), **F32)


# ------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("k", [2, 3, 8])
def test_softmax_over_chosen_logits_equals_the_renormalised_softmax(k):
    """In float64: both take the same sums, so they differ by rounding of 2^-53, a few times."""
    with jax.enable_x64(True):
        z = jnp.asarray(np.random.default_rng(0).normal(size=(50, E)))
        gates = jax.nn.softmax(z, axis=-1)
        after, before = (TopK(model("topk", n_experts=E, top_k=k, renormalise=r)) for r in (True, False))
        chosen = after.select(z)
        kept = before.weights(z, gates, chosen)
        assert kept.dtype == jnp.float64
        renormalised = kept / jnp.sum(kept, axis=1, keepdims=True)
        np.testing.assert_allclose(after.weights(z, gates, chosen), renormalised, rtol=1e-12, atol=0)
        if k < E:  # without renormalising, a part of the mass is missing
            assert np.all(np.sum(kept, axis=1) < 0.999)


def test_choosing_every_expert_gives_the_dense_mixture():
    """k = E: softmax gates are all kept, both sums of sigmoid scores are the same, and prototypes of one expert weigh
    1."""
    z = normal(30, E)
    weights = {
        name: np.asarray(routing.weights_by_expert(routed(model(router, n_experts=E, top_k=E, **changes), z)))
        for name, router, changes in [
            ("topk", "topk", {}),
            ("all", "sigmoid", {}),
            ("selected", "sigmoid", {"normalise_over": "selected"}),
            ("prototype", "prototype", {}),
        ]
    }
    np.testing.assert_allclose(weights["topk"], softmax(z), **ULPS)
    np.testing.assert_allclose(weights["all"], sigmoid(z) / sigmoid(z).sum(axis=1, keepdims=True), **ULPS)
    np.testing.assert_allclose(weights["selected"], weights["all"], **ULPS)
    np.testing.assert_array_equal(weights["prototype"], 1.0)


def test_the_two_sums_of_sigmoid_scores_differ_by_their_ratio():
    z = normal(60, E)
    all_, selected = (routed(model("sigmoid", n_experts=E, normalise_over=over), z) for over in ("all", "selected"))
    np.testing.assert_array_equal(all_.chosen_TxK, selected.chosen_TxK)
    share = np.sum(sigmoid(z) * top(np.asarray(z)), axis=1) / sigmoid(z).sum(axis=1)
    np.testing.assert_allclose(all_.weight_TxK, selected.weight_TxK * share[:, None], **ULPS)
    np.testing.assert_allclose(np.sum(selected.weight_TxK, axis=1), 1.0, **ULPS)


@pytest.mark.parametrize("name", ["switch", "topk", "topk before", "prototype", "sigmoid all"])
def test_softmax_gates_do_not_see_a_shift_and_sigmoid_gates_do(name):
    """Adding 3 rounds the logits to 2^-22 at most; softmax passes that on, relative to its value."""
    config, z = CASES[name][0], normal(50, E)
    here, there = routed(config, z), routed(config, z + 3)
    np.testing.assert_array_equal(here.chosen_TxK, there.chosen_TxK)
    if name.startswith("sigmoid"):
        assert np.max(np.abs(here.weight_TxK - there.weight_TxK)) > 0.01
    else:
        np.testing.assert_allclose(here.weight_TxK, there.weight_TxK, rtol=4 * 2.0**-22, atol=0)


def test_top_1_of_each_router_is_switch_exactly():
    """The softmax before the choice, or the router would have no gradient; prototypes: one group."""
    z = normal(50, E)
    switch = routed(model("switch", n_experts=E), z)
    for router in ("topk", "prototype"):
        one = routed(model(router, n_experts=E, top_k=1), z)
        for name in ("chosen_TxK", "weight_TxK", "gates_TxE"):
            np.testing.assert_array_equal(getattr(one, name), getattr(switch, name), err_msg=router)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_prototypes_take_one_expert_of_each_group(k):
    found = routed(model("prototype", n_experts=E, top_k=k), normal(50, E))
    np.testing.assert_array_equal(np.asarray(found.chosen_TxK) // (E // k), np.broadcast_to(np.arange(k), (50, k)))


def test_only_the_chosen_move_the_router():
    """Weights by the softmax over the kept logits: no derivative with respect to the others; before the choice: all."""
    z = normal(20, E)
    for name, all_ in (("topk", False), ("topk before", True)):
        config = CASES[name][0]
        slope = jax.jit(jax.grad(lambda z, config=config: jnp.sum(jnp.sin(routed(config, z).weight_TxK))))(z)
        moved = np.asarray(slope) != 0
        np.testing.assert_array_equal(moved, np.ones_like(moved) if all_ else top(np.asarray(z)))


# ------------------------------------------------------------------------------------------------- jitter


def test_jitter_multiplies_what_the_gate_reads_in_training_alone():
    """By numbers of 1 +- the jitter, of each token and entry, that belong to a sequence and a step: a device that has
    the second sequence alone draws the same."""
    config, plain, x = model("topk", n_experts=E, jitter=0.25), model("topk", n_experts=E), normal(40, E)
    quiet = routed(plain, x)
    np.testing.assert_array_equal(routed(config, x).logits_TxE, quiet.logits_TxE)
    noisy = routed(config, x, tokens(20, 2, training(7, 2)))
    factor = np.asarray(noisy.logits_TxE / x, np.float64)
    assert factor.min() >= 0.75 - 1e-6  # a unit in the last place or two
    assert factor.max() <= 1.25 + 1e-6
    # 320 uniform numbers of deviation .5/sqrt(12) = .144: their mean is within .032 with four deviations.
    assert abs(factor.mean() - 1) < 4 * 0.144 / np.sqrt(factor.size)
    assert len(np.unique(factor.round(5))) > 300
    alone = tokens(20, 1, training(7, 1).replace(sequence_B=jnp.array([1])))
    np.testing.assert_array_equal(routed(config, x[20:], alone).logits_TxE, noisy.logits_TxE[20:])
    later = routed(config, x, tokens(20, 2, training(8, 2)))
    assert np.all(np.any(later.logits_TxE != noisy.logits_TxE, axis=1))


def test_the_gate_reads_a_transform_of_its_input_and_identity_is_topk():
    x = normal(30, E)
    for name in ("chosen_TxK", "weight_TxK", "logits_TxE"):
        identity, plain = (
            routed(config, x) for config in (model("bounded", n_experts=E, gate_transform="identity"), CASES["topk"][0])
        )
        np.testing.assert_array_equal(getattr(identity, name), getattr(plain, name))


def derivatives(transform):
    """At expert slope 0: the columns M(x) g, x g, g of the derivatives by gate slope and intercept, by the slope of the
    expert, and by its intercept, with the gate's numerator g = .21 exp(.7 M(x))."""
    x = np.random.default_rng(0).normal(size=400)
    gate = 0.21 * np.exp(0.7 * transform(x))
    return np.stack([transform(x) * gate, x * gate, gate], axis=1)


@pytest.mark.parametrize(
    ("transform", "rank"),
    [
        (lambda x: x, 2), (lambda x: 2 * x + 1, 2), (np.tanh, 3), (np.cos, 3), (sigmoid, 3),
    ],
    ids=["identity", "affine", "tanh", "cos", "sigmoid"],
)  # fmt: skip
def test_bounded_transforms_separate_gate_and_experts(transform, rank):
    """Why the transforms are there (arXiv 2310.14188): with x itself the derivative by gate and expert intercept is
    that by the expert's slope; with a bounded M(x) the set has full rank. Plain NumPy, no code of ours but the
    formulas."""
    columns = derivatives(transform)
    assert np.linalg.matrix_rank(columns, tol=1e-8 * np.linalg.norm(columns)) == rank


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "cos", "identity"])
def test_the_transforms_of_the_code_are_these(name):
    x = normal(40, E)
    formula = {"sigmoid": sigmoid, "tanh": np.tanh, "cos": np.cos, "identity": lambda x: x}[name]
    found = routed(model("bounded", n_experts=E, gate_transform=name), x).logits_TxE
    np.testing.assert_allclose(found, formula(np.asarray(x, np.float64)), rtol=1e-6, atol=1e-6)
