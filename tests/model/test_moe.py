"""Routers, experts and their losses: invariants and hand-worked values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import tokens

from scaling.architecture import block_rows
from scaling.config.model import ModelConfig
from scaling.model.moe import routing
from scaling.model.moe.layer import MoE
from scaling.model.moe.routers.token_choice import Switch, TopK
from scaling.model.moe.routing import Routing

F32 = {"rtol": 2e-5, "atol": 2e-6}  # float32 rounding over sums of a few hundred products


def layer(n_experts=4, top_k=2, dispatch="grouped", router="topk", width=8):
    config = ModelConfig(n_experts=n_experts, top_k=top_k, d_expert=width, router=router, dispatch=dispatch)
    return MoE(config, 1.0)


def data(tokens=37, features=16, seed=0):
    return jax.random.normal(jax.random.key(seed), (1, tokens, features))


def init(module, x, seed=0):
    return jax.jit(module.init)(jax.random.key(seed), x, known(x))


def known(x):
    return tokens(x.shape[-2])


def balance_loss(of):
    return float(routing.balance_loss(of, routing.assignments(of) / of.chosen_TxK.shape[1]))


def metrics(of):
    return routing.metrics(of, routing.assignments(of))


def test_every_expert_used_equals_the_weighted_sum():
    """k = E: y = sum_e g_e F_e(x) with softmax gates, written out."""
    x, module = data(9), layer(n_experts=3, top_k=3)
    params = init(module, x)
    out, _ = module.apply(params, x, known(x))
    weights, router = params["params"]["experts"], params["params"]["router"]["weight"]
    rows = x[0]
    expected = 0
    for e in range(3):
        gate, value = rows @ weights["gate"][e], rows @ weights["up"][e]
        share = jax.nn.softmax(rows @ router, axis=-1)[:, e : e + 1]
        expected += share * ((gate * jax.nn.sigmoid(gate) * value) @ weights["down"][e])
    np.testing.assert_allclose(out[0], expected, **F32)


def test_equal_experts_make_the_dense_model():
    """With renormalised gates and identical experts the layer is one expert, whatever is chosen."""
    x, module = data(20), layer(n_experts=4, top_k=2)
    params = init(module, x)
    same = jax.tree.map(lambda w: jnp.broadcast_to(w[:1], w.shape), params["params"]["experts"])
    out, _ = module.apply({"params": {**params["params"], "experts": same}}, x, known(x))
    dense = layer(n_experts=1, top_k=1)
    expected, nothing = dense.apply({"params": {"mlp": jax.tree.map(lambda w: w[0], same)}}, x, known(x))
    assert nothing is None
    np.testing.assert_allclose(out, expected, **F32)


def test_permuting_experts_and_router_columns_changes_nothing():
    x, module = data(50), layer(n_experts=4, top_k=2)
    params = init(module, x)
    order = jnp.array([2, 0, 3, 1])
    moved = {
        "params": {
            "experts": jax.tree.map(lambda w: w[order], params["params"]["experts"]),
            "router": {"weight": params["params"]["router"]["weight"][:, order]},
        }
    }
    np.testing.assert_allclose(module.apply(moved, x, known(x))[0], module.apply(params, x, known(x))[0], **F32)


def test_weights_of_the_chosen():
    x = data(30)[0]
    switch = Switch(ModelConfig(n_experts=4))
    top2 = TopK(ModelConfig(n_experts=4, top_k=2, router="topk"))
    params = init(switch, x)
    one, two = switch.apply(params, x, known(x)), top2.apply(params, x, known(x))
    probabilities = np.asarray(jax.nn.softmax(x @ params["params"]["weight"], axis=-1))
    np.testing.assert_allclose(one.weight_TxK[:, 0], probabilities.max(axis=1), rtol=1e-6)
    best = np.sort(probabilities, axis=1)[:, :-3:-1]
    np.testing.assert_allclose(two.weight_TxK, best / best.sum(axis=1, keepdims=True), rtol=1e-5)
    assert all(len(set(row.tolist())) == 2 for row in np.asarray(two.chosen_TxK))


def test_top_1_router_learns():
    """A single renormalised weight would be 1 and the router without gradient; both routers avoid it."""
    for router in ("switch", "topk"):
        x, module = data(16), layer(n_experts=4, top_k=1, router=router)
        params = init(module, x)
        grads = jax.grad(lambda p, m=module, y=x: jnp.sum(m.apply(p, y, known(y))[0] ** 2))(params)
        assert jnp.max(jnp.abs(grads["params"]["router"]["weight"])) > 0


def by_hand(gates, chosen):
    gates = jnp.asarray(gates, jnp.float32)
    chosen = jnp.asarray(chosen, jnp.int32)
    return Routing(chosen, jnp.ones(chosen.shape), gates, jnp.log(gates))


def test_balance_loss_worked_by_hand():
    """T = 4, E = 2, k = 1: three rows of gates (.51, .49), one of (.01, .99). f = (3/4, 1/4);
    P = (1.54/4, 2.46/4) = (.385, .615); 2 (.75 x .385 + .25 x .615) = .885, which is below 1."""
    decided = by_hand([[0.51, 0.49]] * 3 + [[0.01, 0.99]], [[0], [0], [0], [1]])
    assert balance_loss(decided) == pytest.approx(0.885, rel=1e-6)


@pytest.mark.parametrize(("top_k", "collapsed"), [(1, 4.0), (2, 2.0)])
def test_balance_loss_even_and_collapsed(top_k, collapsed):
    """Even routing gives 1 for every k; k experts that take every token with certainty give E/k."""
    even = by_hand(np.full((8, 4), 0.25), [[(t + j) % 4 for j in range(top_k)] for t in range(8)])
    assert balance_loss(even) == pytest.approx(1.0, rel=1e-6)
    gates = np.full((8, 4), 1e-9)
    gates[:, :top_k] = 1 / top_k
    gathered = by_hand(gates, [list(range(top_k))] * 8)
    assert balance_loss(gathered) == pytest.approx(collapsed, rel=1e-6)
    assert float(metrics(gathered)["max_load"]) == pytest.approx(4 / top_k)
    assert float(metrics(even)["load_cv"]) == 0.0


def test_flat_gates_hide_collapse_from_the_balance_loss_but_not_from_the_load():
    gates = np.full((16, 8), 1 / 8)
    decided = by_hand(gates, [[0]] * 16)
    assert balance_loss(decided) == pytest.approx(1.0, rel=1e-6)
    assert float(metrics(decided)["max_load"]) == 8.0


def test_z_loss_and_entropy_at_zero_logits():
    zero = Routing(jnp.zeros((5, 1), jnp.int32), jnp.ones((5, 1)), jnp.full((5, 8), 1 / 8), jnp.zeros((5, 8)))
    assert float(routing.z_loss(zero)) == pytest.approx(np.log(8) ** 2, rel=1e-6)
    assert float(metrics(zero)["router_entropy"]) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "top_k", "n_experts"), [(2048, 1, 8), (2048, 2, 64), (1, 2, 8), (8, 1, 8), (131072, 1, 4)]
)
def test_block_size_is_a_power_of_two_within_its_limits(tokens, top_k, n_experts):
    rows = int(block_rows(tokens, top_k, n_experts))
    assert rows & (rows - 1) == 0
    assert 1 <= rows <= 128
    assert rows == 1 or rows <= max(tokens * top_k / n_experts / 2, min(64, tokens * top_k / n_experts))
