"""Forms of experts: factorised tensors against the tensor itself, adapters against matrices of their own, shared
experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import F32, double, filled, gated_mlp, layer, mixture, model, normal, tokens

from scaling.config import counts as cost
from scaling.config.model import ModelConfig
from scaling.config.registry import matched_rank
from scaling.model.moe import routing
from scaling.model.moe.factorised import CP, Ring, cp_map, ring_map
from scaling.model.moe.layer import MoE
from scaling.training.phases import trainable_mask

MAPS = {"cp": cp_map, "ring": ring_map}
E, I, O, R, Q = 5, 7, 6, 4, 3  # inputs without the bias  # noqa: E741


def factors(form, e=E, i=I, o=O, r=R, q=Q, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "cp": {"expert": (e, r), "into": (i + 1, r), "out": (o, r)},
        "ring": {"expert": (q, e, q), "into": (q, i + 1, r), "out": (r, o, q)},
    }[form]
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def tensor(form, parts):
    """W[e, i, o], entry by entry as the decomposition defines it."""
    expert, into, out = (np.asarray(parts[name], np.float64) for name in ("expert", "into", "out"))
    if form == "cp":
        return np.einsum("er,ir,or->eio", expert, into, out)
    sizes = expert.shape[1], into.shape[1], out.shape[1]
    return np.array([
        [[np.trace(expert[:, e] @ into[:, i] @ out[:, o]) for o in range(sizes[2])] for i in range(sizes[1])]
        for e in range(sizes[0])
    ])  # fmt: skip


def with_bias(x):
    return np.concatenate([np.asarray(x, np.float64), np.ones((len(x), 1))], axis=1)


def materialised(whole, weight, x):
    """sum_e a_e W_e^T [x; 1], expert by expert."""
    return sum(weight[:, e, None] * (with_bias(x) @ whole[e]) for e in range(len(whole)))


def run(form, parts, weight, x):
    """In float64."""
    with jax.enable_x64(True):
        return np.asarray(MAPS[form](jax.tree.map(jnp.asarray, parts), jnp.asarray(weight), jnp.asarray(x)))


def gates(tokens_=9, e=E, seed=3):
    weight = np.random.default_rng(seed).random((tokens_, e))
    return weight / weight.sum(axis=1, keepdims=True)


def inputs(tokens_=9, seed=4):
    return np.random.default_rng(seed).normal(size=(tokens_, I))


@pytest.mark.parametrize("form", MAPS)
def test_the_factorised_map_is_the_mixture_of_its_experts_matrices(form):
    parts, weight, x = factors(form), gates(), inputs()
    np.testing.assert_allclose(
        run(form, parts, weight, x), materialised(tensor(form, parts), weight, x), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("form", MAPS)
def test_one_expert_is_a_linear_map_of_low_rank(form):
    """CP: of rank R; ring: of rank R Q at most, fewer than the 7 inputs here."""
    q, r = (1, 3) if form == "cp" else (2, 2)
    parts = factors(form, e=1, r=r, q=q)
    out = run(form, parts, np.ones((9, 1)), inputs())
    whole = tensor(form, parts)[0]
    np.testing.assert_allclose(out, with_bias(inputs()) @ whole, rtol=1e-12, atol=1e-12)
    assert np.linalg.matrix_rank(whole) == r * (1 if form == "cp" else q)


def test_cp_of_full_rank_represents_any_experts():
    """R = E I O (the bias counted in): a column of each factor for every entry (e, i, o) of any tensor, A with the
    entry's value. A one-hot gate then gives that expert's own matrix."""
    e, i, o = 3, 4, 2
    wanted = np.random.default_rng(0).normal(size=(e, i, o))
    entry = np.stack(np.unravel_index(np.arange(e * i * o), (e, i, o)))
    parts = {
        "expert": (np.arange(e)[:, None] == entry[0]) * wanted.ravel(),
        "into": (np.arange(i)[:, None] == entry[1]) * 1.0,
        "out": (np.arange(o)[:, None] == entry[2]) * 1.0,
    }
    x = np.random.default_rng(1).normal(size=(5, i - 1))
    for one in range(e):
        out = run("cp", parts, np.eye(e)[[one] * 5], x)
        np.testing.assert_allclose(out, with_bias(x) @ wanted[one], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", MAPS)
def test_permuting_experts_changes_nothing(form):
    parts, weight, order = factors(form), gates(), [3, 0, 4, 2, 1]
    moved = {**parts, "expert": parts["expert"][order] if form == "cp" else parts["expert"][:, order]}
    found = run(form, moved, weight[:, order], inputs())
    np.testing.assert_allclose(found, run(form, parts, weight, inputs()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [CP, Ring])
def test_initial_factors(form):
    """Of the authors: A around 1 (ring: multiples of the identity), B within I^-1/2, C within (scale / R)^1/2."""
    ring = form is Ring
    module = Ring(64, 40, 30, 2, 0.5) if ring else CP(64, 40, 30, 0.5)
    params = module.init(jax.random.key(0), jnp.ones((1, 64)) / 64, jnp.ones((1, 24)))["params"]
    expert = np.asarray(params["expert"])
    if ring:
        np.testing.assert_array_equal(expert[0, :, 1], 0.0)
        np.testing.assert_array_equal(expert[0, :, 0], expert[1, :, 1])
        expert = expert[0, :, 0]
    assert abs(expert.mean() - 1) < 4 / np.sqrt(expert.size)
    assert abs(expert.std() - 1) < 4 / np.sqrt(2 * expert.size)
    for name, bound in (("into", 25**-0.5), ("out", (0.5 / (30 * (2 if ring else 1))) ** 0.5)):
        assert 0.95 * bound < np.abs(params[name]).max() <= bound  # 1000 uniform numbers come that near


def gelu(x):
    """With the hyperbolic tangent, as JAX has it."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("form", MAPS)
