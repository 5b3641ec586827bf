"""MinAtar in gymnax, many environments side by side, with ends and cuts of episodes told apart."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.tasks.rl.games import GAMES, SIDE


@struct.dataclass
class Step:
    """One step of N environments that reset themselves.

    observation_NxHxWxC: of the state to act in next, after a reset where the episode is over.
    last_NxHxWxC: of the state that the step led to, before any reset.
    terminated_N: the episode ended, and nothing follows.   truncated_N: it was cut at the time limit, and what would
    have followed has a value.
    """

    observation_NxHxWxC: jax.Array
    last_NxHxWxC: jax.Array
    world: Any
    reward_N: jax.Array
    terminated_N: jax.Array
    truncated_N: jax.Array


@dataclass(frozen=True)
class Environments:
    """N copies of a game. `environment` and `parameters` are gymnax's."""

    environment: Any
    parameters: Any
    count: int

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """First observations, and the state of the worlds."""
        keys = jax.random.split(key, self.count)
        observation, world = jax.vmap(self.environment.reset, in_axes=(0, None))(keys, self.parameters)
        return _as_bool(observation), _strong(world)

    def step(self, key: jax.Array, world: Any, action_N: jax.Array) -> Step:
        """Act in every world; those whose episode is over begin a new one."""
        keys = jax.random.split(key, self.count)
        observation, world, reward, terminated, truncated, info = jax.vmap(
            self.environment.step, in_axes=(0, 0, 0, None)
        )(keys, world, action_N, self.parameters)
        return Step(
            _as_bool(observation),
            _as_bool(info["final_observation"]),
            _strong(world),
            reward.astype(jnp.float32),
            terminated,
            truncated & ~terminated,
        )


@functools.cache
def environments(game: str, count: int) -> Environments:
    """N environments of a game.

    Raises InputError where gymnax is not installed, and where the installed one has another game under that name.
    """
    require_installed("a task in MinAtar", "gymnax", "six")
    import gymnax

    facts = GAMES[game]
    environment, parameters = gymnax.make(facts.gymnax)
    shape = environment.observation_space(parameters).shape
    found = (tuple(shape), environment.num_actions, parameters.max_steps_in_episode)
    expected = ((SIDE, SIDE, facts.channels), facts.actions, facts.limit)
    if found != expected:
        raise InputError(
            f"gymnax {gymnax.__version__} has {facts.gymnax} with observations, actions and limit {found}, not "
            f"{expected}: install gymnax 1.0.1"
        )
    return Environments(environment, parameters, count)


def _strong(world: Any) -> Any:
    """Without JAX's weak types, which would make the state of a first step another type than that of a later one."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), world)


def _as_bool(observation: jax.Array) -> jax.Array:
    """Observations are 0 or 1; a byte each keeps a round in the cache."""
    return observation.astype(bool)
