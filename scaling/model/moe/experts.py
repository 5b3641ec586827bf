"""Experts: what one is, and the weights of all of them.

Axes: R rows (tokens that go to one expert), D width, F hidden units, E experts held by this device.
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
"""Of one expert: a tree of arrays; of all: the same tree with the experts in front."""

Dot = Callable[[jax.Array, jax.Array], jax.Array]
"""Rows times a weight: a plain product for one expert, a grouped one where the rows of all experts stand together."""


@dataclass(frozen=True)
class ExpertForm:
    """What an expert computes, outer(weights, inner(weights, x)), [R, D] -> [R, D], in two stages.

    A kernel with a backward pass of its own stores the tree that `inner` returns and recomputes `outer`, which should
    hold only what is cheap and the product that gives the result.
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
    """silu(gate) * up. Keeps its two inputs alone for the backward pass: XLA by itself stores what lies between too."""
    return gate * jax.nn.sigmoid(gate) * up


def _gated_backward(residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    gate, up = residuals
    share = jax.nn.sigmoid(gate)
    return grad * up * share * (1 + gate * (1 - share)), grad * gate * share


gated.defvjp(lambda gate, up: (gated(gate, up), (gate, up)), _gated_backward)


GATED_MLP = ExpertForm(_gate_and_up, _down)
"""SwiGLU, (silu(x A) * (x B)) W: arXiv 2002.05202, eq. 6. Weights gate A and up B [D, F], down W [F, D], no biases."""


class GatedMLPs(nn.Module):
    """The weights of gated MLPs of width F: `copies` of them (None: one, without the leading axis).

    out_scale: variance of the output projection's initial weights times their fan-in.
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
    """Settings of a form of experts. held: experts of this device.   out_scale: as in `GatedMLPs`."""

    config: ModelConfig
    held: int
    out_scale: float


Send = Callable[[ExpertForm, Weights], jax.Array]
"""Sends tokens to their experts and returns their outputs: (form, weights of all experts) -> [T, D]."""


def mlp(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """Each expert a gated MLP of width `d_expert`: y = sum over the chosen e of g_e F_e(x); F: arXiv 2002.05202, eq. 6.

    To be called in the compact method of a Flax module, as all forms: its weights are that module's.
    """
    width, scale = settings.config.d_expert, settings.out_scale
    return send(GATED_MLP, GatedMLPs(settings.held, width, scale, x_TxD.dtype, name="experts")(x_TxD.shape[-1]))


def shared(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """DeepSeekMoE, arXiv 2401.06066, eq. 9: beside the routed experts `n_shared` that every token uses, with weight 1.

    The sum of MLPs is one MLP of their joint width, so that is what is computed. There `top_k` counts the shared ones
    too; here it is that of the routed, and k + n_shared experts are active.
    """
    width = settings.config.n_shared * settings.config.d_expert
    beside = GatedMLPs(None, width, settings.out_scale, x_TxD.dtype, name="shared")(x_TxD.shape[-1])
    return mlp(settings, x_TxD, routing, send) + GATED_MLP(beside, x_TxD)