@pytest.mark.parametrize("router", ["entmax", "topk"])
def test_the_layer_is_two_maps_with_gelu_and_one_gate(form, router):
    config, x, known = model(router, form), normal(2, 15, 16), tokens(15, 2)
    moe, params = layer(config, x, known)
    out, found = jax.jit(moe.apply)(params, x, known)
    weight = np.asarray(routing.weights_by_expert(found), np.float64)
    assert np.any(weight == 0)
    first, second = (tensor(form, params["params"][name]) for name in ("factors_in", "factors_out"))
    assert first.shape == (4, 17, config.top_k * config.d_expert)
    hidden = gelu(materialised(first, weight, x.reshape(30, 16)))
    np.testing.assert_allclose(out.reshape(30, 16), materialised(second, weight, hidden), **F32)


@pytest.mark.parametrize("form", MAPS)
@pytest.mark.parametrize("n_experts", [4, 64])
def test_the_matched_rank_is_the_largest_within_the_dense_layer(form, n_experts):
    """A gate and two factorised maps have at most the parameters of a gated MLP of the same hidden width; of one rank
    more they would have more."""
    config = ModelConfig(d_model=64, n_experts=n_experts, router="entmax", experts=form, d_expert=128)

    def size(rank):
        one = config.model_copy(update={"rank": rank})
        counts = cost.parameters(one, 50)
        return counts.shared + counts.experts + counts.router

    dense = cost.parameters(ModelConfig(d_model=64, d_expert=128), 50).experts
    assert config.rank == matched_rank(form, 64, 128, n_experts, 4)
    assert size(config.rank) <= dense < size(config.rank + 1)


# ---------------------------------------------------------------------------------------------- adapters


def test_adapters_start_as_their_dense_base():
    """Their second matrices are zero at first, so the layer is the MLP of the same active width, exactly."""
    config, x, known = model("topk", "lora"), normal(2, 15, 16), tokens(15, 2)
    moe = MoE(config, 1.0)
    params = jax.jit(moe.init)(jax.random.key(0), x, known)
    dense = MoE(config.model_copy(update={"n_experts": 1}), 1.0)
    expected, _ = jax.jit(dense.apply)({"params": {"mlp": params["params"]["base"]}}, x, known)
    out, _ = jax.jit(moe.apply)(params, x, known)
    np.testing.assert_array_equal(out, expected)
    for name in ("gate", "up", "down"):
        assert not np.any(params["params"][f"adapters_{name}"]["up"])
        assert np.all(np.any(np.asarray(params["params"][f"adapters_{name}"]["down"]) != 0, axis=(0, 2)))


