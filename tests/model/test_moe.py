"""The layer of equal experts, the gradient of its router, and the balance penalty worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import filled, measured, tokens

from scaling.config.model import ModelConfig
from scaling.expert_rows import block_rows
from scaling.model.moe.layer import MoE
from scaling.model.moe.routing import Routing

F32 = {"rtol": 2e-5, "atol": 2e-6}  # float32 rounding over sums of a few hundred products


def layer(n_experts=4, top_k=2, dispatch="grouped", router="topk", width=8):
    config = ModelConfig(n_experts=n_experts, top_k=top_k, d_expert=width, router=router, dispatch=dispatch)
    return MoE(config, 1.0)


def data(tokens=37, features=16, seed=0):
    return jax.random.normal(jax.random.key(seed), (1, tokens, features))


def init(module, x):
    return filled(jax.eval_shape(module.init, jax.random.key(0), x, known(x)))


def known(x):
    return tokens(x.shape[-2])


def balance_loss(routing):
    return float(measured(routing)["balance_loss"])


def test_equal_experts_make_the_dense_model():
    """With renormalised gates and identical experts the layer is one expert, whatever is chosen."""
    x, module = data(20), layer(n_experts=4, top_k=2)
    params = init(module, x)
    same = jax.tree.map(lambda w: jnp.broadcast_to(w[:1], w.shape), params["params"]["experts"])
    out, _ = jax.jit(module.apply)({"params": {**params["params"], "experts": same}}, x, known(x))
    dense = layer(n_experts=1, top_k=1)
    expected, nothing = jax.jit(dense.apply)({"params": {"mlp": jax.tree.map(lambda w: w[0], same)}}, x, known(x))
    assert nothing is None
    np.testing.assert_allclose(out, expected, **F32)


def test_top_1_router_learns():
    """A single renormalised weight would be 1 and give the router no gradient; both routers avoid it."""
    for router in ("switch", "topk"):
        x, module = data(16), layer(n_experts=4, top_k=1, router=router)
        params = init(module, x)
        grads = jax.jit(jax.grad(lambda p, m=module, y=x: jnp.sum(m.apply(p, y, known(y))[0] ** 2)))(params)
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
    assert float(measured(gathered)["max_load"]) == pytest.approx(4 / top_k)
    assert float(measured(even)["load_cv"]) == 0.0


@pytest.mark.parametrize(
    ("tokens", "top_k", "n_experts"), [(2048, 1, 8), (2048, 2, 64), (1, 2, 8), (8, 1, 8), (131072, 1, 4)]
)
def test_block_size_is_a_power_of_two_within_its_limits(tokens, top_k, n_experts):
    rows = int(block_rows(tokens, top_k, n_experts))
    assert rows & (rows - 1) == 0
    assert 1 <= rows <= 128
    assert rows == 1 or rows <= max(tokens * top_k / n_experts / 2, min(64, tokens * top_k / n_experts))
