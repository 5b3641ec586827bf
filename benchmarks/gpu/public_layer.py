"""A routed layer as public JAX code writes it: sort the assignments, grouped products, unsort, weighted sum.

The form of MaxText, Tunix and marin: no padding, the products do the grouping. The products are the best public ones at
hand; which are there depends on what is installed and on JAX's version.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from scaling.model.moe import hopper
from scaling.model.moe.kernels import tokamax_library
from scaling.model.moe.routing import Routing

Product = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(rows [M, D] sorted by expert, weights [E, D, F], rows of each expert [E]) -> [M, F]."""

_TRITON_FLAG = "jax_ragged_dot_use_gpu_pallas_triton_lowering"
FLAGGED = ("jax.lax.ragged_dot, Triton",)
"""Products that are compiled with a flag of JAX, which holds for all threads."""


def layer(product: Product) -> Callable[[Any, jax.Array, Routing], jax.Array]:
    """(weights, x [T, D], routing) -> [T, D] with SwiGLU experts, as `dispatch.grouped` computes it."""

    def apply(weights: Any, x_TxD: jax.Array, routing: Routing) -> jax.Array:
        tokens, top_k = routing.chosen_TxK.shape
        chosen_A = routing.chosen_TxK.reshape(-1)
        order_A = jnp.argsort(chosen_A)
        sizes_E = jnp.bincount(chosen_A, length=routing.gates_TxE.shape[-1]).astype(jnp.int32)
        rows = x_TxD[order_A // top_k]
        hidden = jax.nn.silu(product(rows, weights["gate"], sizes_E)) * product(rows, weights["up"], sizes_E)
        out_AxD = product(hidden, weights["down"], sizes_E)[jnp.argsort(order_A)]
        return jnp.einsum("tkd,tk->td", out_AxD.reshape(tokens, top_k, -1), routing.weight_TxK.astype(out_AxD.dtype))

    return apply


def products() -> dict[str, Product]:
    """The grouped products at hand by name. Megablox of JAX is not among them: it runs on TPUs alone."""
    found: dict[str, Product] = {"jax.lax.ragged_dot": jax.lax.ragged_dot}
    if _lowers_to_triton():
        found |= dict.fromkeys(FLAGGED, jax.lax.ragged_dot)
    if str(getattr(jax.devices()[0], "compute_capability", "")) == hopper.CAPABILITY:
        found["JAX's example for Hopper"] = hopper.ragged_dot
    if importlib.util.find_spec("tokamax") is not None:
        for name, implementation in {"tokamax": None, "tokamax, Triton": "triton", "tokamax, Mosaic": "mosaic"}.items():
            found[name] = _tokamax(implementation)
    return found


def _lowers_to_triton() -> bool:
    """Whether this JAX has the flag and the module that it names, which the wheels of 0.10.2 and 0.11.2 lack."""
    try:
        there = importlib.util.find_spec("jax._src.lax.pallas_lowerings.gpu.ragged_dot") is not None
    except ModuleNotFoundError:
        there = False
    return there and _TRITON_FLAG in jax.config.values


def _tokamax(implementation: str | None) -> Product:
    def product(rows: jax.Array, weights: jax.Array, sizes: jax.Array) -> jax.Array:
        return tokamax_library().ragged_dot(rows, weights, sizes, implementation=implementation)

    return product


@contextlib.contextmanager
def lowered_as(name: str) -> Iterator[None]:
    """While a layer with this product compiles: JAX lowers `ragged_dot` to Triton where a flag says so."""
    if name not in FLAGGED:
        yield
        return
    jax.config.update(_TRITON_FLAG, True)
    try:
        yield
    finally:
        jax.config.update(_TRITON_FLAG, False)


def equal_shares(weights: Any, x_TxD: jax.Array, routing: Routing) -> jax.Array:
    """What no grouped kernel passes: the same FLOPs as one batched product of equal shares, no sorting and no sum."""
    n_experts = routing.gates_TxE.shape[-1]
    rows = x_TxD.shape[0] * routing.chosen_TxK.shape[1] // n_experts
    x_ExRxD = jnp.resize(x_TxD, (n_experts, rows, x_TxD.shape[1]))
    gate, up = (jnp.einsum("erd,edf->erf", x_ExRxD, weights[name]) for name in ("gate", "up"))
    return jnp.einsum("erf,efd->erd", jax.nn.silu(gate) * up, weights["down"])
