"""Help by a reward program: its text over the features of both states, compiled with the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.tasks.rl.rewards.check import NEXT
from scaling.tasks.rl.rewards.observed import observed
from scaling.tasks.rl.rewards.program import parsed
from scaling.tasks.rl.rewards.rule import Rule, Scene


@dataclass(frozen=True)
class Programmed(Rule):
    """The help is what the program says of a step."""

    text: str

    def help(self, state: Any, scene: Scene) -> tuple[jax.Array, Any, Any]:
        found = parsed(self.text).over(values_of(self.game, scene, self.discount), jnp)
        return jnp.broadcast_to(jnp.asarray(found, jnp.float32), scene.reward_N.shape), (), state


def values_of(game: str, scene: Scene, discount: float) -> dict[str, jax.Array]:
    """All that a program may read of a step, [N] each."""
    before, after = (observed(game, seen) for seen in (scene.observation_NxHxWxC, scene.last_NxHxWxC))
    return {
        **before,
        **{NEXT + name: value for name, value in after.items()},
        "reward": scene.reward_N,
        "action": scene.action_N.astype(jnp.float32),
        "discount": jnp.full(scene.reward_N.shape, discount),
        "terminated": scene.terminated_N,
        "truncated": scene.truncated_N,
    }