def test_adapters_match_explicit_matrices_of_each_expert():
    """W_e = W + 2 A_e B_e made explicit, and the three matrices of a token mixed from them by its gate, in float64.
    Gates sum to 1 here, so the base counts once."""
    config, x, known = model("topk", "lora"), normal(1, 20, 16), tokens(20)
    moe, params = layer(config, x, known)
    out, found = jax.jit(moe.apply)(params, x, known)
    parts, weight = double(params["params"]), np.asarray(routing.weights_by_expert(found), np.float64)
    each = {
        name: np.stack([
            parts["base"][name] + 2 * parts[f"adapters_{name}"]["down"][:, e] @ parts[f"adapters_{name}"]["up"][e]
            for e in range(4)
        ])
        for name in ("gate", "up", "down")
    }  # fmt: skip
    for t in range(20):
        mixed = {name: np.einsum("e,eab->ab", weight[t] / weight[t].sum(), each[name]) for name in each}
        np.testing.assert_allclose(out[0, t], gated_mlp(mixed, x[0, t]), **F32)


def test_adapters_that_are_not_chosen_have_no_gradient():
    config, x, known = model("topk", "lora", n_experts=6), normal(1, 2, 16), tokens(2)
    moe, params = layer(config, x, known)
    found = moe.apply(params, x, known)[1]
    unused = np.setdiff1d(np.arange(6), found.chosen_TxK)
    assert len(unused) > 0
    slope = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(moe.apply(p, x, known)[0]))))(params)["params"]
    for name in ("gate", "up", "down"):
        up = np.asarray(slope[f"adapters_{name}"]["up"])
        np.testing.assert_array_equal(up[unused], 0.0)
        assert np.all(np.any(up[np.unique(found.chosen_TxK)] != 0, axis=(1, 2)))


def test_the_base_trains_first_and_then_only_routers_and_adapters():
    """Router and adapters stand still for the dense steps, everything else after them; without adapters all move
    always."""
    weights = {"head": 1, "block_0": {"moe": {"base": {"up": 1}, "router": {"weight": 1}, "adapters_up": {"up": 1}}}}
    for step, base in ((0, 1), (9, 1), (10, 0)):
        moves = trainable_mask(model("topk", "lora"), jnp.int32(step), 10, weights)
        moe = moves["block_0"]["moe"]
        assert (moves["head"], moe["base"]["up"]) == (base, base)
        assert (moe["router"]["weight"], moe["adapters_up"]["up"]) == (1 - base, 1 - base)
    assert trainable_mask(model("topk"), jnp.int32(0), 10, weights) is None


# ------------------------------------------------------------------------------------------------ shared


@pytest.mark.parametrize("router", ["topk", "tsallis"])
def test_shared_experts_are_separate_mlps_in_addition_to_routed_ones(router):
    """Two of width 8 are computed as one of 16: its first and its last hidden units are two separate MLPs."""
    config, x, known = model(router, "shared", n_shared=2), normal(1, 20, 16), tokens(20)
    moe, params = layer(config, x, known)
    out, found = jax.jit(moe.apply)(params, x, known)
    beside, width = params["params"]["shared"], config.d_expert
    assert beside["gate"].shape == (16, 2 * width)
    expected = mixture(params["params"]["experts"], routing.weights_by_expert(found), x[0])
    for part in (slice(None, width), slice(width, None)):
        one = {"gate": beside["gate"][:, part], "up": beside["up"][:, part], "down": beside["down"][part]}
        expected = expected + gated_mlp(one, x[0])
    np.testing.assert_allclose(out[0], expected, **F32)


def test_the_dense_twin_of_shared_experts_has_their_width_too():
    config = ModelConfig(d_model=16, d_head=8, top_k=2, d_expert=8, experts="shared", n_shared=3)
    assert config.dense_width == (2 + 3) * 8
    x, known = normal(1, 5, 16), tokens(5)
    dense = MoE(config, 1.0)
    params = filled(jax.eval_shape(dense.init, jax.random.key(0), x, known))
    out, nothing = dense.apply(params, x, known)
    assert nothing is None
    np.testing.assert_allclose(out[0], gated_mlp(params["params"]["mlp"], x[0]), **F32)
