"""The maximal update parametrisation: how far activations move does not depend on the width, as it does otherwise."""

import functools

import jax
import numpy as np
import pytest
from coordinates import moved
from pydantic import ValidationError

from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig, peak_learning_rate
from scaling.model import transformer
from scaling.model.transformer import Transformer
from scaling.training.optimiser import optimiser
from scaling.training.step import first_params

VOCAB, BASE = 31, 32


def model(width=BASE, **changes):
    sizes = {"d_model": width, "d_head": 16, "n_layers": 1, "n_experts": 4, "top_k": 2, "router": "topk"}
    return ModelConfig(**{**sizes, "parametrisation": "mup", "base_width": BASE, **changes})


@functools.cache
def weights(config):
    return jax.jit(functools.partial(first_params, config, VOCAB))(jax.random.key(0))["params"]


def spread(tree, *names):
    """Standard deviation of one weight."""
    for name in names:
        tree = tree[name]
    return float(np.std(tree))


@pytest.mark.slow
@pytest.mark.parametrize(("n_experts", "top_k"), [(1, 1), (4, 2), (32, 2)])
def test_the_coordinate_check(n_experts, top_k):
    """Four steps at one rate. From width 32 to 128 blocks and logits move alike, and by the standard parametrisation
    half again to three times as far. Logits of routers move less: their initial weights, which are those of an output,
    have less and less part in it. (So a gate of one expert that is not renormalised begins nearer to 1/E, and its
    block moves less: .70 of the base at E = 32, top-1.)"""
    narrow, wide = (moved(model(w, n_layers=2, n_experts=n_experts, top_k=top_k), 0.01) for w in (32, 128))
    plain = moved(model(128, n_layers=2, n_experts=n_experts, top_k=top_k, parametrisation="standard"), 0.01)
    for name in narrow:
        lower = 0.35 if name.startswith("router") else 0.75
        assert lower < wide[name] / narrow[name] < 1.2, name
        assert plain[name] / narrow[name] > 1.5, name


def test_at_the_base_width_it_is_the_standard_parametrisation():
    mup, plain = (weights(config) for config in (model(), model(parametrisation="standard")))
    jax.tree.map(np.testing.assert_array_equal, mup, plain)
    settings = TrainConfig(batch_tokens=128, seq_len=16)
    states = [optimiser(settings, model(parametrisation=name)).init(mup) for name in ("mup", "standard")]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    configs = [RunConfig(model=model(BASE, parametrisation=name)) for name in ("mup", "standard")]
    assert configs[0].learning_rate == configs[1].learning_rate == peak_learning_rate(BASE, 1)


def test_updates_and_first_weights_follow_the_table():
    """arXiv 2203.03466, tables 3 and 8, with the width 4 times the base: hidden weights of variance 1/fan-in and rate
    1/4; embedding, head and norms as before, the head's logits a quarter; the router an output."""
    ratio, wide, narrow = 4, model(4 * BASE), model()
    now, before = weights(wide), weights(narrow)
    for names in (("block_0", "attention", "query"), ("block_0", "moe", "experts", "gate")):
        assert spread(now, *names) / spread(before, *names) == pytest.approx(ratio**-0.5, rel=0.1)
    for names in (("embedding", "embedding"), ("head",)):
        assert spread(now, *names) == pytest.approx(spread(before, *names), rel=0.1)
    router = ("block_0", "moe", "router", "weight")
    assert spread(now, *router) / spread(before, *router) == pytest.approx(1 / ratio, rel=0.25)

    settings = TrainConfig(batch_tokens=128, seq_len=16, weight_decay=0.0)
    made = optimiser(settings, wide)
    updates, _ = made.update(now, made.init(now), now)  # Adam's first: the gradient's sign
    sizes = jax.tree.map(lambda u: float(np.abs(u).max()), updates)
    block = sizes["block_0"]
    for size in (*block["attention"].values(), *block["moe"]["experts"].values(), block["moe"]["router"]["weight"]):
        assert size == pytest.approx(1 / ratio)
    for size in (sizes["head"], sizes["embedding"]["embedding"], sizes["norm"]["scale"], block["moe_norm"]["scale"]):
        assert size == pytest.approx(1)

    decayed = optimiser(settings.model_copy(update={"weight_decay": 0.5}), wide)
    decays, _ = decayed.update(now, decayed.init(now), now)
    difference = decays["block_0"]["attention"]["query"] - updates["block_0"]["attention"]["query"]
    np.testing.assert_allclose(difference, 0.5 * now["block_0"]["attention"]["query"], atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_divided_by_the_ratio_of_widths(tied):
    """With tied embeddings the matrix serves twice; its rows times base_width^.5 are the input."""
    tokens = np.arange(12).reshape(1, 12)
    wide = model(64, n_layers=1, n_experts=1, tie_embeddings=tied)
    params = {"params": weights(wide)}
    output = transformer.apply(Transformer(wide, VOCAB), params, tokens)
    as_standard = wide.model_copy(update={"parametrisation": "standard", "base_width": 64})
    if not tied:
        plain = transformer.apply(Transformer(as_standard, VOCAB), params, tokens)
        np.testing.assert_allclose(output.logits_BxTxV * 2, plain.logits_BxTxV, rtol=1e-5, atol=1e-6)
        return
    assert "head" not in params["params"]
    assert spread(params["params"], "embedding", "embedding") == pytest.approx(BASE**-0.5, rel=0.1)
    assert float(np.std(output.logits_BxTxV)) < 1.2


def test_what_its_rates_are_not_derived_for_is_refused():
    with pytest.raises(ValidationError, match="mup"):
        model(experts="cp", top_k=1, router="switch")
    with pytest.raises(ValidationError, match="mup"):
        RunConfig(model=model(), train={"optimiser": "muon", "lr": 0.01})
    assert (
        model(parametrisation="standard").identity()
        == ModelConfig(d_model=BASE, d_head=16, n_layers=1, n_experts=4, top_k=2, router="topk").identity()
    )
    assert {"parametrisation", "base_width"} <= set(model().identity())
