"""One step: in parts, with recomputation, in bfloat16, and Adam on small gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model import transformer
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP
from scaling.model.moe.routing import Routing
from scaling.model.transformer import Transformer
from scaling.training.optimiser import optimiser
from scaling.training.step import State, StepFunction, initial_params, metric_names, state_of, token_losses

VOCAB, SEPARATOR = 31, 30
MODEL = {"d_model": 16, "d_head": 8, "n_layers": 2, "d_expert": 8, "n_experts": 4, "top_k": 2, "router": "topk"}
# Of a sum of up to 96 tokens' gradients: rounding grows with the root of the number of terms, 2^-24 each.
SUMS = {"rtol": 3e-5, "atol": 1e-6}


def model(**changes):
    return ModelConfig(**{**MODEL, **changes})


def train(**changes):
    return TrainConfig(**{"batch_tokens": 96, "seq_len": 12, "warmup_tokens": 0, "grad_clip": 1e9, **changes})


@functools.cache
def batch():
    """8 sequences of which some are mostly padding: a part of the batch may have a third of another's targets."""
    tokens = np.random.default_rng(0).integers(0, VOCAB - 1, (8, 13))
    tokens[:, 0] = SEPARATOR
    for row, length in enumerate([2, 3, 13, 13, 2, 9, 5, 13]):
        tokens[row, length:] = SEPARATOR
    return jnp.asarray(tokens, jnp.int32)


@functools.cache
def params():
    return initial_params(model(), VOCAB, seed=0)


@functools.cache
def forward(config, packed=False):
    """Tokens to the output of the network with these weights."""
    network = Transformer(config, VOCAB)

    def output(tokens):
        documents = jnp.cumsum(tokens == SEPARATOR, axis=1) if packed else None
        return transformer.apply(network, params(), tokens, documents_BxT=documents)

    return jax.jit(output)


@functools.cache
def after_one(model, train, packed=True):
    """State and metrics after a step. The first moment is (1 - beta1) times the gradient, since nothing is clipped."""
    state = state_of(params(), model, train, jax.random.key(0))
    state, metrics = jax.jit(StepFunction(model, VOCAB, train, separator=SEPARATOR if packed else None))(
        state, batch(), np.float32(1e-3)
    )
    return state, dict(zip(metric_names(model), np.asarray(metrics).tolist(), strict=True))


def gradient(state, settings):
    return jax.tree.map(lambda mu: np.asarray(mu) / (1 - settings.beta1), state.moments[0].mu)


def assert_trees(found, expected, **bound):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **bound)


def test_parts_of_a_batch_add_up_to_the_whole():
    """Also where parts have unequal numbers of targets. The z penalty is a mean over tokens, so it adds up as well."""
    plain = model(balance_coef=0.0, z_coef=0.01)
    settings = [train(), train(accumulate=4)]
    (one, seen), (other, parts) = (after_one(plain, settings_) for settings_ in settings)
    assert_trees(gradient(other, settings[1]), gradient(one, settings[0]), **SUMS)
    for name in ("loss", "grad_norm", "z_loss", "router_entropy"):
        assert parts[name] == pytest.approx(seen[name], rel=1e-5), name
    lengths = np.sum(np.asarray(batch()) != SEPARATOR, axis=1).reshape(4, 2).sum(axis=1)
    assert len(set(lengths.tolist())) > 1


def test_only_the_balance_penalty_depends_on_the_parts():
    """It is a product of two means and is taken part by part: the mean of the parts' own values, by hand."""
    _, seen = after_one(model(), train(accumulate=4))
    _, whole = after_one(model(), train())
    per_part = []
    for part in np.asarray(batch()).reshape(4, 2, 13):
        for routing in forward(model(), packed=True)(part[:, :-1]).routings:
            chosen, gates = np.asarray(routing.chosen_TxK), np.asarray(routing.gates_TxE)
            share = np.bincount(chosen.ravel(), minlength=4) / chosen.size
            per_part.append(4 * np.sum(share * gates.mean(axis=0)))
    assert seen["balance_loss"] == pytest.approx(np.mean(per_part), rel=1e-5)
    assert seen["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert abs(seen["balance_loss"] - whole["balance_loss"]) > 1e-4


@pytest.mark.parametrize("dispatch", ["grouped", "capacity"])
def test_recomputation_changes_only_rounding(dispatch):
    """Not bit for bit, because XLA fuses the two programs differently."""
    one, seen = after_one(model(dispatch=dispatch), train())
    other, again = after_one(model(dispatch=dispatch), train(remat=True))
    assert_trees(gradient(other, train()), gradient(one, train()), **SUMS)
    assert again == pytest.approx(seen, rel=1e-5)


def test_only_products_are_in_bfloat16():
    """Weights, moments, and everything of the router stay float32.

    bfloat16 keeps 8 bits, so each of about n = 10 roundings per layer is off by up to u = 2^-9 of its value: logits by
    n u max|logit| at worst, and a cross-entropy by twice the largest error of a logit.
    """
    half = model(dtype="bfloat16")
    state, low = after_one(half, train(), packed=False)
    _, high = after_one(model(), train(), packed=False)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.moments[0].mu, state.moments[0].nu))} == {
        jnp.dtype("float32")
    }
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient(state, train())))
    inputs = batch()[:, :-1]
    outputs = [forward(config)(inputs) for config in (half, model())]
    for routing in outputs[0].routings:
        kinds = {routing.logits_TxE.dtype, routing.gates_TxE.dtype, routing.weight_TxK.dtype}
        assert kinds == {jnp.dtype("float32")}
        # A softmax in bfloat16 would sum to 1 to three digits only.
        np.testing.assert_allclose(jnp.sum(routing.gates_TxE, axis=-1), 1.0, atol=1e-6)
    bound = 2 * 10 * half.n_layers * 2.0**-9 * float(jnp.max(jnp.abs(outputs[1].logits_BxTxV)))
    assert 0 < abs(low["loss"] - high["loss"]) < bound < 0.1
    wide = jax.tree.map(lambda g: np.linalg.norm(g), gradient(after_one(model(), train(), packed=False)[0], train()))
    apart = jax.tree.map(
        lambda a, b: np.linalg.norm(a - b),
        gradient(state, train()),
        gradient(after_one(model(), train(), packed=False)[0], train()),
    )
    # The same roundings on the way back; a token whose second choice of expert turns counts on top.
    assert sum(jax.tree.leaves(apart)) < 2 * 10 * half.n_layers * 2.0**-9 * sum(jax.tree.leaves(wide))


