"""First values are those of the whole initialisation, compiled, bit for bit, whatever the model."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.training.initial_values import compile_unoptimised, initial_values, initialisation_of
from scaling.training.step import first_state

TRAIN = TrainConfig(batch_tokens=64, seq_len=16)
QUICKSTART: dict[str, Any] = {"n_layers": 2, "top_k": 2, "router": "topk"}
MODELS: dict[str, dict[str, Any]] = {
    "routed": QUICKSTART | {"n_experts": 8, "d_model": 64},
    "odd": QUICKSTART | {"n_experts": 3, "d_model": 48, "d_expert": 40},
    "dense": {"n_experts": 1, "d_model": 32, "n_layers": 2},
}


def equal(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs
    )


def drawn(values: dict[str, Any], seeds: tuple[int, ...]) -> bool:
    """Compares the two ways; whether the model is drawn at all."""
    function = partial(first_state, ModelConfig(**values), 257, TRAIN)
    compiled = compile_unoptimised(function, jax.random.key(0))
    initialisation, shapes = initialisation_of(function)
    assert shapes == jax.eval_shape(function, jax.random.key(0))
    for seed in seeds:
        assert equal(initial_values(initialisation, seed), compiled(jax.random.key(seed)))
    return not isinstance(initialisation, jax.stages.Compiled)


@pytest.mark.parametrize("name", MODELS)
def test_the_usual_models_are_drawn_and_equal_the_compiled_initialisation(name: str) -> None:
    assert drawn(MODELS[name], (0, 7, 2**31 - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        QUICKSTART | {"n_experts": 16, "d_model": 256, "n_layers": 4},
        QUICKSTART | {"n_experts": 4, "d_model": 32, "experts": "shared"},
        {"n_experts": 4, "d_model": 32, "router": "switch"},
        {"n_experts": 4, "d_model": 32, "router": "sigmoid", "top_k": 2},
        {"n_experts": 4, "d_model": 32, "router": "hash"},
        {"n_experts": 4, "d_model": 32, "router": "soft", "leak_study": True},
        {"n_experts": 4, "d_model": 32, "router": "base", "leak_study": True},
        {"n_experts": 4, "d_model": 32, "router": "tsallis"},
        {"n_experts": 4, "d_model": 32, "experts": "lora"},
        {"n_experts": 4, "d_model": 32, "experts": "cp"},
        {"n_experts": 4, "d_model": 32, "experts": "ring"},
    ],
    ids=str,
)
def test_every_model_equals_the_compiled_initialisation(values: dict[str, Any]) -> None:
    drawn(values, (0, 3))


def test_what_is_no_such_initialisation_is_compiled_as_a_whole() -> None:
    def function(key: jax.Array) -> Any:
        first, second = jax.random.split(key)
        return {"uniform": jax.random.uniform(first, (3,)), "normal": jax.random.normal(second, (2, 2))}

    initialisation, _ = initialisation_of(function)
    assert isinstance(initialisation, jax.stages.Compiled)
    assert equal(initial_values(initialisation, 5), jax.jit(function)(jax.random.key(5)))


def test_other_arithmetic_on_drawn_numbers_is_not_mistaken_for_a_factor() -> None:
    def function(key: jax.Array) -> Any:
        folded = jax.random.fold_in(key, 9)
        return 1 + jax.random.normal(folded, (4,)), jax.random.normal(folded, (4,)) * 0.5 * 0.3

    initialisation, _ = initialisation_of(function)
    assert isinstance(initialisation, jax.stages.Compiled)
