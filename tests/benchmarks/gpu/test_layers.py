"""What the figures rest on: the public layer is the same layer, and a single wrong token is noticed."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import equality, public_layer
from scaling.config.model import ModelConfig
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP
from scaling.training import kernel_choice

MODEL = ModelConfig(d_model=8, d_head=8, d_expert=4, n_experts=4, top_k=2, router="topk")


def test_the_public_layer_is_our_layer_and_the_bound_has_as_many_rows():
    inputs = kernel_choice.layer_inputs(MODEL, 24, jax.devices()[0])

    def gradients(layer):
        return jax.jit(jax.grad(lambda weights, x, routing: jnp.sum(jnp.sin(layer(weights, x, routing))), (0, 1)))(
            *inputs
        )

    public = public_layer.layer(public_layer.products()["jax.lax.ragged_dot"])
    ours = gradients(lambda weights, x, routing: dispatch.dense(x, routing, GATED_MLP, weights))
    for one, other in zip(jax.tree.leaves(gradients(public)), jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    weights, x, routing = inputs
    assert public_layer.equal_shares(weights, x, routing).shape == (4, 24 * 2 // 4, 8)


def test_one_token_at_a_wrong_expert_is_outside_every_tolerance():
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(2048, 16))
    for dtype, unit in (("float32", 2.0**-24), ("tf32", 2.0**-11), ("bfloat16", 2.0**-9)):
        rounded = expected * (1 + unit * rng.uniform(-1, 1, expected.shape))
        assert equality.verdict("", dtype, 2048, (rounded, None), (expected, None))["passed"]
        wrong = rounded.copy()
        wrong[77] = rng.normal(size=16)
        assert not equality.verdict("", dtype, 2048, (wrong, None), (expected, None))["passed"]
    missing = expected.copy()
    missing[3] = np.nan
    assert not equality.verdict("", "bfloat16", 2048, (missing, None), (expected, None))["passed"]


def test_the_precision_of_a_layer_is_measured_against_the_dense_one():
    """The loads of the kernels' test: each chooses two different experts for every token, and some choose none of
    an expert."""
    for name, chosen in equality._loads(64, 8).items():
        assert chosen.shape == (64, 2)
        assert np.all(chosen[:, 0] != chosen[:, 1]), name
        assert 0 <= chosen.min() <= chosen.max() < 8
    assert len(np.unique(equality._loads(64, 8)["every other"])) == 4
