"""The network: rotary positions and its first loss. That it is causal and decodes is shown in test_causality.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import VOCAB

from scaling.config.model import ModelConfig
from scaling.model.attention import rotary_tables, to_heads
from scaling.model.transformer import Transformer


def test_rotary_products_depend_on_the_difference_of_positions():
    a, b = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))

    def rotate(x, position):  # as a key
        return to_heads(jnp.tile(x, (1, 1, 3, 1)), *rotary_tables(position, 16))[1]

    def product(i, j):
        return float(jnp.sum(rotate(a, jnp.array([i])) * rotate(b, jnp.array([j]))))

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert abs(product(5, 2) - product(5, 4)) > 1e-3
    assert np.allclose(jnp.linalg.norm(rotate(a, jnp.array([77]))), jnp.linalg.norm(a), rtol=1e-5)


@pytest.mark.parametrize("n_experts", [1, 4])
def test_initial_loss_is_that_of_a_uniform_guess(n_experts):
    """Small output weights: the first loss is ln V to a per cent, so no seed starts with a handicap."""
    network = Transformer(ModelConfig(d_model=32, d_expert=16, n_layers=2, n_experts=n_experts), VOCAB)
    tokens = jax.random.randint(jax.random.key(1), (8, 24), 0, VOCAB)
    output, _ = jax.jit(lambda key: network.init_with_output(key, tokens))(jax.random.key(0))
    loss = -np.mean(jax.nn.log_softmax(output.logits_BxTxV)[..., 0])
    assert loss == pytest.approx(np.log(VOCAB), rel=0.02)
