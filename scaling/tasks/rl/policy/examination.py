"""What is asked of a network apart from playing: its first weights, what happens inside it, and how well it can still
learn.

Axes: B observations, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from scaling.tasks.rl.games import SIDE
from scaling.tasks.rl.inside import ROWS
from scaling.tasks.rl.policy.network import ActorCritic, TowerInside
from scaling.tasks.rl.policy.towers import CHANNELS

PROBE_ROWS, PROBE_STEPS, PROBE_RATE = 256, 100, 1e-3


@dataclass(frozen=True)
class Examination:
    """The functions of one network that `programs` compiles."""

    network: ActorCritic

    def start(self, key: jax.Array) -> Any:
        """New weights."""
        observation = jnp.zeros((1, SIDE, SIDE, CHANNELS), bool)
        return self.network.init(key, observation, jnp.zeros(1, jnp.int32))["params"]

    def inspect(
        self, params: Any, observation_BxHxWxC: jax.Array, task_B: jax.Array
    ) -> tuple[TowerInside, TowerInside]:
        """What happens in the towers of actor and critic."""
        found: Any = self.network.apply({"params": params}, observation_BxHxWxC, task_B)
        return found[2]

    def probe(self, params: Any, observation_BxHxWxC: jax.Array, task_B: jax.Array) -> jax.Array:
        """How much of a small random change of its outputs a network cannot learn: the mean squared error after
        `PROBE_STEPS` steps of Adam on B observations, from these weights, towards

            what the network says of them now + noise of standard deviation 1, the same for every network.

        Each network begins at an error of 1, whatever the size of its outputs. After arXiv 2303.01486 (Lyle et al.),
        which calls plasticity the ability to lower the loss of new targets from the current weights.
        """

        def outputs(params: Any) -> jax.Array:
            found: Any = self.network.apply({"params": params}, observation_BxHxWxC, task_B)
            return jnp.concatenate([found[0], found[1][:, None]], axis=1)

        now = outputs(params)
        target = now + jax.random.normal(jax.random.key(0), now.shape)
        adam = optax.adam(PROBE_RATE)

        def loss(params: Any) -> jax.Array:
            return jnp.mean((outputs(params) - target) ** 2)

        def step(state: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            params, moments = state
            updates, moments = adam.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), None, length=PROBE_STEPS)
        return loss(params)


def inspected_rows(n_games: int) -> int:
    """Observations that a network is inspected on, equally many of each game: an expert that is given one game alone
    has `ROWS` of them, and no arm has more than that many of its rows judged."""
    return ROWS * max(2, n_games)
