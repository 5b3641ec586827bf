"""Gates that decide the number of experts per token: the Tsallis hybrid and entmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import F32, ULPS, chosen_sets, layer, mixture, model, normal, routed, softmax, tokens

from scaling.model.moe import routing
from scaling.model.moe.routers.entmax import entmax15
from scaling.model.moe.routers.tsallis import entropy, normalised_entropy

E = 8


def tsallis(**changes):
    return model("tsallis", n_experts=E, **changes)


# ------------------------------------------------------------------------------------------------ entropy


def test_entropy_is_shannons_at_one_and_gini_at_two():
    """In float64. Near 1 the difference is of the order of q - 1; at 2 it is rounding."""
    with jax.enable_x64(True):
        p = jnp.asarray(softmax(2 * np.random.default_rng(0).normal(size=(50, E))))
        shannon = -np.sum(p * np.log(p), axis=1)
        np.testing.assert_allclose(entropy(p, 1.0), shannon, rtol=1e-12)
        np.testing.assert_allclose(entropy(p, 1 + 1e-6), shannon, atol=1e-4)
        np.testing.assert_allclose(entropy(p, 2.0), 1 - np.sum(p**2, axis=1), rtol=1e-12)


@pytest.mark.parametrize("q", [0.9, 1 - 1e-6, 1.0, 1 + 1e-6, 1.001, 1.1, 2.0])
def test_entropy_in_float32_matches_float64(q):
    """As the router computes it; a sum of 8 numbers, so to some units of 2^-24 of its size, which 1e-4 leaves ample
    room."""
    p = softmax(2 * normal(50, E))
    exact = -np.sum(p * np.log(p), axis=1) if q == 1 else (1 - np.sum(p**q, axis=1)) / (q - 1)
    np.testing.assert_allclose(entropy(jnp.asarray(p, jnp.float32), q), exact, atol=1e-4)


@pytest.mark.parametrize("q", [0.5, 1.0, 1.1, 2.0])
def test_normalised_entropy_is_one_for_uniform_and_zero_for_one_hot_gates(q):
    rows = jnp.stack([jnp.full(E, 1 / E), jnp.eye(E)[3]])
    np.testing.assert_allclose(normalised_entropy(rows, q), [1.0, 0.0], atol=1e-5)


# ------------------------------------------------------------------------------------------------- hybrid


def hybrid(p, q, threshold, top_p, k, include):
    """The rule of arXiv 2504.00661 for one token, in words: everyone if undecided; else the likely ones up to a
    mass."""
    uncertain = (1 - np.sum(p**q)) / (1 - len(p) ** (1 - q))
    if threshold < 1 and uncertain > threshold:
        return set(range(len(p)))
    chosen, mass = set(), 0.0
    for rank, e in enumerate(np.argsort(-p)):
        if (mass < top_p if include else mass + p[e] <= top_p) or rank < k:
            chosen.add(int(e))
        mass += p[e]
    return chosen


@pytest.mark.parametrize("nucleus", ["exclude", "include"])
@pytest.mark.parametrize(("threshold", "top_p", "k"), [(0.9, 0.75, 2), (0.7, 0.5, 1), (1.0, 0.9, 2), (1.5, 0.6, 1)])
def test_the_hybrid_matches_the_rule_of_the_paper(nucleus, threshold, top_p, k):
    config = tsallis(entropy_threshold=threshold, top_p=top_p, top_k=k, nucleus=nucleus)
    z = 1.5 * normal(200, E)
    found, p = routed(config, z), softmax(z)
    expected = [hybrid(row, 1.1, threshold, top_p, k, nucleus == "include") for row in p]
    assert chosen_sets(found) == expected
    counts = [len(chosen) for chosen in expected]
    assert (max(counts) == E) == (threshold < 1)
    assert min(counts) < E
    mask = np.array([[e in chosen for e in range(E)] for chosen in expected])
    np.testing.assert_allclose(routing.weights_by_expert(found), mask * p, **ULPS)  # not renormalised
    np.testing.assert_allclose(found.gates_TxE, p, **ULPS)


def test_the_expert_that_crosses_top_p_is_excluded_or_included():
    """p = (.5, .3, .15, .05) and top_p = .75: .5 is within, .8 crosses. With k = 1 the released rule keeps one expert,
    nucleus sampling two; with k = 3 both keep three."""
    z = np.log([[0.5, 0.3, 0.15, 0.05]])

    def kept(nucleus, k):
        config = model("tsallis", n_experts=4, top_k=k, top_p=0.75, entropy_threshold=1.0, nucleus=nucleus)
        return chosen_sets(routed(config, z))[0]

    assert kept("exclude", 1) == {0}
    assert kept("include", 1) == {0, 1}
    assert kept("exclude", 3) == kept("include", 3) == {0, 1, 2}


ROWS = np.concatenate(
    [np.asarray(normal(40, E)), [[200.0] + [0.0] * (E - 1)], [[0.0] * E], [[9.0] * 2 + [0.0] * (E - 2)]]
)


def test_a_threshold_below_zero_reaches_every_expert():
    """Of zero: every token but one whose probability is 1 and that of the others 0, as float32 has it."""
    assert chosen_sets(routed(tsallis(entropy_threshold=-1.0), ROWS)) == [set(range(E))] * len(ROWS)
    at_zero = chosen_sets(routed(tsallis(entropy_threshold=0.0), ROWS))
    decided = 40  # the row of e^-200 beside 1
    assert [len(chosen) for t, chosen in enumerate(at_zero) if t != decided] == [E] * (len(ROWS) - 1)
    assert len(at_zero[decided]) == 2  # its top k


@pytest.mark.parametrize("nucleus", ["exclude", "include"])
def test_a_mass_of_one_reaches_every_expert(nucleus):
    """Whatever the sum of float32 probabilities comes to, and however unlikely the last ones are."""
    config = tsallis(entropy_threshold=1.0, top_p=1.0, nucleus=nucleus)
    rows = np.concatenate([ROWS, [[40.0] + [0.0] * (E - 1)]])
    assert chosen_sets(routed(config, rows)) == [set(range(E))] * len(rows)


def test_losses_of_the_hybrid():
    """entropy_coef mean(S) beside E sum_e mean(mask p)_e mean(p)_e; only the mask has no derivative."""
    config, z = tsallis(entropy_coef=0.5, entropy_threshold=0.8), 1.5 * normal(60, E)
    found, p = routed(config, z), softmax(z)
    mask = np.asarray(routing.chosen_by_expert(found))
    uncertain = (1 - np.sum(p**1.1, axis=1)) / (1 - E**-0.1)
    assert float(found.penalty) == pytest.approx(0.5 * uncertain.mean(), rel=1e-4)  # 1 - sum p^q cancels
    balance = routing.balance_loss(found, jnp.ones(E) / E)
    assert float(balance) == pytest.approx(E * np.sum((mask * p).mean(axis=0) * p.mean(axis=0)), rel=1e-5)

    def penalties(z):
        found = routed(config, z)
        return found.penalty + routing.balance_loss(found, jnp.ones(E) / E)

    slope = jax.jit(jax.grad(penalties))(z)
    assert np.all(np.isfinite(slope))
    assert np.all(np.any(slope != 0, axis=1))


# ------------------------------------------------------------------------------------------------- entmax


def bisection(z):
    """1.5-entmax of a row by bisection of its threshold, in float64: max(z / 2 - theta, 0)^2 that sums to 1."""
    half = np.asarray(z, np.float64) / 2
    low, high = half.max() - 1, half.max()
    for _ in range(100):
        theta = (low + high) / 2
        low, high = (theta, high) if np.sum(np.maximum(half - theta, 0) ** 2) > 1 else (low, theta)
    return np.maximum(half - theta, 0) ** 2


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 5.0, 100.0])
def test_entmax_against_bisection(scale):
    z = scale * normal(50, E)
    entmax = jax.jit(entmax15)
    p = entmax(z)
    np.testing.assert_allclose(p, np.stack([bisection(row) for row in z]), rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(np.sum(p, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(entmax(z - 7.0), p, atol=max(1.0, scale) * 1e-6)  # the shift rounds the logits
    assert np.any(np.asarray(p) == 0) == (scale > 0)
    if scale == 0:
        np.testing.assert_allclose(p, 1 / E, rtol=1e-6)


def test_entmax_of_rows_with_ties_and_single_entries():
    rows = jnp.array([[3.0, 3.0, -9.0, -9.0], [0.0, 0.0, 0.0, -50.0], [60.0, 0.0, 0.0, 0.0], [1e4, 1e4, 1e4, -1e4]])
    third = 1 / 3
    expected = [[0.5, 0.5, 0, 0], [third, third, third, 0], [1, 0, 0, 0], [third, third, third, 0]]
    np.testing.assert_allclose(jax.jit(entmax15)(rows), expected, atol=1e-6)


def test_the_gradient_of_entmax_against_finite_differences():
    """In float64, central differences of 1e-6: their error is of 1e-12 by the third derivative and 1e-10 by rounding.
    Rows within 1e-3 of a change of support are left out, where p'' jumps."""
    with jax.enable_x64(True):
        z = jnp.asarray(np.random.default_rng(0).normal(size=(30, E)) * 1.5)
        p = np.asarray(entmax15(z))
        away = np.all((p == 0) | (p > 1e-6), axis=1)
        assert away.sum() > 20
        weight = jnp.asarray(np.random.default_rng(1).normal(size=E))
        value = jax.jit(lambda z: entmax15(z) @ weight)
        slope = jax.jit(jax.grad(lambda z: jnp.sum(value(z))))(z)
        step = 1e-6 * np.eye(E)
        numeric = np.stack([(value(z + one) - value(z - one)) / 2e-6 for one in step], axis=1)
        np.testing.assert_allclose(np.asarray(slope)[away], numeric[away], rtol=1e-6, atol=1e-8)
        assert np.all(np.asarray(slope)[away][p[away] == 0] == 0)
        np.testing.assert_allclose(np.sum(slope, axis=1), 0, atol=1e-12)  # a shift changes nothing


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_gate_is_entmax_of_normalised_logits(norm):
    """Over the experts of a token, or over the tokens of the batch; no affine part, epsilon 1e-2."""
    z = np.asarray(3 * normal(40, E) + 1, np.float64)
    axis = 1 if norm == "layer" else 0
    centred = z - z.mean(axis=axis, keepdims=True)
    normed = centred / np.sqrt(np.mean(centred**2, axis=axis, keepdims=True) + 0.01)
    found = routed(model("entmax", n_experts=E, gate_norm=norm, leak_study=True), z)
    expected = np.stack([bisection(row) for row in normed])
    np.testing.assert_allclose(found.gates_TxE, expected, rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(routing.chosen_by_expert(found), np.asarray(found.gates_TxE) > 0)
    np.testing.assert_array_equal(routing.weights_by_expert(found), found.gates_TxE)


def test_initially_all_experts_have_equal_weight_and_the_gradient_is_moderate():
    """G = 0 gives a = 1/E. The derivative of the norm there is 1/sqrt(epsilon) = 10, not the 316 of the usual epsilon;
    that of entmax at equal logits is root p = E^-1/2 times the centred tangent."""
    x, known = normal(30, 16), tokens(30)
    router = model("entmax", n_experts=E).router_facts.load()(model("entmax", n_experts=E))
    params = jax.jit(router.init)(jax.random.key(0), x, known)
    np.testing.assert_allclose(jax.jit(router.apply)(params, x, known).gates_TxE, 1 / E, rtol=1e-6)
    target = normal(30, E)
    slope = jax.jit(jax.grad(lambda p: jnp.sum(router.apply(p, x, known).gates_TxE * target)))(params)["params"][
        "weight"
    ]
    centred = np.asarray(target) - np.mean(target, axis=1, keepdims=True)
    np.testing.assert_allclose(slope, 10 * E**-0.5 * np.asarray(x).T @ centred, **F32 | {"atol": 1e-4})


@pytest.mark.parametrize("router", ["tsallis", "entmax"])
def test_a_layer_with_any_number_of_experts_matches_a_loop_over_them(router):
    """With full experts, dropless: columns that a token does not use cost nothing and add nothing."""
    config, x, known = model(router, n_experts=E), normal(2, 20, 16), tokens(20, 2)
    moe, params = layer(config, x, known)
    out, found = jax.jit(moe.apply)(params, x, known)
    assert len({len(chosen) for chosen in chosen_sets(found)}) > 1
    expected = mixture(params["params"]["experts"], routing.weights_by_expert(found), x.reshape(40, 16))
    np.testing.assert_allclose(out.reshape(40, 16), expected, **F32)
