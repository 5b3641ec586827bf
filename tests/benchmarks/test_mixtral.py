"""The peer of the training benchmark does the same work: equal losses from equal weights, step after step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.peer import CANDIDATES, Peer, PeerError, Settings, Shape, available, load_inputs, save_inputs
from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.training.step import StepFunction, initial_params, metric_names, state_of

SMALL = Shape(
    d_model=32, n_layers=2, n_experts=4, top_k=2, d_expert=64, d_head=8, vocab_size=61, sequences=3, seq_len=16
)
STEPS = 4


STRONG = Settings(rate=0.01, weight_decay=5.0, beta2=0.6, grad_clip=0.1)
STEP_RTOL = 1e-5


@pytest.fixture(scope="module")
def peer():
    if not available():
        pytest.skip("needs torch and transformers, the extra `bench`")
    with Peer(threads=1) as running:
        yield running


def model_config(shape, **losses):
    sizes = {name: getattr(shape, name) for name in ("d_model", "n_layers", "d_head", "d_expert", "n_experts", "top_k")}
    return ModelConfig(**sizes, router="topk", **losses)


def our_losses(shape, params, tokens, settings):
    """Cross-entropies of the first steps of our training, each before its update."""
    optimised = {name: getattr(settings, name) for name in ("weight_decay", "beta1", "beta2", "grad_clip")}
    train = TrainConfig(batch_tokens=shape.tokens, seq_len=shape.seq_len, **optimised)
    model = model_config(shape, balance_coef=settings.balance_coef, z_coef=0)
    step, state, losses = (
        jax.jit(StepFunction(model, shape.vocab_size, train)),
        state_of(params, model, train, jax.random.key(0)),
        [],
    )
    for batch in tokens:
        state, metrics = step(state, jnp.asarray(batch), settings.rate)
        losses.append(float(metrics[metric_names(model).index("loss")]))
    return losses


def scattered(params, key):
    """The weights times random factors, the norms' scales too, so that a scale in the wrong place shows."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree, [leaf * (1 + 0.3 * jax.random.normal(one, leaf.shape)) for leaf, one in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A function from a shape to our weights, batches and the file with both."""

    def make(shape):
        params = initial_params(model_config(shape), shape.vocab_size, seed=0)
        params = scattered(params, jax.random.key(1))
        rng, size = np.random.default_rng(0), (shape.sequences, shape.seq_len + 1)
        # Every other batch has two symbols alone: its gradient is large, so that clipping changes what Adam sees.
        tokens = np.stack([rng.integers(2 if i % 2 else shape.vocab_size, size=size) for i in range(STEPS)])
        path = tmp_path_factory.mktemp("inputs") / "inputs.npz"
        save_inputs(path, params, tokens.astype(np.int32))
        return params, tokens.astype(np.int32), path

    return make


@pytest.mark.parametrize("settings", CANDIDATES, ids=lambda one: f"{one.experts}-{one.attention}")
def test_equal_weights_give_equal_losses(peer, start, settings):
    """Float32 leaves a few 1e-7; a transposed matrix or swapped halves change the second digit."""
    params, tokens, path = start(SMALL)
    _, (theirs,) = peer.run(SMALL, settings, 1, path)
    assert theirs == pytest.approx(our_losses(SMALL, params, tokens[:1], settings)[0], rel=1e-5)


# The peer pools its balance loss over layers and ours is a mean of the layers', so the two are equal at one layer
# alone.
@pytest.mark.parametrize(("n_layers", "balance_coef"), [(2, 0.0), (1, 0.5)])
def test_whole_steps_agree(peer, start, n_layers, balance_coef):
    """Gradients, clipping, AdamW and which weights decay: the losses after three updates agree.

    The numbers are far from the defaults so that each matters, by more than the tolerance (test below).
    """
    shape = replace(SMALL, n_layers=n_layers)
    settings = replace(STRONG, balance_coef=balance_coef)
    params, tokens, path = start(shape)
    _, theirs = peer.run(shape, settings, STEPS, path)
    assert theirs == pytest.approx(our_losses(shape, params, tokens, settings), rel=STEP_RTOL)


@pytest.mark.parametrize(
    "change", [{"weight_decay": 0.0}, {"beta2": 0.95}, {"grad_clip": 1e9}, {"rate": 0.0101}], ids=str
)
def test_another_optimiser_would_be_seen(peer, start, change):
    """The proof above has teeth: with one number changed on their side the losses part."""
    params, tokens, path = start(SMALL)
    settings = replace(STRONG, balance_coef=0.0)
    _, theirs = peer.run(SMALL, replace(settings, **change), STEPS, path)
    assert theirs != pytest.approx(our_losses(SMALL, params, tokens, settings), rel=3 * STEP_RTOL)


def test_a_request_continues_the_training_and_fresh_starts_anew(peer, start):
    _, _, path = start(SMALL)
    settings = Settings(rate=0.02)
    seconds, first = peer.run(SMALL, settings, 2, path)
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert peer.run(SMALL, settings, 1, path)[1] != first[:1]
    assert peer.run(SMALL, settings, 2, path, fresh=True)[1] == first


def test_an_impossible_request_is_an_error_and_the_child_lives_on(peer):
    with pytest.raises(PeerError, match="nonsense"):
        peer.run(SMALL, Settings(experts="nonsense"), 1)
    assert len(peer.run(SMALL, Settings(), 1)[0]) == 1


def test_inputs_come_back_as_saved(start):
    """Without PyTorch: names are paths, values unchanged."""
    params, tokens, path = start(SMALL)
    weights, batches = load_inputs(path)
    np.testing.assert_array_equal(batches, tokens)
    np.testing.assert_array_equal(
        weights["block_1/moe/experts/up"], params["params"]["block_1"]["moe"]["experts"]["up"]
    )
    assert len(weights) == len(jax.tree.leaves(params))
    assert optax.tree.size(params) == sum(value.size for value in weights.values())
