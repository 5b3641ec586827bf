"""No output of a causal router depends on later tokens, whatever the experts; and the same probes find the leaks of the
others, so that they are known to work.

Three probes. Replaced tokens: all from a place on are others, and outputs before it stay exactly as they were, since
shapes and programs are the same. Derivatives: exactly zero with respect to later places. Decoding: token by token with
a cache, the logits are those of the whole sequence.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import CAUSAL, VOCAB, layer, model, network, normal, tokens, training

from scaling.config.registry import EXPERTS, ROUTERS
from scaling.model.transformer import empty_caches

LENGTH, PLACE = 12, 5
# Every place of two sequences has a token of its own, so that the gradient of a row of the embedding is that of a
# place.
TOKENS = np.arange(2 * LENGTH, dtype=np.int32).reshape(2, LENGTH)
assert TOKENS.size * 2 <= VOCAB

# Beside the plain pairs: what may be switched on, and routers that route otherwise in training (all steps here are the
# fourth, which is within the anneal of dense-to-sparse).
OPTIONS = {
    "bias and groups": (model("sigmoid", n_groups=2, groups_kept=1, bias_rate=0.1, normalise_over="selected"), False),
    "jitter": (model("topk", jitter=0.3), True),
    "random in training": (model("random"), True),
    "annealed": (model("dense-to-sparse"), True),
    "nucleus": (model("tsallis", nucleus="include", entropy_threshold=0.7), True),
}
LEAKS = {
    "expert choice": (model("expert-choice"), False),
    "soft": (model("soft"), False),
    "base in training": (model("base"), True),
    "batch norm": (model("entmax", "cp", gate_norm="batch", leak_study=True), False),
}


@functools.cache
def probe(config, in_training):
    """(ids) -> logits [B, T, V], and how far the embedding of each place moves the logits at PLACE of the first
    sequence [B, T]."""
    net, params = network(config)
    table = params["params"]["embedding"]["embedding"]
    step = training(3, sequences=2, batch_tokens=TOKENS.size) if in_training else None

    def output(table, ids):
        weights = {**params, "params": {**params["params"], "embedding": {"embedding": table}}}
        logits = net.apply(weights, ids, training=step).logits_BxTxV
        return jnp.sum(jnp.sin(logits[0, PLACE])), logits

    program = jax.jit(jax.value_and_grad(output, has_aux=True))

    def run(ids):
        (_, logits), gradient = program(table, ids)
        return np.asarray(logits), np.abs(np.asarray(gradient))[ids].max(axis=-1)

    return run


# Several layers, with and without experts.
DEEP = {"dense": model("switch", n_experts=1, n_layers=2), "routed": model("topk", n_layers=2)}


def changes(run):
    """How many outputs change before a place from which on the first sequence has other tokens, and how many of the
    second sequence."""
    before, count = run(TOKENS)[0], 0
    for place in (1, 6, 11):
        others = TOKENS.copy()
        others[0, place:] += TOKENS.size
        moved = np.any(run(others)[0] != before, axis=-1)
        assert np.all(moved[0, place:])
        count += int(np.sum(moved[0, :place]) + np.sum(moved[1]))
    return count


def reached_by(run):
    """The places that move the output at PLACE."""
    return run(TOKENS)[1] > 0


PAST = np.stack([np.arange(LENGTH) <= PLACE, np.zeros(LENGTH, bool)])
ONE_OF_EACH = [(router, "mlp") for router in ROUTERS if (router, "mlp") in CAUSAL]
ONE_OF_EACH += [("topk", experts) for experts in EXPERTS if experts != "mlp"]
# As whole networks one pair of each router and of each form of experts, and all of them in the long tests.
NETWORKS = [pytest.param(*pair, marks=() if pair in ONE_OF_EACH else pytest.mark.slow) for pair in CAUSAL]


@pytest.mark.parametrize(("router", "experts"), [pair for pair in CAUSAL if pair not in ONE_OF_EACH])
def test_an_output_of_a_causal_layer_depends_on_its_own_token_alone(router, experts):
    """Of every other pair: all other tokens are replaced, and the gradient is zero at all of them, exactly. So
    attention alone mixes tokens, and that it is causal the networks below show, as that the grouped dispatch mixes
    none."""
    config, x, known = model(router, experts), normal(2, LENGTH, 16), tokens(LENGTH, 2)
    config = config.model_copy(update={"dispatch": "mixed" if config.experts_kind.mixes else "dense"})
    moe, params = layer(config, x, known)

    @functools.partial(jax.value_and_grad, argnums=1, has_aux=True)
    def output(known, x):
        y, _ = moe.apply(params, x, known)
        return jnp.sum(jnp.sin(y[0, PLACE])), y[0, PLACE]

    program = jax.jit(output)
    (_, before), gradient = program(known, x)
    own = np.arange(2 * LENGTH).reshape(2, LENGTH) == PLACE
    np.testing.assert_array_equal(np.any(gradient != 0, axis=-1), own)
    others = known.replace(id_T=jnp.where(own.ravel(), known.id_T, (known.id_T + 7) % VOCAB))
    (_, after), _ = program(others, jnp.where(own[..., None], x, normal(2, LENGTH, 16, seed=1)))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(("router", "experts"), NETWORKS)
def test_no_output_depends_on_later_tokens_or_other_sequences(router, experts):
    run = probe(model(router, experts), False)
    assert changes(run) == 0
    np.testing.assert_array_equal(reached_by(run), PAST)


@pytest.mark.parametrize("name", OPTIONS)
def test_no_output_depends_on_later_tokens_with_options_and_in_training(name):
    run = probe(*OPTIONS[name])
    assert changes(run) == 0
    np.testing.assert_array_equal(reached_by(run), PAST)


@pytest.mark.parametrize("name", LEAKS)
def test_the_probe_finds_every_leak(name):
    """Expert choice and BASE leak through who is chosen, which is piecewise constant: derivatives do not see it,
    replaced tokens do. Soft MoE and the batch norm mix tokens smoothly, and both see it."""
    run = probe(*LEAKS[name])
    assert changes(run) > 0
    assert np.any(reached_by(run) & ~PAST) == (name in ("soft", "batch norm"))


def test_base_is_causal_at_inference():
    """At inference a token takes its expert of highest affinity."""
    run = probe(model("base"), False)
    assert changes(run) == 0
    np.testing.assert_array_equal(reached_by(run), PAST)


@pytest.mark.parametrize(("router", "experts"), NETWORKS)
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_sequence(router, experts):
    """To the rounding of float32 in other shapes: sums of 16 to 100 products of numbers of size 1, through one
    block."""
    config = model(router, experts)
    whole, _ = probe(config, False)(TOKENS)
    np.testing.assert_allclose(decoded(config, prompt=1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DEEP)
def test_several_layers_are_causal_and_decode_after_a_prompt(name):
    """Rounding of two blocks; the prompt fills the cache in one call."""
    run = probe(DEEP[name], False)
    assert changes(run) == 0
    np.testing.assert_array_equal(reached_by(run), PAST)
    np.testing.assert_allclose(decoded(DEEP[name], prompt=7), run(TOKENS)[0], rtol=1e-4, atol=1e-5)


def decoded(config, prompt):
    """Logits [B, T, V] of a call for the prompt and one for each token behind it."""
    net, params = network(config)
    run, caches, logits = jax.jit(net.apply), empty_caches(config, 2, LENGTH), []
    for start, end in itertools.pairwise([0, *range(prompt, LENGTH + 1)]):
        output = run(params, TOKENS[:, start:end], caches, start)
        caches = output.caches
        logits.append(output.logits_BxTxV)
    return np.concatenate(logits, axis=1)
