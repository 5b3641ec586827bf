"""Several games side by side are the games by themselves, in one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.tasks.rl.environment import Step
from scaling.tasks.rl.policy.worlds import Worlds, worlds


@dataclass(frozen=True)
class Dice:
    """Environments in which everything is drawn, with so many channels."""

    channels: int
    count: int = 3

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        image = jax.random.bernoulli(key, 0.5, (self.count, 10, 10, self.channels))
        return image, jnp.sum(image, axis=(1, 2, 3))

    def step(self, key: jax.Array, world: Any, action_N: jax.Array) -> Step:
        first, last = jax.random.split(key)
        (image, next_world), (after, _) = self.reset(first), self.reset(last)
        return Step(image, after, next_world, world + action_N, world % 2 == 0, world % 3 == 0)


def test_each_game_goes_on_as_by_itself() -> None:
    """Observations, rewards and ends of its own environments, with a key of their own; channels that a game lacks are
    zero."""
    parts = Dice(4), Dice(7)
    together = Worlds(("breakout", "freeway"), parts)  # type: ignore[arg-type]
    assert (together.count, together.channels, together.limit, together.game_N.tolist()) == (
        6,
        7,
        2500,
        [0] * 3 + [1] * 3,
    )
    key, action_N = jax.random.key(0), jnp.array([0, 1, 2, 2, 1, 0])
    observation, world = together.reset(key)
    seen = together.step(key, world, action_N)
    whole = observation, seen.observation_NxHxWxC, seen.last_NxHxWxC, seen.reward_N, seen.terminated_N, seen.truncated_N
    assert observation.shape == (6, 10, 10, 7)
    for number, alone in enumerate(parts):
        mine, own_key = slice(3 * number, 3 * number + 3), jax.random.fold_in(key, number)
        first, own_world = alone.reset(own_key)
        own = alone.step(own_key, own_world, action_N[mine])
        expected = first, own.observation_NxHxWxC, own.last_NxHxWxC, own.reward_N, own.terminated_N, own.truncated_N
        for found, wanted in zip(whole, expected, strict=True):
            part = np.asarray(found[mine])
            np.testing.assert_array_equal(part[..., : alone.channels] if part.ndim == 4 else part, wanted)
            assert part.ndim < 4 or not part[..., alone.channels :].any()
        np.testing.assert_array_equal(seen.world[number], own.world)


def test_an_action_that_a_game_lacks_has_no_probability() -> None:
    """Breakout has 3 of the 6 actions, Asterix 5; the others keep the proportions that their logits give."""
    both = Worlds(("breakout", "asterix"), ())
    logits = jnp.array([[0.0, 1.0, 2.0, 50.0, 60.0, 70.0]] * 2)
    shares = np.asarray(jax.nn.softmax(both.legal(logits, jnp.array([0, 1]))))
    np.testing.assert_array_equal(shares[0, 3:], 0)
    np.testing.assert_array_equal(shares[1, 5:], 0)
    assert shares[0, 1] / shares[0, 0] == pytest.approx(np.e, rel=1e-5)
    assert shares.sum(axis=1) == pytest.approx([1, 1], rel=1e-6)


def test_environments_are_split_equally() -> None:
    with pytest.raises(ValueError, match="7 environments cannot be split over 2 games"):
        worlds(("breakout", "freeway"), 7)
