"""A whole training step on the device: the loss that the CPU finds, the same numbers twice, and alone as in company."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.timing import seconds
from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.training.step import State, StepFunction, first_state

VOCAB = 512
STEPS = 3
# Of the loss on the device, in bfloat16 products, to that on the CPU in float32: a mean over thousands of tokens of
# independent roundings to 2^-9 of logits of size 1.
LOSS_TOLERANCE = 2.0**-9
DETERMINISTIC = {"xla_gpu_deterministic_ops": True, "xla_gpu_exclude_nondeterministic_ops": True}


def cases(tiny: bool) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], dict[str, Any]]]]:
    """Cases of `benchmarks.gpu.equality`."""
    yield "step: loss on the device and on the CPU", functools.partial(_losses, tiny), _same_loss
    for name, options in list({"as it is": {}, "deterministic": DETERMINISTIC}.items())[: 1 if tiny else None]:
        yield f"step twice: {name}", functools.partial(_program, tiny, options), _same_twice
    yield "step: trunks side by side and alone", functools.partial(_side_by_side, tiny), _same_in_company


def _function(tiny: bool, dtype: Literal["float32", "bfloat16"] = "bfloat16") -> StepFunction:
    sizes: dict[str, Any] = {"d_model": 32, "n_layers": 1} if tiny else {"d_model": 256, "n_layers": 2}
    model = ModelConfig(**sizes, d_head=16, n_experts=4, top_k=2, router="topk", dtype=dtype)
    train = TrainConfig(batch_tokens=64 if tiny else 8192, seq_len=16 if tiny else 256)
    return StepFunction(model, VOCAB, train, kernel="batched")


def _batches(function: StepFunction) -> np.ndarray:
    shape = (STEPS, function.train.sequences, function.train.seq_len + 1)
    return np.random.default_rng(0).integers(VOCAB - 1, size=shape).astype(np.int32)


def _first(function: StepFunction, seed: int = 0) -> State:
    return jax.jit(functools.partial(first_state, function.model, VOCAB, function.train))(jax.random.key(seed))


def _program(tiny: bool, options: dict[str, Any]) -> Any:
    function = _function(tiny)
    state, batches = _first(function), _batches(function)
    on_gpu = options if jax.default_backend() == "gpu" else {}
    lowered = jax.jit(function).lower(state, batches[0], jnp.float32(1e-3))
    return lowered.compile(compiler_options=on_gpu), state, batches


def _trained(program: Any, state: State, batches: np.ndarray) -> tuple[State, np.ndarray]:
    reported = []
    for batch in batches:
        state, metrics = program(state, batch, jnp.float32(1e-3))
        reported.append(np.asarray(metrics))
    return state, np.stack(reported)


def _same_twice(compiled: Any) -> dict[str, Any]:
    """Whether the same steps give the same numbers to the last bit, and what a step takes. A result that is not a
    mistake: without XLA's deterministic operations, sums of the embedding's gradient may come in any order."""
    program, state, batches = compiled
    runs = [_trained(program, state, batches) for _ in range(2)]
    leaves = zip(*(jax.tree.leaves(run[0].params) for run in runs), strict=True)
    off = max(float(np.max(np.abs(np.asarray(one) - np.asarray(other)))) for one, other in leaves)
    one = seconds(lambda: program(state, batches[0], jnp.float32(1e-3)), groups=3)
    return {"what": "the same steps twice", "off": off, "same_bits": off == 0.0, "step_ms": 1e3 * one}


def _losses(tiny: bool) -> Any:
    programs = []
    functions = (_function(tiny, "bfloat16"), _function(tiny, "float32"))
    for device, function in zip((jax.devices()[0], jax.devices("cpu")[0]), functions, strict=True):
        with jax.default_device(device):
            inputs = jax.device_put((_first(function), _batches(function)[0], jnp.float32(1e-3)), device)
            programs.append((jax.jit(function).lower(*inputs).compile(), inputs))
    return programs


def _same_loss(programs: Any) -> dict[str, Any]:
    found, expected = (float(program(*inputs)[1][0]) for program, inputs in programs)
    off = abs(found / expected - 1)
    row = {"what": "loss of a step", "dtype": "bfloat16", "off": off, "tolerance": LOSS_TOLERANCE}
    return row | {"loss": found, "passed": off <= LOSS_TOLERANCE}


def _side_by_side(tiny: bool) -> Any:
    function = _function(tiny, "float32")
    states = [_first(function, seed) for seed in (0, 1)]
    stacked, batches, rate = jax.tree.map(lambda *s: jnp.stack(s), *states), _batches(function)[0], jnp.float32(1e-3)
    with jax.default_matmul_precision("highest"):
        together = jax.jit(jax.vmap(function, in_axes=(0, None, None))).lower(stacked, batches, rate).compile()
        alone = jax.jit(function).lower(states[1], batches, rate).compile()
    return (together, stacked), (alone, states[1]), (batches, rate)


def _same_in_company(compiled: Any) -> dict[str, Any]:
    """The loss and the norm of the gradient of a trunk in a program of two, and in its own."""
    (together, stacked), (alone, state), inputs = compiled
    found, expected = np.asarray(together(stacked, *inputs)[1])[1], np.asarray(alone(state, *inputs)[1])
    off = float(np.max(np.abs(found[:2] / expected[:2] - 1)))
    limit = 1e-4  # sums of thousands of float32 terms in another order: 2^-24 sqrt(1e6)
    row = {"what": "a trunk in company and alone", "dtype": "float32", "off": off, "tolerance": limit}
    return row | {"passed": off <= limit}
