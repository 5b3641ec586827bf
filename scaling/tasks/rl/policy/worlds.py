"""Environments of one game or of several side by side, padded to one shape of observations and actions.

Axes: N environments, G games, A actions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from scaling.tasks.rl.environment import Environments, Step, environments
from scaling.tasks.rl.games import GAMES
from scaling.tasks.rl.policy.towers import ACTIONS, channels_of

_NEVER = -1e9  # the logit of an action that a game does not have: its probability is 0 in float32


@dataclass(frozen=True)
class Worlds:
    """Equally many environments of each game, those of a game together. parts: the environments of each."""

    games: tuple[str, ...]
    parts: tuple[Environments, ...]

    @property
    def count(self) -> int:
        """N, of all games."""
        return sum(part.count for part in self.parts)

    @property
    def limit(self) -> int:
        """Steps after which every episode is over."""
        return max(GAMES[game].limit for game in self.games)

    @property
    def channels(self) -> int:
        """Of an observation."""
        return channels_of(self.games)

    @property
    def game_N(self) -> NDArray[np.int32]:
        """The number of each environment's game."""
        return np.repeat(np.arange(len(self.games), dtype=np.int32), [part.count for part in self.parts])

    @property
    def legal_GxA(self) -> NDArray[np.bool_]:
        """The actions that each game has."""
        return np.arange(ACTIONS) < np.array([[GAMES[game].actions] for game in self.games])

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """First observations [N, 10, 10, C], and the state of the worlds."""
        found = [part.reset(own) for part, own in self._parts(key)]
        return self._joined([observation for observation, _ in found]), tuple(world for _, world in found)

    def step(self, key: jax.Array, world: Any, action_N: jax.Array) -> Step:
        """Act in every world; those whose episode is over begin a new one."""
        actions = jnp.split(action_N, np.cumsum([part.count for part in self.parts])[:-1])
        each = zip(self._parts(key), world, actions, strict=True)
        seen = [part.step(own, one, action) for (part, own), one, action in each]
        return Step(
            self._joined([one.observation_NxHxWxC for one in seen]),
            self._joined([one.last_NxHxWxC for one in seen]),
            tuple(one.world for one in seen),
            *(
                jnp.concatenate([getattr(one, name) for one in seen])
                for name in ("reward_N", "terminated_N", "truncated_N")
            ),
        )

    def legal(self, logits_BxA: jax.Array, game_B: Any) -> jax.Array:
        """The logits, with those of actions that the games do not have so low that they are never taken."""
        return jnp.where(jnp.asarray(self.legal_GxA)[game_B], logits_BxA, _NEVER)

    def _joined(self, observations: list[jax.Array]) -> jax.Array:
        """Observations of all games, with zeros for the channels that a game lacks."""
        padded = [jnp.pad(one, (*3 * ((0, 0),), (0, self.channels - one.shape[-1]))) for one in observations]
        return jnp.concatenate(padded)

    def _parts(self, key: jax.Array) -> list[tuple[Environments, jax.Array]]:
        return [(part, jax.random.fold_in(key, number)) for number, part in enumerate(self.parts)]


@functools.cache
def worlds(games: tuple[str, ...], count: int) -> Worlds:
    """So many environments, split equally over the games. Raises InputError as `environments`, and ValueError where
    they cannot be split."""
    if count % len(games):
        raise ValueError(f"{count} environments cannot be split over {len(games)} games")
    return Worlds(games, tuple(environments(game, count // len(games)) for game in games))
