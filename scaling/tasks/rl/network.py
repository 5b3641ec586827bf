"""Q-networks: a convolution, the layer of an arm, and a linear head.

Axes: B observations, T tokens of width D, E experts of F hidden units, P slots of an expert, R rows of an expert, A
actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from scaling.model.matmul import product, product_of_sequences
from scaling.model.moe import dispatch
from scaling.model.moe.experts import Dot, ExpertForm, Weights
from scaling.model.moe.routers.soft import Slots
from scaling.model.moe.routing import Routing
from scaling.tasks.rl.arms import KERNEL, Layer

_EPSILON = 1e-6  # of layer norms


@struct.dataclass
class Inside:
    """What happened in the layer, for measuring it.

    hidden_ExRxF: hidden units after ReLU of each row, one expert being the whole layer of arms without experts.
    reached_ExR: whether the row was one that the expert had to compute.
    features_BxH: what the head reads.   dropped: share of the tokens that reached no expert.
    """

    hidden_ExRxF: jax.Array
    reached_ExR: jax.Array
    features_BxH: jax.Array
    dropped: jax.Array


def _inner(weights: Weights, x_RxD: jax.Array, dot: Dot) -> jax.Array:
    return dot(x_RxD, weights["into"]) + weights["into_bias"]


def activated(weights: Weights, inner_RxF: jax.Array) -> jax.Array:
    """ReLU of the layer norm of each row."""
    standard_RxF = jax.nn.standardize(inner_RxF, axis=-1, epsilon=_EPSILON)
    return jax.nn.relu(standard_RxF * weights["norm"] + weights["norm_bias"])


def _outer(weights: Weights, inner_RxF: jax.Array, dot: Dot) -> jax.Array:
    return dot(activated(weights, inner_RxF), weights["out"]) + weights["out_bias"]


NORMED_MLP = ExpertForm(_inner, _outer)
"""relu(LN(x U + a)) V + b: the expert of arXiv 2402.08609 with the layer norm that PQN puts into every hidden layer."""


@jax.custom_vjp
def permuted(x_BxI: jax.Array, order_I: jax.Array) -> jax.Array:
    """The entries of each row in another order; the gradient is a gather too, where XLA would scatter."""
    return x_BxI[:, order_I]


permuted.defvjp(
    lambda x, order: (x[:, order], order),
    lambda order, grad: (grad[:, jnp.argsort(order)], None),
)


def hidden_weights(module: nn.Module, name: str, inputs: int, hidden: int, copies: tuple[int, ...] = ()) -> Weights:
    """Of a hidden layer with its layer norm; with `copies`, of as many experts, whose weights have that axis."""
    zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
    into = nn.initializers.he_normal(batch_axis=tuple(range(len(copies))))
    return {
        "into": module.param(f"{name}_into", into, (*copies, inputs, hidden)),
        "into_bias": module.param(f"{name}_into_bias", zeros, (*copies, hidden)),
        "norm": module.param(f"{name}_norm", ones, (*copies, hidden)),
        "norm_bias": module.param(f"{name}_norm_bias", zeros, (*copies, hidden)),
    }


class QNetwork(nn.Module):
    """Observations [B, 10, 10, C] -> values of actions [B, A]; with `inspect`, also what happened inside the layer."""

    layer: Layer
    d_conv: int
    actions: int

    @nn.compact
    def __call__(self, observation_BxHxWxC: jax.Array, inspect: bool = False) -> Any:
        places_BxSxI = patches(observation_BxHxWxC.astype(jnp.float32))
        conv = hidden_weights(self, "conv", places_BxSxI.shape[-1], self.d_conv)
        x_BxSxD = activated(conv, _inner(conv, places_BxSxI, product_of_sequences))
        kind = Flat if self.layer.form == "dense" else Experts
        features_BxH, inside = kind(self.layer, name="layer")(x_BxSxD, inspect)
        q_BxA = nn.Dense(self.actions, name="head")(features_BxH)
        return (q_BxA, inside) if inspect else q_BxA


class Flat(nn.Module):
    """The dense layer: what the convolution says of S places, [B, S, D] -> features [B, F]."""

    layer: Layer

    @nn.compact
    def __call__(self, x_BxSxD: jax.Array, inspect: bool = False) -> tuple[jax.Array, Inside | None]:
        x_BxI = x_BxSxD.reshape(x_BxSxD.shape[0], -1)
        weights = hidden_weights(self, "dense", x_BxI.shape[-1], self.layer.hidden)
        hidden_BxF = activated(weights, _inner(weights, x_BxI, product))
        if not inspect:
            return hidden_BxF, None
        return hidden_BxF, Inside(hidden_BxF[None], jnp.ones((1, len(hidden_BxF)), bool), hidden_BxF, jnp.float32(0))


class Experts(nn.Module):
    """Experts on tokens: what the convolution says of S places, [B, S, D] -> features [B, H].

    The collection `constants` holds what is drawn and never learnt: the order of `shuffled`, the Phi of `random`.
    """

    layer: Layer

    @nn.compact
    def __call__(self, x_BxSxD: jax.Array, inspect: bool = False) -> tuple[jax.Array, Inside | None]:
        layer, copies = self.layer, (self.layer.n_experts,)
        weights = hidden_weights(self, "experts", layer.width, layer.hidden, copies)
        out, zeros = nn.initializers.lecun_normal(batch_axis=(0,)), nn.initializers.zeros_init()
        weights["out"] = self.param("experts_out", out, (*copies, layer.hidden, layer.width))
        weights["out_bias"] = self.param("experts_out_bias", zeros, (*copies, layer.width))
        x_BxTxD = self._tokens(x_BxSxD)
        x_TxD = x_BxTxD.reshape(-1, layer.width)
        routing = None
        if layer.form == "tokens":
            out_TxD = NORMED_MLP(jax.tree.map(lambda w: w[0], weights), x_TxD)
        else:
            routing = self._slots(x_BxTxD) if layer.form == "slots" else self._top1(x_BxTxD)
            if routing.slots is None:
                out_TxD = dispatch.grouped(x_TxD, routing, NORMED_MLP, weights, "loop")
            else:
                out_TxD = dispatch.soft(x_TxD, routing, NORMED_MLP, weights)
        features_BxH = self._pooled(out_TxD.reshape(x_BxTxD.shape))
        if not inspect:
            return features_BxH, None
        rows_ExRxD, reached_ExR = _rows_of_experts(x_BxTxD, routing)
        hidden_ExRxF = jax.vmap(lambda w, x: activated(w, _inner(w, x, product)))(weights, rows_ExRxD)
        dropped = jnp.float32(0) if routing is None else jnp.asarray(routing.dropped, jnp.float32)
        return features_BxH, Inside(hidden_ExRxF, reached_ExR, features_BxH, dropped)

    def _tokens(self, x_BxSxD: jax.Array) -> jax.Array:
        """What the convolution says of S places, as tokens [B, T, D]."""
        layer, batch = self.layer, x_BxSxD.shape[0]
        if layer.shuffled:
            size = layer.tokens * layer.width
            order = self.variable("constants", "order", lambda: jax.random.permutation(self.make_rng("params"), size))
            x_BxSxD = permuted(x_BxSxD.reshape(batch, -1), order.value).reshape(x_BxSxD.shape)
        return x_BxSxD.swapaxes(1, 2) if layer.by_feature else x_BxSxD.reshape(batch, layer.tokens, layer.width)

    def _pooled(self, out_BxTxD: jax.Array) -> jax.Array:
        match self.layer.pool:
            case "sum":
                return jnp.sum(out_BxTxD, axis=1)
            case "mean":
                return jnp.mean(out_BxTxD, axis=1)
            case _:
                return out_BxTxD.reshape(out_BxTxD.shape[0], -1)

    def _slots(self, x_BxTxD: jax.Array) -> Routing:
        """Soft MoE (arXiv 2308.00951): logits x . Phi, softmax over tokens to fill a slot, over slots to read them."""
        layer = self.layer
        shape = (layer.width, layer.n_experts, layer.slots)
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(1, 2))
        if layer.phi == "uniform":  # softmax of zeros
            mean = jnp.ones((*x_BxTxD.shape[:2], *shape[1:]))
            slots = Slots(mean / layer.tokens, mean / (layer.n_experts * layer.slots))
            return _routing_of_slots(slots, jnp.float32(0))
        if layer.phi == "random":
            drawn = self.variable("constants", "phi", lambda: init(self.make_rng("params"), shape, jnp.float32))
            phi_DxExP = drawn.value
        else:
            phi_DxExP = self.param("phi", init, shape)
        logits_BxTxR = product_of_sequences(x_BxTxD, phi_DxExP.reshape(layer.width, -1))
        logits_BxTxExP = logits_BxTxR.reshape(*x_BxTxD.shape[:2], *shape[1:])
        fill, read = jax.nn.softmax(logits_BxTxExP, axis=1), jax.nn.softmax(logits_BxTxExP, axis=(2, 3))
        return _routing_of_slots(Slots(fill, read), jnp.float32(0))

    def _top1(self, x_BxTxD: jax.Array) -> Routing:
        """Each token to its likeliest expert, times its probability (arXiv 2402.08609): dropless, or with room for P
        tokens of an observation, of which the first are kept; the output of the others is 0."""
        layer = self.layer
        router = self.param("router", nn.initializers.lecun_normal(), (layer.width, layer.n_experts))
        gates_BxTxE = jax.nn.softmax(product_of_sequences(x_BxTxD, router))
        chosen_BxT = jnp.argmax(gates_BxTxE, axis=-1)
        if not layer.slots:
            gates_TxE = gates_BxTxE.reshape(-1, layer.n_experts)
            weight_TxK = jnp.max(gates_TxE, axis=-1, keepdims=True)
            return Routing(chosen_BxT.reshape(-1, 1).astype(jnp.int32), weight_TxK, gates_TxE)
        is_chosen_BxTxE = chosen_BxT[..., None] == jnp.arange(layer.n_experts)
        position_BxTxE = jnp.cumsum(is_chosen_BxTxE, axis=1) - 1
        kept_BxTxExP = (position_BxTxE[..., None] == jnp.arange(layer.slots)) & is_chosen_BxTxE[..., None]
        fill = kept_BxTxExP.astype(jnp.float32)
        return _routing_of_slots(Slots(fill, fill * gates_BxTxE[..., None]), 1 - jnp.mean(jnp.sum(fill, axis=(2, 3))))


def patches(image_BxHxWxC: jax.Array) -> jax.Array:
    """The 3 x 3 neighbourhoods of an image, [B, S, 9 C], row by row, so that a convolution is one product with its
    kernel [3, 3, C, D] as [9 C, D]: on a CPU several times as fast for few channels."""
    height, width = (side - KERNEL + 1 for side in image_BxHxWxC.shape[1:3])
    shifted = [image_BxHxWxC[:, i : i + height, j : j + width] for i in range(KERNEL) for j in range(KERNEL)]
    return jnp.concatenate(shifted, axis=-1).reshape(image_BxHxWxC.shape[0], height * width, -1)


def _routing_of_slots(slots: Slots, dropped: jax.Array) -> Routing:
    """A routing of which only the slots are read."""
    none = jnp.zeros((0, 0), jnp.int32)
    return Routing(none, none, none, slots=slots, dropped=dropped)


def _rows_of_experts(x_BxTxD: jax.Array, routing: Routing | None) -> tuple[jax.Array, jax.Array]:
    """The rows that each expert may compute [E, R, D], and which of them reached it [E, R]."""
    x_TxD = x_BxTxD.reshape(-1, x_BxTxD.shape[-1])
    if routing is None:
        return x_TxD[None], jnp.ones((1, len(x_TxD)), bool)
    if routing.slots is None:
        experts = jnp.arange(routing.gates_TxE.shape[-1])
        return jnp.broadcast_to(x_TxD, (len(experts), *x_TxD.shape)), routing.chosen_TxK[:, 0] == experts[:, None]
    fill_BxTxExP = routing.slots.dispatch_GxTxExP
    rows_ExBxPxD = jnp.einsum("btep,btd->ebpd", fill_BxTxExP, x_BxTxD)
    reached_BxExP = jnp.sum(fill_BxTxExP, axis=1) > 0
    n_experts = len(rows_ExBxPxD)
    return (rows_ExBxPxD.reshape(n_experts, -1, x_BxTxD.shape[-1]),
            reached_BxExP.swapaxes(0, 1).reshape(n_experts, -1))  # fmt: skip
