"""The kernels of a cell: that of the experts is fixed on CPU and measured once per shape on other devices."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.data.cache import cache_folder, writable
from scaling.errors import InputError
from scaling.files import write_atomically
from scaling.model.attention import Implementation, implementation
from scaling.model.moe import dispatch, hopper
from scaling.model.moe.experts import GATED_MLP
from scaling.model.moe.kernels import KERNELS
from scaling.model.moe.routing import Routing
from scaling.values import read_value

# 1.5 to 3 times as fast as `batched` at every shape measured; `ragged` computes every expert (results/LOG.md).
ON_CPU = "loop"
_TIMED = 5
# Of the norm, twice the rounding of a layer in bfloat16 with its gradient; one token in a thousand at a wrong expert is
# as much.
_SAME = 0.03
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Measured:
    """What the file of a measurement says, as far as it is read."""

    fastest: str


def kernel_of(config: RunConfig, device: jax.Device, trunks: int = 1) -> str:
    """The kernel of grouped dispatch for a cell on this device; "" without grouped dispatch.

    Trunks side by side use `batched`, which remains a batched product under vmap.
    """
    if config.model.n_experts == 1 or config.model.dispatch != "grouped":
        return ""
    if trunks > 1:
        return "batched"
    if device.platform == "cpu":
        return ON_CPU
    return fastest(config.model, config.train.batch_tokens // config.train.accumulate, device)


def attention_of(config: RunConfig) -> Implementation:
    """How the attention of a cell is computed on the device in use: documents packed into a sequence need the mask of
    plain products."""
    packed = config.data.packing == "documents"
    return "xla" if packed else implementation(config.model.dtype, config.model.d_head)


def kernel_of_call(model: ModelConfig, tokens: int, device: jax.Device) -> str:
    """The kernel of grouped dispatch for a call of inference with so many tokens; "" without grouped dispatch."""
    if model.n_experts == 1 or model.dispatch != "grouped":
        return ""
    return ON_CPU if device.platform == "cpu" else fastest(model, tokens, device, training=False)


def fastest(model: ModelConfig, tokens: int, device: jax.Device, *, training: bool = True) -> str:
    """The fastest kernel of one layer on this device, forward, and backward in `training`; measured once and cached.

    Loads are those of a random router. Kernels that do not run on the device, or whose result is not that of the
    others, are skipped.
    """
    shape = [model.d_model, model.d_expert, model.n_experts, model.top_k, model.dtype, tokens, training]
    parts = [shape, device.device_kind, jax.__version__, candidates(device)]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    path = cache_folder() / "kernels" / f"{name}.json"
    if path.is_file():
        with contextlib.suppress(InputError, OSError):  # a damaged file is measured anew
            if (known := read_value(_Measured, path).fastest) in KERNELS:
                return known
    seconds = measured(model, tokens, device, training=training)
    chosen = min(seconds, key=seconds.__getitem__)
    about = {"fastest": chosen, "seconds": seconds, "shape": shape, "device": device.device_kind}
    write_atomically(writable("kernels") / path.name, json.dumps(about).encode())
    return chosen


def candidates(device: jax.Device) -> list[str]:
    """The kernels that are installed and made for the device; whether they run is found by trying."""
    lacking = set() if importlib.util.find_spec("tokamax") else {"tokamax"}
    if str(getattr(device, "compute_capability", "")) != hopper.CAPABILITY:
        lacking.add("hopper")
    return [kernel for kernel in KERNELS if kernel not in lacking]


def measured(model: ModelConfig, tokens: int, device: jax.Device, *, training: bool = True) -> dict[str, float]:
    """Seconds of one layer's pass by kernel, forward, and backward in `training`: the median of a few calls after the
    first. A kernel is left out if it does not run, or its result is not that of the first that ran, which is of plain
    products. Raises the last kernel's error where none runs."""
    inputs = layer_inputs(model, tokens, device)
    seconds: dict[str, float] = {}
    expected: jax.Array | None = None
    failed: Exception = RuntimeError("no kernel is installed")
    with ThreadPoolExecutor() as pool:  # compiled together, timed one after another
        programs = {k: pool.submit(compiled, k, inputs, training=training) for k in candidates(device)}
    for kernel, program in programs.items():
        try:
            found = jax.tree.leaves(program.result()(*inputs))[-1]  # the output, or its gradient by the tokens
            off = 0.0 if expected is None else float(_off(found, expected))
            if not off <= _SAME:
                raise ArithmeticError(f"kernel {kernel} is off by {off:.2g} on {device.device_kind}")
            expected = found if expected is None else expected
            seconds[kernel] = _median_seconds(program.result(), inputs)
        except Exception as error:  # libraries report unsupported devices and shapes by errors of any type
            failed = error
            _LOGGER.info("kernel %s is left out: %s", kernel, error)
    if not seconds:
        raise failed
    return seconds


@jax.jit
def _off(found: jax.Array, expected: jax.Array) -> jax.Array:
    """Norm of the difference over the norm."""
    one, other = found.astype(jnp.float32), expected.astype(jnp.float32)
    return jnp.linalg.norm(one - other) / jnp.linalg.norm(other)


LayerInputs = tuple[Any, jax.Array, Routing]
"""Weights of the experts, tokens [T, D], and their routing."""


def layer_inputs(model: ModelConfig, tokens: int, device: jax.Device) -> LayerInputs:
    """Random weights and tokens of one layer on the device, with the routing of a random router."""
    keys = jax.random.split(jax.random.key(0), 5)
    experts, d, width, dtype = model.n_experts, model.d_model, model.d_expert, jnp.dtype(model.dtype)

    def normal(key: jax.Array, *shape: int) -> jax.Array:
        return (jax.random.normal(key, shape) / shape[-2] ** 0.5).astype(dtype)

    weights = {
        "gate": normal(keys[0], experts, d, width),
        "up": normal(keys[1], experts, d, width),
        "down": normal(keys[2], experts, width, d),
    }
    x_TxD = jax.random.normal(keys[3], (tokens, d), dtype)
    logits_TxE = jax.random.normal(keys[4], (tokens, experts))
    gates_TxE = jax.nn.softmax(logits_TxE)
    weight_TxK, chosen_TxK = jax.lax.top_k(gates_TxE, model.top_k)
    return jax.device_put((weights, x_TxD, Routing(chosen_TxK, weight_TxK, gates_TxE, logits_TxE)), device)


def compiled(kernel: str, inputs: LayerInputs, *, training: bool = True) -> Any:
    """The program of one layer with this kernel: its output, or in `training` the gradients of a sum of its squares by
    weights and tokens."""

    def forward(weights: Any, x: jax.Array, routing: Routing) -> jax.Array:
        return dispatch.grouped(x, routing, GATED_MLP, weights, kernel)

    def loss(weights: Any, x: jax.Array, routing: Routing) -> jax.Array:
        return jnp.sum(forward(weights, x, routing).astype(jnp.float32) ** 2)

    function = jax.grad(loss, argnums=(0, 1)) if training else forward
    return jax.jit(function).lower(*inputs).compile()


def _median_seconds(program: Any, inputs: LayerInputs) -> float:
    jax.block_until_ready(program(*inputs))
    times = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        jax.block_until_ready(program(*inputs))
        times.append(time.perf_counter() - started)
    return sorted(times)[_TIMED // 2]