@functools.cache
def scaled_step(eps):
    """The optimiser, and a step of it on a loss that is multiplied by a scale."""
    settings = train(weight_decay=0.0)
    adam = optimiser(settings, model()) if eps is None else optax.scale_by_adam(settings.beta1, settings.beta2, eps=eps)
    network, tokens = Transformer(model(), VOCAB), batch()

    def step(state, scale):
        def loss(weights):
            output = transformer.apply(network, weights, tokens[:, :-1])
            return scale * jnp.mean(token_losses(output.logits_BxTxV, tokens[:, 1:]))

        updates, moments = adam.update(jax.grad(loss)(state.params), state.moments, state.params)
        return State(jax.tree.map(lambda p, u: p - 1e-3 * u, state.params, updates), moments, state.key)

    return adam, jax.jit(step)


def trajectory(scale, eps=None):
    """Weights after three steps on a loss that is multiplied by `scale`."""
    adam, step = scaled_step(eps)
    state = State(params(), adam.init(params()), jax.random.key_data(jax.random.key(0)))
    for _ in range(3):
        state = step(state, np.float32(scale))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


def test_the_scale_of_the_loss_does_not_affect_the_weights():
    """As for one expert of a thousand; a power of two, so that scaling itself rounds nothing. What is left is eps =
    1e-15 beside the smallest gradients, whose squares float32 cannot hold. optax's own eps, 1e-8, would not do."""
    step = 1e-3
    large, small = trajectory(1.0), trajectory(2.0**-10)
    assert np.mean(np.abs(large - small) > 1e-3 * step) < 1e-3
    assert np.mean(np.abs(large - trajectory(2.0**-10, eps=1e-8)) > 1e-3 * step) > 0.5


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 1), (4, 2), (8, 3)])
def test_one_of_many_experts_learns_at_the_rate_of_the_dense_mlp(n_experts, top_k):
    """E copies of one expert; every token comes E times and goes to k experts in turn, with weight 1. So each expert
    sees each token k times where the dense MLP sees it E times: its gradient is k/E of the dense one, its update the
    same."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, pull = jax.random.normal(keys[0], (5, 6)), jax.random.normal(keys[1], (5, 6))
    one = {name: jax.random.normal(key, (6, 6)) for name, key in zip(("gate", "up", "down"), keys[1:], strict=True)}
    x, pull = jnp.repeat(x, n_experts, axis=0), jnp.repeat(pull, n_experts, axis=0)
    chosen = (jnp.arange(5 * n_experts)[:, None] + jnp.arange(top_k)) % n_experts
    flat = jnp.full((len(x), n_experts), 1 / n_experts)
    routing = Routing(chosen, jnp.ones(chosen.shape), flat, jnp.log(flat))

    def routed(experts):
        return jnp.sum(pull * dispatch.grouped(x, routing, GATED_MLP, experts, "loop"))

    dense = jax.jit(jax.grad(lambda w: jnp.sum(pull * GATED_MLP(w, x))))(one)
    experts = jax.tree.map(lambda w: jnp.broadcast_to(w, (n_experts, *w.shape)), one)
    every = jax.jit(jax.grad(routed))(experts)
    adam = optimiser(train(weight_decay=0.0), model())
    update = jax.jit(lambda gradient, weights: adam.update(gradient, adam.init(weights), weights)[0])
    updates = jax.device_get([update(g, w) for g, w in ((dense, one), (every, experts))])
    dense, every = jax.device_get((dense, every))
    for name in one:
        for e in range(n_experts):
            np.testing.assert_allclose(every[name][e], dense[name] * top_k / n_experts, rtol=1e-4, atol=1e-4)
            # The first update is the gradient's sign: equal wherever rounding does not turn it.
            np.testing.assert_allclose(updates[1][name][e], updates[0][name], rtol=1e-4)
