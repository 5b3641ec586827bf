"""Potential-based shaping: help that changes no optimal policy.

Ng, Harada and Russell, "Policy invariance under reward transformations", ICML 1999: for any Phi of states,

    F(s, a, s') = gamma Phi(s') - Phi(s)

leaves the optimal policies of every Markov decision process what they were, and Q'(s, a) = Q(s, a) - Phi(s). This needs
the learner's own gamma. Phi of a terminal state is 0: nothing follows it, so nothing would take back what another value
gave. A state at which an episode is cut keeps its Phi: the learner goes on as if it were followed (it adds
gamma V'(s') = gamma (V(s') - Phi(s'))), and without gamma Phi(s') here the sum would not telescope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.tasks.rl.rewards.observed import observed
from scaling.tasks.rl.rewards.program import parsed
from scaling.tasks.rl.rewards.rule import Rule, Scene


def potential_difference(before: jax.Array, after: jax.Array, terminated_N: jax.Array, discount: float) -> jax.Array:
    """gamma Phi(s') - Phi(s) with Phi(s') = 0 where the episode ended. before, after: Phi of both states, [N, ...]."""
    ended = terminated_N.reshape(-1, *(1,) * (after.ndim - 1))
    return discount * jnp.where(ended, 0.0, after) - before


@dataclass(frozen=True)
class Potential(Rule):
    """Shaping by a potential that is given as text over the features of a state."""

    text: str

    def help(self, state: Any, scene: Scene) -> tuple[jax.Array, Any, Any]:
        before, after = (self.of(seen) for seen in (scene.observation_NxHxWxC, scene.last_NxHxWxC))
        return potential_difference(before, after, scene.terminated_N, self.discount), (), state

    def of(self, observation_NxHxWxC: jax.Array) -> jax.Array:
        """Phi, [N]."""
        found = parsed(self.text, "potential").over(observed(self.game, observation_NxHxWxC), jnp)
        return jnp.broadcast_to(jnp.asarray(found, jnp.float32), observation_NxHxWxC.shape[:1])
