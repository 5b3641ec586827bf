"""Worlds without a game, in which the best policy is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.tasks.rl.environment import Step
from scaling.tasks.rl.policy.worlds import Worlds


@dataclass(frozen=True)
class Bandits(Worlds):
    """Episodes of one step: the observation shows which of three actions has reward 1, the others have 0. Two games
    show it in opposite order. cut: whether episodes are cut and not ended."""

    games: tuple[str, ...] = ("breakout",)
    parts: tuple[Any, ...] = ()
    each: int = 16
    cut: bool = False

    @property
    def count(self) -> int:
        return self.each * len(self.games)

    @property
    def game_N(self) -> Any:
        return jnp.repeat(jnp.arange(len(self.games), dtype=jnp.int32), self.each)

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        shown_N = jax.random.randint(key, (self.count,), 0, 3)
        return _shown(shown_N), shown_N

    def step(self, key: jax.Array, world: Any, action_N: jax.Array) -> Step:
        observation, shown_N = self.reset(key)
        wanted_N = jnp.where(self.game_N == 0, world, 2 - world)
        over = jnp.ones(self.count, bool)
        reward_N = (action_N == wanted_N).astype(jnp.float32)
        return Step(observation, _shown(world), shown_N, reward_N, over & (not self.cut), over & self.cut)


def _shown(shown_N: jax.Array) -> jax.Array:
    """A row of the first channel is filled; its number is what is shown."""
    image = jnp.zeros((len(shown_N), 10, 10, 10), bool)
    return image.at[jnp.arange(len(shown_N)), shown_N, :, 0].set(True)
