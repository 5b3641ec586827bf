"""Inputs and decision of a router, and the losses and metrics common to all routers.

Axes: T tokens of the whole batch, E experts, K columns of choices, N random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from scaling.model.sharding import SINGLE_DEVICE, Placement


@struct.dataclass
class TrainingStep:
    """The training step and the source of its randomness; absent at inference.

    step: number of earlier optimiser steps.   key: random key of the whole training.   batch_tokens: tokens per step.
    sequence_B: number of each sequence in the batch of all devices, so that noise does not depend on their number.
    """

    step: jax.Array
    key: jax.Array
    sequence_B: jax.Array
    batch_tokens: int = struct.field(pytree_node=False)


@struct.dataclass
class Tokens:
    """Information about the tokens that a router has in addition to their representations.

    id_T: token ids.   position_T: positions in their sequence.   length: tokens per sequence; routers that compare
    tokens do so within a sequence, and sequences are concatenated.   layer: number of the block.
    training: None at inference.
    """

    id_T: jax.Array
    position_T: jax.Array
    length: int = struct.field(pytree_node=False)
    layer: int = struct.field(pytree_node=False)
    training: TrainingStep | None = None

    def uniform(self, n: int) -> jax.Array:
        """Random numbers in [0, 1), [T, N], which depend on step, sequence, position and layer in training, and on
        token, position and layer at inference, so that decoding token by token repeats those of the whole sequence."""
        sequence_T, key = self.id_T, jax.random.key(0)
        if self.training is not None:
            key = jax.random.fold_in(self.training.key, self.training.step)
            sequence_T = jnp.repeat(self.training.sequence_B, self.length)
        key = jax.random.fold_in(key, self.layer)
        return jax.vmap(lambda s, p: jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, s), p), (n,)))(
            sequence_T, self.position_T
        )


@struct.dataclass
class Routing:
    """The decision of a router for T tokens.

    chosen_TxK: expert of each choice, int32; E in columns that a token does not use.
    weight_TxK: weight of its output, float32.
    gates_TxE: the probabilities behind the choice, float32; rows sum to 1.
    logits_TxE: float32, [T, groups, E / groups] if each group has its own softmax; None for routers without logits.
    dropped: share of the choices for which the dispatch had no room.
    balance: the two factors [E], means over these tokens, of a router whose balance penalty is E sum_e a_e b_e.
    penalty: further losses of the router, including their coefficients.
    slots: mixing weights of soft MoE.
    """

    chosen_TxK: jax.Array
    weight_TxK: jax.Array
    gates_TxE: jax.Array
    logits_TxE: jax.Array | None = None
    dropped: jax.Array | float = 0.0
    balance: tuple[jax.Array, jax.Array] | None = None
    penalty: jax.Array | float = 0.0
    slots: Any = None


def routing_of_mask(mask_TxE: jax.Array, weight_TxE: jax.Array, gates_TxE: jax.Array, **others: Any) -> Routing:
    """A routing from a mask over experts, with one column per expert, unused if it is not chosen."""
    n_experts = mask_TxE.shape[-1]
    chosen_TxK = jnp.where(mask_TxE, jnp.arange(n_experts), n_experts)
    return Routing(chosen_TxK, jnp.where(mask_TxE, weight_TxE, 0.0), gates_TxE, **others)


def weights_by_expert(routing: Routing) -> jax.Array:
    """The weights of all experts, [T, E]; 0 for experts that are not chosen."""
    n_experts = routing.gates_TxE.shape[-1]
    is_expert_TxKxE = routing.chosen_TxK[:, :, None] == jnp.arange(n_experts)
    return jnp.sum(jnp.where(is_expert_TxKxE, routing.weight_TxK[:, :, None], 0), axis=1)


def chosen_by_expert(routing: Routing) -> jax.Array:
    """Whether each token has chosen each expert, bool [T, E]."""
    n_experts = routing.gates_TxE.shape[-1]
    return jnp.any(routing.chosen_TxK[:, :, None] == jnp.arange(n_experts), axis=1)


def assignments(routing: Routing, share_T: jax.Array | None = None) -> jax.Array:
    """Share of the tokens that choose each expert, [E]; the sum is the number of experts per token, usually k.

    `share_T`: weights of the tokens, with mean 1; None for equal weights.
    """
    n_experts = routing.gates_TxE.shape[-1]
    chosen_TxKxE = (routing.chosen_TxK[:, :, None] == jnp.arange(n_experts)).astype(jnp.float32)
    return _mean(jnp.sum(chosen_TxKxE, axis=1), share_T)


def _mean(values: jax.Array, share_T: jax.Array | None) -> jax.Array:
    """Weighted mean over tokens, the first axis."""
    if share_T is not None:
        values = values * share_T.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.mean(values, axis=0)


def balance_loss(routing: Routing, load_E: jax.Array, placement: Placement = SINGLE_DEVICE) -> jax.Array:
    """Load-balance penalty E sum_e f_e P_e: 1 for balanced routing, up to E/k when k experts take every token.

    f_e is the share of assignments of expert e (summing to 1), P_e the mean gate. Switch Transformer, arXiv 2101.03961,
    eq. 4, for k = 1; we divide the counts by k T, so that the balanced value does not depend on k. Gradients reach the
    router only through P_e, because f_e is piecewise constant. 1 is not a lower bound. Some routers replace f_e and P_e
    by their own two factors, with gradients through both.

    On several devices, f_e is that of all of them, `load_E`, and P_e that of this device, so that the mean over devices
    is the penalty. A router's own factors are treated likewise, each combined with the other's mean over devices.
    """
    if routing.balance is not None:
        a_E, b_E = routing.balance
        mean_a_E, mean_b_E = jax.lax.stop_gradient(placement.mean(routing.balance))
        return load_E.shape[0] * jnp.sum(a_E * mean_b_E + mean_a_E * b_E - mean_a_E * mean_b_E)
    return load_E.shape[0] * jnp.sum(jax.lax.stop_gradient(load_E) * jnp.mean(routing.gates_TxE, axis=0))


def z_loss(routing: Routing) -> jax.Array:
    """Mean squared logsumexp of the logits, to keep them small: ST-MoE, arXiv 2202.08906, eq. 5. (ln E)^2 at zero."""
    if routing.logits_TxE is None:
        return jnp.float32(0)
    return jnp.mean(jax.nn.logsumexp(routing.logits_TxE, axis=-1) ** 2)


METRICS = (
    "balance_loss", "z_loss", "load_cv", "max_load", "max_vio", "utilisation", "router_entropy",
    "experts_per_token", "gate_sum", "dropped_frac",
)  # fmt: skip


def metrics(
    routing: Routing, assigned_E: jax.Array, placement: Placement = SINGLE_DEVICE, share_T: jax.Array | None = None
) -> dict[str, jax.Array]:
    """Balance and certainty of a router; on several devices, the mean over devices is the value of the whole batch.

    `share_T` as in `assignments`; penalties always cover all tokens.

    balance_loss, z_loss: as above.   load_cv: standard deviation of the loads over their mean.
    max_load: largest load over the mean load, 1 when balanced.   max_vio: max_load - 1.
    utilisation: Jain's index 1 / (1 + CV^2).   router_entropy: mean entropy of the gates over ln E, 1 when uniform.
    experts_per_token: mean number chosen.   gate_sum: mean sum of a token's weights.
    dropped_frac: as `Routing.dropped`.
    """
    n_experts = routing.gates_TxE.shape[-1]
    per_token = jnp.sum(assigned_E)
    load_E = assigned_E / per_token
    relative_E = load_E * n_experts
    deviation = jnp.std(relative_E)
    entropy_T = -jnp.sum(routing.gates_TxE * jnp.log(routing.gates_TxE + 1e-20), axis=-1)
    values = (
        balance_loss(routing, load_E, placement),
        z_loss(routing),
        deviation,
        jnp.max(relative_E),
        jnp.max(relative_E) - 1,
        1 / (1 + deviation**2),
        _mean(entropy_T, share_T) / jnp.log(n_experts),
        per_token,
        _mean(jnp.sum(routing.weight_TxK, axis=-1), share_T),
        jnp.asarray(routing.dropped, jnp.float32),
    )
    return dict(zip(METRICS, values, strict=True))


def metrics_of_layers(
    routings: Sequence[Routing], placement: Placement = SINGLE_DEVICE, share_T: jax.Array | None = None
) -> tuple[jax.Array, list[dict[str, jax.Array]]]:
    """`assignments` [L, E] and `metrics` of each layer, with the loads of all devices, exchanged once."""
    assigned_LxE = placement.mean(jnp.stack([assignments(routing, share_T) for routing in routings]))
    layers = zip(routings, assigned_LxE, strict=True)
    return assigned_LxE, [metrics(routing, assigned_E, placement, share_T) for routing, assigned_E in layers]
