"""Optimisers by name: every expert on its own, what each keeps, and which cells need a learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from scaling.config.counts import parameters
from scaling.config.model import ModelConfig
from scaling.config.optimisers import OPTIMISERS
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.config.training_memory import values_of_optimiser
from scaling.training.checkpoint import Checkpoint, Checkpoints, TrainingState
from scaling.training.optimiser import MUON_RMS, optimiser
from scaling.training.step import StepFunction, first_params, first_state

VOCAB = 29
SMALL = {"d_model": 16, "d_head": 8, "n_layers": 1, "d_expert": 8, "n_experts": 4, "top_k": 2, "router": "topk"}
OTHERS = [name for name in OPTIMISERS if name != "adamw"]


def train(**changes):
    return TrainConfig(**{"batch_tokens": 96, "seq_len": 12, "warmup_tokens": 0, "lr": 0.01, **changes})


def update(name, weights, gradients, steps=3, **changes):
    """The update after some steps with the same gradients."""
    made = optimiser(train(optimiser=name, weight_decay=0.0, **changes), ModelConfig(**SMALL))
    state = made.init(weights)
    for _ in range(steps):
        updates, state = made.update(gradients, state, weights)
    return updates, state


def random(key, *shape):
    return jax.random.normal(jax.random.key(key), shape)


@pytest.mark.parametrize("name", OTHERS)
def test_an_expert_is_updated_as_the_same_matrix_alone(name):
    """Also where there are more experts than the matrix has rows, so that an optimiser could factor the wrong axes."""
    experts, rows, columns = 140, 130, 132
    gradients = random(0, experts, rows, columns)
    many = {"block_0": {"moe": {"experts": {"gate": gradients}}}}
    together, _ = update(name, many, many)
    for expert in (0, 139):
        one = {"block_0": {"moe": {"mlp": {"gate": gradients[expert]}}}}
        alone, _ = update(name, one, one)
        np.testing.assert_allclose(
            together["block_0"]["moe"]["experts"]["gate"][expert], alone["block_0"]["moe"]["mlp"]["gate"], atol=2e-5
        )


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16)], ids=str)
def test_muon_orthogonalises_to_the_size_of_adams_update(shape):
    """Newton-Schulz's singular values lie in .7 to 1.2, so the root mean square lies so about .2."""
    gradients = {"block_0": {"attention": {"query": random(1, *shape)}, "attention_norm": {"scale": jnp.ones(8)}},
                 "embedding": {"embedding": random(2, VOCAB, 8)}}  # fmt: skip
    updates, _ = update("muon", gradients, gradients, steps=1)
    found = updates["block_0"]["attention"]["query"] / (MUON_RMS * np.sqrt(max(shape)))
    singular = np.linalg.svd(found, compute_uv=False)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    # Adam's first update is the gradient's sign.
    np.testing.assert_allclose(
        updates["embedding"]["embedding"], np.sign(gradients["embedding"]["embedding"]), atol=1e-5
    )


def test_lion_moves_by_signs_and_adafactor_is_clipped():
    gradients = {"head": random(3, 130, 140), "norm": {"scale": random(4, 130)}}
    lion, _ = update("lion", gradients, gradients)
    assert set(np.unique(np.abs(lion["head"]))) <= {0.0, 1.0}
    factored, _ = update("adafactor", gradients, gradients)
    assert np.sqrt(np.mean(np.square(factored["head"]))) == pytest.approx(1.0, abs=0.02)
    assert np.sqrt(np.mean(np.square(factored["norm"]["scale"]))) <= 1 + 1e-5


MODELS = [
    SMALL,
    SMALL | {"n_experts": 1, "tie_embeddings": True},
    SMALL | {"d_model": 128, "d_head": 32, "d_expert": 128, "n_kv_heads": 2},
    SMALL | {"d_model": 128, "d_head": 32, "d_expert": 128, "experts": "shared", "n_shared": 2},
    SMALL | {"experts": "lora", "router": "topk"},
]


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("sizes", MODELS, ids=range(len(MODELS)))
def test_what_an_optimiser_keeps_is_counted(name, sizes):
    """To the value, without counters, coefficients and adafactor's placeholders of one value."""
    model = ModelConfig(**sizes)
    state = jax.eval_shape(
        lambda key: optimiser(train(optimiser=name), model).init(first_params(model, 200, key)["params"]),
        jax.random.key(0),
    )
    paths = jax.tree_util.tree_leaves_with_path(state)
    of_weights = [leaf for path, leaf in paths if "ns_coeffs" not in jax.tree_util.keystr(path)]
    values = sum(leaf.size for leaf in of_weights if leaf.ndim and leaf.shape[-1] > 1)
    counted = values_of_optimiser(name, parameters(model, 200), model)
    assert values == pytest.approx(counted, abs=0 if name != "adafactor" else 1)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_loss_falls(name):
    model, rate = ModelConfig(**SMALL), {"lion": 3e-3}.get(name, 1e-2)
    settings = train(optimiser=name, lr=rate)
    state = jax.jit(lambda key: first_state(model, VOCAB, settings, key))(jax.random.key(0))
    step = jax.jit(StepFunction(model, VOCAB, settings))
    batch = jnp.asarray(np.tile(np.arange(13) * 5 % VOCAB, (8, 1)), jnp.int32)
    losses = []
    for _ in range(25):
        state, metrics = step(state, batch, np.float32(rate))
        losses.append(float(metrics[0]))
    assert int(state.moments[0].count) == 25
    assert losses[-1] < 0.8 * losses[0]


def test_only_adamw_has_a_learning_rate_of_its_own():
    for name in OTHERS:
        with pytest.raises(ValidationError, match="lr"):
            TrainConfig(optimiser=name)
    with pytest.raises(ValidationError, match="SOAP"):
        TrainConfig(optimiser="soap", lr=0.1)
    assert RunConfig(train={"optimiser": "muon", "lr": 0.02}).learning_rate == 0.02
    with pytest.raises(ValidationError, match="moments"):
        RunConfig(
            model={"router": "dense-to-sparse", "n_experts": 4, "dense_tokens": 1000, "anneal_tokens": 1000},
            train={"optimiser": "lion", "lr": 0.02},
        )


def test_a_run_depends_on_the_settings_of_its_own_optimiser_alone():
    def run_id(**settings):
        return RunConfig(train={"lr": 0.01, **settings}).run_id("x")

    assert {"optimiser", "momentum", "decay_power"}.isdisjoint(TrainConfig().identity())
    assert run_id() == run_id(momentum=0.5) == run_id(decay_power=0.5)
    assert run_id(optimiser="muon") != run_id(optimiser="muon", momentum=0.5)
    assert run_id(optimiser="adafactor") == run_id(optimiser="adafactor", beta1=0.5)
    assert len({run_id(optimiser=name) for name in OPTIMISERS}) == len(OPTIMISERS)


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_what_an_optimiser_keeps_survives_a_checkpoint(name, tmp_path):
    """Also where the tree has places without a value, and side by side for two trunks."""
    settings, model = train(optimiser=name), ModelConfig(**SMALL)
    first = jax.jit(jax.vmap(lambda key: first_state(model, VOCAB, settings, key)))
    state = first(jax.random.split(jax.random.key(0), 2))
    saved = Checkpoints(tmp_path, 1.0)
    saved.save(Checkpoint(TrainingState(state, 3, [np.zeros((2, 2), np.float32)] * 3), None, 9))
    found = Checkpoints(tmp_path, 1.0).load(
        jax.eval_shape(lambda: state), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )
    assert found is not None
    assert jax.tree.structure(found.trunk.state) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found.trunk.state, state)
