"""Experts: the function of one expert, and the weights of all.

Axes: R rows (tokens of one expert), D width, F hidden units, E experts held by this device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.matmul import product
from scaling.model.moe.routing import Routing

Weights = Any
"""A tree of arrays for one expert; with a leading axis of experts for all."""

Dot = Callable[[jax.Array, jax.Array], jax.Array]
"""Rows times a weight: a plain product for one expert, or a grouped product for the rows of all experts."""


@dataclass(frozen=True)
class ExpertForm:
    """The function of an expert in two stages, outer(weights, inner(weights, x)), [R, D] -> [R, D].

    A kernel with its own backward pass stores the result of `inner` and recomputes `outer`, which should contain only
    cheap operations and the final product.
    """

    inner: Callable[[Weights, jax.Array, Dot], Any]
    outer: Callable[[Weights, Any, Dot], jax.Array]

    def __call__(self, weights: Weights, x_RxD: jax.Array, dot: Dot = product) -> jax.Array:
        return self.outer(weights, self.inner(weights, x_RxD, dot), dot)


def _gate_and_up(weights: Weights, x_RxD: jax.Array, dot: Dot) -> tuple[jax.Array, jax.Array]:
    return dot(x_RxD, weights["gate"]), dot(x_RxD, weights["up"])


def _down(weights: Weights, hidden: tuple[jax.Array, jax.Array], dot: Dot) -> jax.Array:
    gate_RxF, up_RxF = hidden
    return dot(gated(gate_RxF, up_RxF), weights["down"])


@jax.custom_vjp
def gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) * up. Stores only its two inputs for the backward pass, where XLA would store intermediates too."""
    return gate * jax.nn.sigmoid(gate) * up


def _gated_backward(residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    gate, up = residuals
    share = jax.nn.sigmoid(gate)
    return grad * up * share * (1 + gate * (1 - share)), grad * gate * share


gated.defvjp(lambda gate, up: (gated(gate, up), (gate, up)), _gated_backward)


GATED_MLP = ExpertForm(_gate_and_up, _down)
"""SwiGLU, (silu(x A) * (x B)) W: arXiv 2002.05202, eq. 6. Weights gate A and up B [D, F], down W [F, D], no biases."""


class GatedMLPs(nn.Module):
    """The weights of `copies` gated MLPs of width F (None: one, without the leading axis).

    out_scale: initial variance of the output projection times its fan-in.
    """

    copies: int | None
    width: int
    out_scale: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: int) -> Weights:
        batch_axis = () if self.copies is None else (0,)
        shape = lambda *last: last if self.copies is None else (self.copies, *last)  # noqa: E731
        into = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=batch_axis)
        out = nn.initializers.variance_scaling(self.out_scale, "fan_in", "normal", batch_axis=batch_axis)
        weights = {
            "gate": self.param("gate", into, shape(features, self.width)),
            "up": self.param("up", into, shape(features, self.width)),
            "down": self.param("down", out, shape(self.width, features)),
        }
        return {name: weight.astype(self.dtype) for name, weight in weights.items()}


@dataclass(frozen=True)
class ExpertSettings:
    """Settings of a form of experts.   held: number of experts on this device.   out_scale: as in `GatedMLPs`."""

    config: ModelConfig
    held: int
    out_scale: float


Send = Callable[[ExpertForm, Weights], jax.Array]
"""Sends tokens to their experts and returns their outputs: (form, weights of all experts) -> [T, D]."""


def mlp(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """Gated MLPs of width `d_expert`: y = sum over the chosen e of g_e F_e(x), F as in arXiv 2002.05202, eq. 6.

    Like all forms, it must be called in the compact method of a Flax module, which owns the weights.
    """
    width, scale = settings.config.d_expert, settings.out_scale
    return send(GATED_MLP, GatedMLPs(settings.held, width, scale, x_TxD.dtype, name="experts")(x_TxD.shape[-1]))


def shared(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """DeepSeekMoE, arXiv 2401.06066, eq. 9: in addition, every token uses `n_shared` experts with weight 1.

    They are computed as one MLP of their joint width. Here `top_k` counts only routed experts, so k + n_shared are
    active; in the paper it includes the shared ones.
    """
    width = settings.config.n_shared * settings.config.d_expert
    beside = GatedMLPs(None, width, settings.out_scale, x_TxD.dtype, name="shared")(x_TxD.shape[-1])
    return mlp(settings, x_TxD, routing, send) + GATED_MLP(beside, x_TxD)
