"""The layers of the arms against slow loops, and what their definitions imply."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from scaling.tasks.rl.arms import ARMS
from scaling.tasks.rl.network import Experts, QNetwork, patches, permuted
from scaling.tasks.value_rl import ValueRL

BATCH = 3
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}  # float32; sums of 64 terms near 1 in another order


def observations(channels: int = 4) -> jax.Array:
    return jax.random.bernoulli(jax.random.key(1), 0.3, (BATCH, 10, 10, channels))


def made(arm: str, **changes: Any) -> tuple[QNetwork, Any]:
    """A network of an arm with weights near what layers start with, none of them 0 or 1."""
    settings = ValueRL(**({"arm": arm, "d_expert": 6, "d_conv": 5, "n_experts": 3} | changes))
    network, rng = QNetwork(settings.layer, settings.d_conv, settings.facts.actions), np.random.default_rng(0)

    def weight(path: Any, leaf: Any) -> jax.Array:
        if path[-1].key == "order":
            return jnp.asarray(rng.permutation(leaf.size), leaf.dtype)
        spread = 0.3 if leaf.ndim < 2 else leaf.shape[-2] ** -0.5
        return jnp.asarray((path[-1].key.endswith("norm")) + spread * rng.normal(size=leaf.shape), jnp.float32)

    shapes = jax.eval_shape(network.init, jax.random.key(0), observations())
    return network, jax.tree_util.tree_map_with_path(weight, shapes)


def normed(x: np.ndarray, weights: Any, name: str, expert: int | None = None) -> np.ndarray:
    """relu(LN(x U + a)), one row after another, in float64."""
    pick = lambda part: np.asarray(weights[f"{name}_{part}"], float)[... if expert is None else expert]  # noqa: E731
    inner = x @ pick("into") + pick("into_bias")
    mean, variance = inner.mean(-1, keepdims=True), inner.var(-1, keepdims=True)
    return np.maximum((inner - mean) / np.sqrt(variance + 1e-6) * pick("norm") + pick("norm_bias"), 0)


def one_expert(row: np.ndarray, weights: Any, expert: int) -> np.ndarray:
    hidden = normed(row, weights, "experts", expert)
    return (
        hidden @ np.asarray(weights["experts_out"], float)[expert]
        + np.asarray(weights["experts_out_bias"], float)[expert]
    )


def convolved(observation: jax.Array, weights: Any) -> np.ndarray:
    """The places of one observation after convolution, layer norm and ReLU, [64, D]."""
    image = np.asarray(observation, float)
    places = [image[i : i + 3, j : j + 3].reshape(-1) for i in range(8) for j in range(8)]
    return normed(np.stack(places), weights, "conv")


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = np.exp(x - x.max(axis, keepdims=True))
    return shifted / shifted.sum(axis, keepdims=True)


def slow_layer(tokens: np.ndarray, variables: Any, network: QNetwork) -> np.ndarray:
    """What the layer makes of the tokens of one observation, as the definitions say, token by token."""
    layer, weights = network.layer, variables["params"]["layer"]
    if layer.form == "tokens":
        return np.stack([one_expert(token, weights, 0) for token in tokens])
    out = np.zeros_like(tokens)
    if layer.form == "top1":
        gates = softmax(tokens @ np.asarray(weights["router"], float), 1)
        taken = [0] * layer.n_experts
        for t, token in enumerate(tokens):
            expert = int(np.argmax(gates[t]))
            if not layer.slots or taken[expert] < layer.slots:
                out[t] = gates[t, expert] * one_expert(token, weights, expert)
            taken[expert] += 1
        return out
    drawn = {
        "learned": weights.get("phi"),
        "random": variables.get("constants", {}).get("layer", {}).get("phi"),
        "uniform": None,
    }
    found = drawn[layer.phi]
    phi = np.zeros((layer.width, layer.n_experts, layer.slots)) if found is None else np.asarray(found, float)
    logits = np.einsum("td,des->tes", tokens, phi)
    fill = softmax(logits, 0)
    read = softmax(logits.reshape(len(tokens), -1), 1).reshape(logits.shape)
    for e in range(layer.n_experts):
        for s in range(layer.slots):
            row = sum(fill[t, e, s] * tokens[t] for t in range(len(tokens)))
            out += read[:, e, s, None] * one_expert(row, weights, e)
    return out


def slow(observation: jax.Array, variables: Any, network: QNetwork) -> np.ndarray:
    """Values of actions of one observation."""
    layer, weights = network.layer, variables["params"]
    flat = convolved(observation, weights)
    if layer.form == "dense":
        features = normed(flat.reshape(-1), weights["layer"], "dense")
    else:
        if layer.shuffled:
            flat = flat.reshape(-1)[np.asarray(variables["constants"]["layer"]["order"])].reshape(flat.shape)
        out = slow_layer(flat.T if layer.by_feature else flat.reshape(layer.tokens, layer.width), variables, network)
        features = {"flatten": out.reshape(-1), "sum": out.sum(0), "mean": out.mean(0)}[layer.pool]
    return features @ np.asarray(weights["head"]["kernel"], float) + np.asarray(weights["head"]["bias"], float)


def slow_values(variables: Any, network: QNetwork) -> np.ndarray:
    return np.stack([slow(observation, variables, network) for observation in observations()])


@pytest.mark.parametrize(
    ("arm", "tokenisation"), [*((arm, "per-conv") for arm in ARMS), ("soft", "per-feat"), ("top1", "per-feat"),
                              ("soft", "per-sample")]
)  # fmt: skip
def test_every_arm_is_its_definition(arm: str, tokenisation: str) -> None:
    network, variables = made(arm, tokenisation=tokenisation)
    found = jax.jit(network.apply)(variables, observations())
    # float32 through three layers and two norms
    np.testing.assert_allclose(found, slow_values(variables, network), rtol=1e-4, atol=1e-4)


def test_the_convolution_by_patches_is_a_convolution() -> None:
    image = observations().astype(jnp.float32)
    conv = nn.Conv(5, (3, 3), padding="VALID", use_bias=False)
    variables = conv.init(jax.random.key(0), image)
    found = patches(image) @ variables["params"]["kernel"].reshape(-1, 5)
    np.testing.assert_allclose(found, conv.apply(variables, image).reshape(BATCH, 64, 5), **TOLERANCE)


def layer_output(network: QNetwork, variables: Any, x_BxSxD: jax.Array) -> jax.Array:
    """What the head of an arm with experts reads, for a given output of the convolution."""
    own = {collection: tree["layer"] for collection, tree in variables.items()}
    return jax.jit(Experts(network.layer).apply)(own, x_BxSxD)[0]


def test_soft_moe_is_equivariant_to_permutations_of_tokens() -> None:
    network, variables = made("soft")
    x = jax.random.normal(jax.random.key(2), (BATCH, 64, 5))
    order = jax.random.permutation(jax.random.key(3), 64)
    plain, moved = (layer_output(network, variables, tokens).reshape(BATCH, 64, 5) for tokens in (x, x[:, order]))
    np.testing.assert_allclose(moved, plain[:, order], **TOLERANCE)


def test_without_phi_every_token_becomes_the_mean_over_experts_of_the_mean_token() -> None:
    network, variables = made("soft-uniform")
    x = jax.random.normal(jax.random.key(2), (BATCH, 64, 5))
    out = layer_output(network, variables, x).reshape(BATCH, 64, 5)
    for batch in range(BATCH):
        token = np.asarray(x[batch], float).mean(0)
        expected = np.mean([one_expert(token, variables["params"]["layer"], e) for e in range(3)], axis=0)
        np.testing.assert_allclose(out[batch], np.broadcast_to(expected, (64, 5)), **TOLERANCE)


def test_shuffling_mixes_entries_of_tokens() -> None:
    """A permutation of whole tokens would leave each token's entries together; this one leaves almost none: entries
    that were neighbours in a token of 5 are so again with a probability of 4/319 each."""
    network = made("soft-shuffled")[0]
    variables = jax.jit(network.init)(jax.random.key(0), observations())
    order = np.asarray(variables["constants"]["layer"]["order"])
    assert sorted(order) == list(range(64 * 5))
    origin = (order // 5).reshape(64, 5)
    assert np.mean([len(set(token)) for token in origin]) > 4.5


def test_the_gradient_of_a_permutation_is_the_inverse_permutation() -> None:
    x, order = jax.random.normal(jax.random.key(0), (4, 7)), jax.random.permutation(jax.random.key(1), 7)
    weights = jnp.arange(7.0)
    found = jax.grad(lambda x: jnp.sum(permuted(x, order) * weights))(x)
    np.testing.assert_array_equal(found, jax.grad(lambda x: jnp.sum(x[:, order] * weights))(x))


def test_top1_with_room_for_all_is_dropless_and_so_are_its_gradients() -> None:
    roomy, variables = made("top1", capacity_factor=3.0)
    dropless, _ = made("top1-dropless")
    assert (roomy.layer.slots, dropless.layer.slots) == (64, 0)

    @jax.jit
    def both(params: Any) -> list[Any]:
        def loss(params: Any, network: QNetwork) -> jax.Array:
            return jnp.sum(jnp.sin(network.apply({"params": params}, observations())))

        return [jax.value_and_grad(loss)(params, network) for network in (roomy, dropless)]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *both(variables["params"]))


def test_what_is_frozen_is_no_parameter() -> None:
    random, learned = made("soft-random")[1], made("soft")[1]
    assert "phi" not in random["params"]["layer"]
    assert random["constants"]["layer"]["phi"].shape == learned["params"]["layer"]["phi"].shape


@pytest.mark.parametrize("arm", ["dense", "tokens-sum", "soft", "top1", "top1-dropless"])
def test_inspection_sees_what_the_network_computes(arm: str) -> None:
    """Values are unchanged; every row that reached an expert is there; the share dropped is that of rows missing."""
    network, variables = made(arm, capacity_factor=0.5)
    q, inside = jax.jit(lambda v: network.apply(v, observations(), inspect=True))(variables)
    np.testing.assert_allclose(q, slow_values(variables, network), rtol=1e-4, atol=1e-4)
    reached = int(np.sum(inside.reached_ExR))
    expected = {"dense": BATCH, "tokens-sum": 64 * BATCH, "soft": 3 * 22 * BATCH, "top1-dropless": 64 * BATCH}
    if arm == "top1":
        assert reached == round((1 - float(inside.dropped)) * 64 * BATCH)
        assert 0.5 <= float(inside.dropped) < 1  # 3 x 11 places for 64 tokens
    else:
        assert reached == expected[arm]
        assert float(inside.dropped) == 0
    assert inside.features_BxH.shape == (BATCH, network.layer.features)
