"""What a router decides, and the losses and metrics that are computed from it alike for every router."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from scaling.layers.placement import ALONE, Placement


@struct.dataclass
class Routing:
    """The decision of a router for T tokens.

    chosen_TxK: expert of each choice, int32.   weight_TxK: weight of its output, float32.
    gates_TxE: the probabilities behind the choice, float32, rows sum to 1.   logits_TxE: float32.
    dropped: share of the choices for which the dispatch had no room.
    """

    chosen_TxK: jax.Array
    weight_TxK: jax.Array
    gates_TxE: jax.Array
    logits_TxE: jax.Array
    dropped: jax.Array | float = 0.0


def load(routing: Routing) -> jax.Array:
    """Share of all T k assignments that each expert got; [E], sums to 1."""
    n_experts = routing.gates_TxE.shape[-1]
    chosen = routing.chosen_TxK.reshape(-1, 1) == jnp.arange(n_experts)
    return jnp.mean(chosen.astype(jnp.float32), axis=0)


def balance_loss(routing: Routing, load_E: jax.Array | None = None) -> jax.Array:
    """Load-balance penalty E sum_e f_e P_e: 1 for even routing, up to E/k when k experts take every token.

    f_e is the share of assignments of expert e (sums to 1), P_e the mean gate. Switch Transformer, arXiv 2101.03961,
    eq. 4, which has k = 1; dividing the counts by k T is ours, so that the even value does not depend on k. Gradients
    reach the router through P_e only, because f_e is piecewise constant. 1 is not a lower bound.

    On several devices f_e is that of all of them, `load_E`, and P_e that of this one: the mean over devices is the penalty.
    """
    load_E = load(routing) if load_E is None else load_E
    return load_E.shape[0] * jnp.sum(jax.lax.stop_gradient(load_E) * jnp.mean(routing.gates_TxE, axis=0))


def z_loss(routing: Routing) -> jax.Array:
    """Mean squared logsumexp of the logits, ST-MoE, arXiv 2202.08906, eq. 5: keeps them small. (ln E)^2 at zero logits."""
    return jnp.mean(jax.nn.logsumexp(routing.logits_TxE, axis=-1) ** 2)


def metrics_of_layers(routings: Sequence[Routing], placement: Placement = ALONE) -> tuple[dict[str, jax.Array], ...]:
    """`metrics` of each layer. On several devices the loads are those of all, in one exchange for all layers."""
    if not routings:
        return ()
    loads_LxE = placement.mean(jnp.stack([load(routing) for routing in routings]))
    return tuple(metrics(routing, load_E) for routing, load_E in zip(routings, loads_LxE, strict=True))


def metrics(routing: Routing, load_E: jax.Array | None = None) -> dict[str, jax.Array]:
    """How evenly and how decidedly a router routes; on several devices their mean is that of the whole batch.

    balance_loss, z_loss: as above.   load_cv: standard deviation of the loads over their mean.
    max_load: largest load over the mean load, 1 when even (MaxVio + 1).
    router_entropy: mean entropy of the gates over ln E, 1 when uniform.   dropped_frac: choices that reached no expert.
    """
    n_experts = routing.gates_TxE.shape[-1]
    load_E = load(routing) if load_E is None else load_E
    relative_E = load_E * n_experts
    entropy_T = -jnp.sum(routing.gates_TxE * jnp.log(routing.gates_TxE + 1e-20), axis=-1)
    return {
        "balance_loss": balance_loss(routing, load_E),
        "z_loss": z_loss(routing),
        "load_cv": jnp.std(relative_E),
        "max_load": jnp.max(relative_E),
        "router_entropy": jnp.mean(entropy_T) / jnp.log(n_experts),
        "dropped_frac": jnp.asarray(routing.dropped, jnp.float32),
    }
