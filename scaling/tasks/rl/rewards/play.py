"""What programs read in random play: transitions of a game on which a program can be tried before anything trains."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.tasks.rl.environment import environments
from scaling.tasks.rl.games import GAMES
from scaling.tasks.rl.rewards.check import NEXT, checked_program
from scaling.tasks.rl.rewards.features import features_of
from scaling.tasks.rl.rewards.programmed import values_of
from scaling.tasks.rl.rewards.rule import Scene
from scaling.tasks.rl.rewards.telescoping import Telescoping, telescoping

COUNT, STEPS, DISCOUNT = 64, 256, 0.99


@functools.lru_cache(maxsize=8)
def random_play(game: str, discount: float = DISCOUNT, steps: int = STEPS) -> dict[str, NDArray[Any]]:
    """All that a program may read, [M] each, of M = 64 x `steps` transitions by random actions from a fixed seed.

    Raises InputError where gymnax is not installed, and ValueError for a game without features.
    """
    features_of(game)
    worlds = environments(game, COUNT)

    @jax.jit
    def play(key: jax.Array) -> dict[str, jax.Array]:
        start_key, own_key = jax.random.split(key)

        def step(state: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], dict[str, jax.Array]]:
            observation, world = state
            action_key, step_key = jax.random.split(key)
            action_N = jax.random.randint(action_key, (COUNT,), 0, GAMES[game].actions)
            seen = worlds.step(step_key, world, action_N)
            scene = Scene(observation, action_N, seen.reward_N, seen.last_NxHxWxC, seen.terminated_N, seen.truncated_N)
            return (seen.observation_NxHxWxC, seen.world), values_of(game, scene, discount)

        return jax.lax.scan(step, worlds.reset(start_key), jax.random.split(own_key, steps))[1]

    return {name: np.asarray(value).reshape(-1) for name, value in play(jax.random.key(0)).items()}


@dataclass(frozen=True)
class Trial:
    """A program in random play. least, most, mean: of its reward of a step.   share: of the steps in which it is not 0.
    telescoping: whether it is potential-based shaping."""

    least: float
    most: float
    mean: float
    share: float
    telescoping: Telescoping


def tried(text: str, game: str, discount: float = DISCOUNT) -> Trial:
    """A program on the transitions of random play. Raises InputError as `checked_program` and `random_play` do."""
    program = checked_program(text, game)
    values = {name: value.astype(value.dtype if value.dtype == bool else float) for name, value in
              random_play(game, discount).items()}  # fmt: skip
    found = np.broadcast_to(np.asarray(program.over(values, np), dtype=float), values["reward"].shape)
    read = [name for name in features_of(game) if {name, NEXT + name} & program.reads] or list(features_of(game))
    before, after = (np.column_stack([values[prefix + name] for name in read]) for prefix in ("", NEXT))
    return Trial(
        float(found.min()),
        float(found.max()),
        float(found.mean()),
        float(np.mean(found != 0)),
        telescoping(before, after, found, values["terminated"], discount),
    )
