"""Shaping that adapts to the learner: of all potentials that are linear in the features, the most informative one.

"Informativeness of reward functions in reinforcement learning" (ExpAdaRD, Devidze, Kamalaruban and Singla, arXiv
2402.07019) redesigns the reward R as the learner's policy pi changes, within a set whose optimal policies are those of
the environment's own reward. What it maximises, for a learner that looks one step ahead, is

    I(R | pi) = E_{s, a ~ pi} [ A(s, a) (R(s, a) - E_{b ~ pi} R(s, b)) ],

A the advantage of an action under the environment's own reward. Here R = gamma Phi(s') - Phi(s), so the optimal
policies are unchanged whatever Phi is, with Phi(s) = w . phi(s), phi the K features scaled to 0 to 1, and |w| <= 1.
As I is linear in w, its maximum is at w = g / |g| with

    g_k = E [ A(s, a) (gamma phi_k(s') - phi_k(s)) ].

Deviations from the paper: the advantage is the learner's own and not an expert's, and is that of what it learns from,
which under a potential is the same as under the environment's own reward (Q' = Q - Phi); advantages are centred in a
round in place of the baseline in b; and g is a running mean over rounds, so that one round's noise does not turn w.
Within a round Phi is fixed, so each round is learnt from a reward with the same optimal policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scaling.tasks.rl.rewards.features import FEATURES
from scaling.tasks.rl.rewards.observed import observed
from scaling.tasks.rl.rewards.potential import potential_difference
from scaling.tasks.rl.rewards.rule import Rule, Scene

RATE = 0.05  # of the running mean: about the last 20 rounds count


@dataclass(frozen=True)
class Adaptive(Rule):
    """Shaping by w . phi; its state is g, [K], and w follows from it."""

    adapts: ClassVar[bool] = True

    def start(self) -> Any:
        return jnp.zeros(len(FEATURES[self.game]))

    def help(self, state: Any, scene: Scene) -> tuple[jax.Array, Any, Any]:
        before, after = (self.scaled(seen) for seen in (scene.observation_NxHxWxC, scene.last_NxHxWxC))
        difference_NxK = potential_difference(before, after, scene.terminated_N, self.discount)
        return difference_NxK @ weights(state), difference_NxK, state

    def adapt(self, state: Any, trace: Any, advantage_TxN: jax.Array) -> Any:
        centred_TxN = advantage_TxN - jnp.mean(advantage_TxN)
        found = jnp.mean(centred_TxN[..., None] * trace, axis=(0, 1))
        return state + RATE * (found - state)

    def scaled(self, observation_NxHxWxC: jax.Array) -> jax.Array:
        """phi, [N, K]."""
        found = observed(self.game, observation_NxHxWxC)
        ranges = FEATURES[self.game]
        return jnp.stack([(found[name] - one.low) / (one.high - one.low) for name, one in ranges.items()], axis=-1)


def weights(gradient_K: jax.Array) -> jax.Array:
    """w = g / |g|; 0 before anything is known."""
    length = jnp.sqrt(jnp.sum(gradient_K**2))
    return gradient_K / jnp.where(length > 0, length, 1.0)
