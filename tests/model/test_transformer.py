"""The network: causality by exact zeros, independence of the sequences of a batch, decoding, rotary positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.config.model import ModelConfig
from scaling.model.attention import rotary_tables, to_heads
from scaling.model.transformer import Transformer, empty_caches

VOCAB = 50
ROUTED = {"router": "topk", "top_k": 2, "n_experts": 4}
MODELS = [
    ModelConfig(d_model=32, d_expert=16, n_layers=2),
    ModelConfig(d_model=32, d_expert=16, n_layers=2, **ROUTED),
    ModelConfig(d_model=32, d_expert=16, n_layers=2, dispatch="dense", **ROUTED),
    ModelConfig(d_model=32, d_expert=16, n_layers=2, router="switch", n_experts=8),
]
NAMES = ["dense", "grouped", "reference", "switch"]


def made(model, batch=3, length=24):
    network = Transformer(model, VOCAB)
    tokens = jax.random.randint(jax.random.key(1), (batch, length), 0, VOCAB)
    return network, jax.jit(network.init)(jax.random.key(0), tokens), tokens


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_output_never_depends_on_later_tokens_or_other_sequences(model):
    """Change every token after position t of one sequence: its first t + 1 outputs and the other sequences stay exactly
    as they were. (Tokens are discrete, so the change itself is the derivative; exact equality, no tolerance.)"""
    network, params, tokens = made(model)
    forward = jax.jit(lambda t: network.apply(params, t).logits_BxTxV)
    before = np.asarray(forward(tokens))
    for t in (0, 7, 22):
        changed = tokens.at[1, t + 1 :].set((tokens[1, t + 1 :] + 17) % VOCAB)
        after = np.asarray(forward(changed))
        np.testing.assert_array_equal(after[1, : t + 1], before[1, : t + 1])
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
        assert np.abs(after[1, t + 1 :] - before[1, t + 1 :]).max() > 1e-3  # the change does reach later positions


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_gradient_of_an_output_is_exactly_zero_at_later_inputs(model):
    """The same in derivatives, taken with respect to the embedding of each position through a perturbation."""
    _, params, tokens = made(model, batch=2)
    table = params["params"]["embedding"]["embedding"]
    # Give every position its own row of the table, so that a position's gradient is its row's.
    own = jnp.arange(tokens.size).reshape(tokens.shape)
    wide = Transformer(model, tokens.size)
    spread = {**params["params"], "embedding": {"embedding": table[tokens.reshape(-1)]}}
    spread["head"] = jnp.ones((model.d_model, tokens.size)) * jnp.arange(1, tokens.size + 1)

    def output(rows):
        logits = wide.apply({"params": {**spread, "embedding": {"embedding": rows}}}, own).logits_BxTxV
        return jnp.sum(logits[0, 10])

    gradient = np.asarray(jax.jit(jax.grad(output))(spread["embedding"]["embedding"])).reshape(*tokens.shape, -1)
    assert np.all(gradient[0, 11:] == 0)
    assert np.all(gradient[1] == 0)
    assert np.all(np.abs(gradient[0, :11]).max(axis=-1) > 0)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_decoding_with_a_cache_gives_the_logits_of_the_whole(model):
    network, params, tokens = made(model, batch=2, length=12)
    forward = jax.jit(network.apply)
    whole = forward(params, tokens).logits_BxTxV
    caches = empty_caches(model, 2, 12)
    first = forward(params, tokens[:, :7], caches, 0)
    np.testing.assert_allclose(first.logits_BxTxV, whole[:, :7], rtol=1e-4, atol=1e-5)
    caches = first.caches
    for t in range(7, 12):
        step = forward(params, tokens[:, t : t + 1], caches, t)
        caches = step.caches
        np.testing.assert_allclose(step.logits_BxTxV[:, 0], whole[:, t], rtol=1e-4, atol=1e-5)


def test_rotary_products_depend_on_the_difference_of_positions():
    a, b = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))

    def rotate(x, position):  # as a key
        return to_heads(jnp.tile(x, (1, 1, 3, 1)), *rotary_tables(position, 16))[1]

    def product(i, j):
        return float(jnp.sum(rotate(a, jnp.array([i])) * rotate(b, jnp.array([j]))))

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert abs(product(5, 2) - product(5, 4)) > 1e-3
    assert np.allclose(jnp.linalg.norm(rotate(a, jnp.array([77]))), jnp.linalg.norm(a), rtol=1e-5)


def test_initial_loss_is_that_of_a_uniform_guess():
    """Small output weights: the first loss is ln V to a per cent, so no seed starts with a handicap."""
    for model in MODELS:
        network, params, tokens = made(model, batch=8)
        logits = jax.jit(network.apply)(params, tokens).logits_BxTxV
        loss = -jnp.mean(jax.nn.log_softmax(logits)[..., 0])
        assert float(loss) == pytest.approx(np.log(VOCAB), rel=0.02)
