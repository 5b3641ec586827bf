"""Documents packed into one sequence: no attention between documents, and no loss on padding."""

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model import transformer
from scaling.model.transformer import Transformer
from scaling.training.step import StepFunction, documents, first_state

VOCAB, SEPARATOR = 23, 22
MODEL = ModelConfig(d_model=16, d_head=8, n_layers=2, d_expert=8, n_experts=4, top_k=2, router="topk")
FIRST, SECOND = [22, 3, 1, 4, 1, 5], [22, 9, 2, 6, 5, 3, 5, 8]
NETWORK = Transformer(MODEL, VOCAB)
TRAIN = TrainConfig(batch_tokens=28, seq_len=14, warmup_tokens=0)
STATE = jax.jit(lambda key: first_state(MODEL, VOCAB, TRAIN, key))(jax.random.key(0))
PARAMS = STATE.params


@jax.jit
def logits(tokens):
    output = transformer.apply(NETWORK, PARAMS, tokens, documents_BxT=documents(tokens, SEPARATOR))
    return output.logits_BxTxV


def test_documents_are_numbered_by_the_separators_so_far():
    row = [[22, 1, 2, 22, 3, 22, 22], [5, 6, 22, 1, 1, 1, 1]]
    expected = [[1, 1, 1, 2, 2, 3, 4], [0, 0, 1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(documents(jnp.array(row), SEPARATOR), expected)


def test_a_document_has_the_same_output_alone_and_after_another():
    """Alone the second document stands elsewhere, but rotary products depend on differences of positions alone. To
    rounding: angles are rounded at their own size, a dozen radians here, and go through two layers."""
    packed = np.asarray(logits(jnp.array([FIRST + SECOND])))[0]
    alone = np.asarray(logits(jnp.array([SECOND + [SEPARATOR] * len(FIRST)])))[0]
    first = np.asarray(logits(jnp.array([FIRST + [SEPARATOR] * len(SECOND)])))[0]
    bound = {"rtol": 0, "atol": 14 * 2.0**-24 * 64}
    np.testing.assert_allclose(packed[: len(FIRST)], first[: len(FIRST)], **bound)
    np.testing.assert_allclose(packed[len(FIRST) :], alone[: len(SECOND)], **bound)
    other = np.asarray(logits(jnp.array([[22, 7, 7, 7, 7, 7, *SECOND]])))[0]
    np.testing.assert_array_equal(
        packed[len(FIRST) :], other[len(FIRST) :]
    )  # the same place, another neighbour: exactly
    whole = jax.jit(lambda t: transformer.apply(NETWORK, PARAMS, t).logits_BxTxV)(jnp.array([FIRST + SECOND]))[0]
    assert np.abs(whole[len(FIRST) :] - packed[len(FIRST) :]).max() > 1e-3  # without numbers they do see each other


def test_gradients_stay_within_the_document_and_its_past():
    """Exactly zero, taken with respect to the embedding of each place (each place has a symbol of its own)."""
    places = len(FIRST + SECOND)
    tokens, own = jnp.array([FIRST + SECOND]), jnp.arange(places)[None]
    wide = Transformer(MODEL, places)
    inner = PARAMS["params"]
    head = jnp.outer(jnp.ones(MODEL.d_model), jnp.arange(1.0, places + 1))

    @jax.jit
    def gradient(place):
        def one(rows):
            params = {"params": {**inner, "embedding": {"embedding": rows}, "head": head}}
            output = transformer.apply(wide, params, own, documents_BxT=documents(tokens, SEPARATOR))
            return jnp.sum(output.logits_BxTxV[0, place] * jnp.arange(1.0, places + 1))

        return jax.grad(one)(inner["embedding"]["embedding"][tokens[0]])

    for place, begin in ((3, 0), (9, len(FIRST)), (places - 1, len(FIRST))):
        reached = np.abs(np.asarray(gradient(place))).max(axis=-1) > 0
        expected = (np.arange(places) >= begin) & (np.arange(places) <= place)
        np.testing.assert_array_equal(reached, expected)


def test_padding_targets_have_no_weight():
    """The loss is the plain mean over the other targets; the judge is the model's own logits and NumPy."""
    rows = [FIRST + [SEPARATOR] * 9, SECOND + FIRST + [SEPARATOR]]
    batch = jnp.array(rows, jnp.int32)
    assert batch.shape == (2, 15)
    step = jax.jit(StepFunction(MODEL, VOCAB, TRAIN, separator=SEPARATOR))
    _, metrics = step(STATE, batch, np.float32(0))
    score = np.asarray(logits(batch[:, :-1]), np.float64)
    each = np.log(np.exp(score).sum(-1)) - np.take_along_axis(score, np.asarray(batch)[:, 1:, None], -1)[..., 0]
    # The first row has its 5 symbols and the separator behind them as targets, the second is full.
    expected = (each[0, :6].sum() + each[1].sum()) / 20
    np.testing.assert_allclose(metrics[0], expected, rtol=1e-5)  # float32 sums of 20 losses
    assert abs(each.mean() - expected) > 1e-3
