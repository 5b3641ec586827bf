"""The choice of the kernel for the experts of a cell: fixed on CPU, measured once per shape on other devices."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.data.cache import cache_folder, writable
from scaling.errors import InputError
from scaling.files import write_atomically
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP
from scaling.model.moe.kernels import KERNELS
from scaling.model.moe.routing import Routing
from scaling.values import read_value

# 1.5 to 3 times as fast as `batched` at every shape measured; `ragged` computes every expert (results/LOG.md).
ON_CPU = "loop"
_TIMED = 5


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


def fastest(model: ModelConfig, tokens: int, device: jax.Device) -> str:
    """The fastest kernel of one layer, forward and backward, on this device; measured once and cached.

    Loads are those of a random router. Kernels that are not installed or do not run on the device are skipped.
    """
    shape = [model.d_model, model.d_expert, model.n_experts, model.top_k, model.dtype, tokens]
    name = hashlib.sha256(json.dumps([shape, device.device_kind, jax.__version__]).encode()).hexdigest()[:16]
    path = cache_folder() / "kernels" / f"{name}.json"
    if path.is_file():
        with contextlib.suppress(InputError, OSError):  # a damaged file is measured anew
            if (known := read_value(_Measured, path).fastest) in KERNELS:
                return known
    seconds = measured(model, tokens, device)
    chosen = min(seconds, key=seconds.__getitem__)
    about = {"fastest": chosen, "seconds": seconds, "shape": shape, "device": device.device_kind}
    write_atomically(writable("kernels") / path.name, json.dumps(about).encode())
    return chosen


def measured(model: ModelConfig, tokens: int, device: jax.Device) -> dict[str, float]:
    """Seconds of one layer's forward and backward pass by kernel, the median of a few calls after the first."""
    keys = jax.random.split(jax.random.key(0), 5)
    experts, d, width, dtype = model.n_experts, model.d_model, model.d_expert, jnp.dtype(model.dtype)
    weights = {
        "gate": jax.random.normal(keys[0], (experts, d, width), dtype),
        "up": jax.random.normal(keys[1], (experts, d, width), dtype),
        "down": jax.random.normal(keys[2], (experts, width, d), dtype),
    }
    x_TxD = jax.random.normal(keys[3], (tokens, d), dtype)
    logits_TxE = jax.random.normal(keys[4], (tokens, experts))
    gates_TxE = jax.nn.softmax(logits_TxE)
    weight_TxK, chosen_TxK = jax.lax.top_k(gates_TxE, model.top_k)
    inputs = jax.device_put((weights, x_TxD, Routing(chosen_TxK, weight_TxK, gates_TxE, logits_TxE)), device)
    seconds = {}
    for kernel in KERNELS:
        if kernel == "tokamax" and importlib.util.find_spec("tokamax") is None:
            continue
        try:
            seconds[kernel] = _median_seconds(kernel, inputs)
        except Exception:  # libraries report unsupported devices and shapes by errors of any type
            if kernel == "batched":  # plain products: if they fail, the cell cannot run
                raise
    return seconds


def _median_seconds(kernel: str, inputs: tuple[Any, jax.Array, Routing]) -> float:
    def loss(weights: Any, x: jax.Array, routing: Routing) -> jax.Array:
        return jnp.sum(dispatch.grouped(x, routing, GATED_MLP, weights, kernel).astype(jnp.float32) ** 2)

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*inputs).compile()
    jax.block_until_ready(program(*inputs))
    times = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        jax.block_until_ready(program(*inputs))
        times.append(time.perf_counter() - started)
    return sorted(times)[_TIMED // 2]
