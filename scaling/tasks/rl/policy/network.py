"""Actor and critic as Flax modules.

Axes: B observations, I inputs, F outputs of a layer, E experts, A actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from scaling.model.matmul import product
from scaling.tasks.rl.policy.towers import ACTIONS, CHANNELS, INPUTS, LAYERS, Linear, Tower

ACTOR_GAIN, CRITIC_GAIN = 0.01, 1.0  # of the last layer's initial weights, as in PureJaxRL
HIDDEN_GAIN = 2**0.5


@struct.dataclass
class TowerInside:
    """What happened in a tower.

    hidden: activations of the hidden layers, [E, B, H] of each, E being 1 for a layer without experts.
    reached: which rows an expert was to compute, [E, B] of each.
    gates: weights of the experts, [B, E] of each router.
    features: what the last layer reads, [E, B, H]; E is 1 but for `big`.
    """

    hidden: tuple[jax.Array, ...]
    reached: tuple[jax.Array, ...]
    gates: tuple[jax.Array, ...]
    features: jax.Array


class TowerNetwork(nn.Module):
    """Observations [B, S C] of S places with C channels, and the number of each one's task [B] -> outputs [B, O], and
    what happened inside.

    Weights are those of all channels that any game has; observations may come without the last ones, whose weights are
    then left out: they would multiply zeros.
    """

    tower: Tower
    gain: float

    @nn.compact
    def __call__(self, x_BxI: jax.Array, task_B: jax.Array) -> tuple[jax.Array, TowerInside]:
        tower, x_ExBxI = self.tower, x_BxI[None]
        of_all_BxE = self._gates("router", INPUTS, x_BxI, task_B) if tower.place == "big" else None
        hidden, reached, gates = [], [], [] if of_all_BxE is None else [of_all_BxE]
        for number, layer in enumerate(tower.layers):
            is_last = number == LAYERS - 1
            gates_BxE = of_all_BxE
            if layer.routed:
                gates_BxE = self._gates(f"router_{number}", layer.inputs, x_ExBxI[0], task_B)
                gates.append(gates_BxE)
            features = x_ExBxI
            y_ExBxF = self._linear(f"layer_{number}", layer, x_ExBxI, self.gain if is_last else HIDDEN_GAIN)
            if not is_last:
                y_ExBxF = jax.nn.relu(y_ExBxF)
                hidden.append(y_ExBxF)
                reached.append(jnp.ones(y_ExBxF.shape[:2], bool) if gates_BxE is None else gates_BxE.T > 0)
            if gates_BxE is not None and (layer.routed or is_last):
                y_ExBxF = jnp.sum(gates_BxE.T[..., None] * y_ExBxF, axis=0)[None]
            x_ExBxI = y_ExBxF
        return x_ExBxI[0], TowerInside(tuple(hidden), tuple(reached), tuple(gates), features)

    def _linear(self, name: str, layer: Linear, x_ExBxI: jax.Array, gain: float) -> jax.Array:
        """x W_e + b_e of every expert, [E, B, F]; experts that read the same rows do so in one product."""
        shape = (layer.copies, layer.inputs, layer.outputs)
        kernel_ExIxF = _of_channels(self.param(f"{name}_kernel", _orthogonal(gain), shape), x_ExBxI.shape[-1])
        bias_ExF = self.param(f"{name}_bias", nn.initializers.zeros_init(), (layer.copies, layer.outputs))
        if len(x_ExBxI) == 1:
            joint_IxEF = kernel_ExIxF.transpose(1, 0, 2).reshape(x_ExBxI.shape[-1], -1)
            joint_BxEF = product(x_ExBxI[0], joint_IxEF)
            y_ExBxF = joint_BxEF.reshape(-1, layer.copies, layer.outputs).swapaxes(0, 1)
        else:
            y_ExBxF = jnp.stack([product(x, kernel) for x, kernel in zip(x_ExBxI, kernel_ExIxF, strict=True)])
        return y_ExBxF + bias_ExF[:, None]

    def _gates(self, name: str, inputs: int, x_BxI: jax.Array, task_B: jax.Array) -> jax.Array:
        """The weight of each expert, [B, E].

        soft: the softmax of x . Phi. That is Soft MoE (arXiv 2308.00951) of one token an observation: its softmax over
        tokens is 1, so that every slot holds the observation, and its softmax over slots is that over experts.
        top-k: of that softmax the k largest, so that a router learns from k = 1 too.   hard: 1 of the task's expert.
        """
        tower = self.tower
        if tower.router == "hard":
            return jax.nn.one_hot(task_B, tower.n_experts)
        phi_IxE = self.param(name, nn.initializers.lecun_normal(), (inputs, tower.n_experts))
        phi_IxE = _of_channels(phi_IxE[None], x_BxI.shape[-1])[0]
        gates_BxE = jax.nn.softmax(product(x_BxI, phi_IxE))
        if tower.router == "soft":
            return gates_BxE
        _, best_BxK = jax.lax.top_k(gates_BxE, tower.top_k)
        return gates_BxE * jnp.sum(jax.nn.one_hot(best_BxK, tower.n_experts), axis=1)


class ActorCritic(nn.Module):
    """Observations [B, 10, 10, C] and tasks [B] -> logits of all actions [B, A], values [B], and what happened in the
    towers of actor and critic."""

    actor: Tower
    critic: Tower

    @nn.compact
    def __call__(
        self, observation_BxHxWxC: jax.Array, task_B: jax.Array
    ) -> tuple[jax.Array, jax.Array, tuple[TowerInside, TowerInside]]:
        assert (self.actor.outputs, self.critic.outputs) == (ACTIONS, 1)
        x_BxI = observation_BxHxWxC.reshape(len(observation_BxHxWxC), -1).astype(jnp.float32)
        logits_BxA, of_actor = TowerNetwork(self.actor, ACTOR_GAIN, name="actor")(x_BxI, task_B)
        value_Bx1, of_critic = TowerNetwork(self.critic, CRITIC_GAIN, name="critic")(x_BxI, task_B)
        return logits_BxA, value_Bx1[:, 0], (of_actor, of_critic)


def _orthogonal(gain: float) -> Any:
    """Orthogonal initial weights of each expert by itself."""
    initial = nn.initializers.orthogonal(gain)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.vmap(lambda own: initial(own, shape[1:], dtype))(jax.random.split(key, shape[0]))

    return draw


def _of_channels(kernel_ExIxF: jax.Array, inputs: int) -> jax.Array:
    """The weights of so many inputs: all, or of an observation those of its first channels."""
    copies, all_inputs, outputs = kernel_ExIxF.shape
    if inputs == all_inputs:
        return kernel_ExIxF
    by_channel = kernel_ExIxF.reshape(copies, -1, CHANNELS, outputs)
    return by_channel[:, :, : inputs * CHANNELS // all_inputs].reshape(copies, inputs, outputs)
