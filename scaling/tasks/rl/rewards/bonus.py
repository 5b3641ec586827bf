"""A bonus for states that were rarely seen, which the learner makes itself from its own visits.

The exploration part of ExploRS (Devidze, Kamalaruban and Singla, "Exploration-guided reward shaping", NeurIPS 2022):

    B(s') = lambda / sqrt((lambda / B_max)^2 + n(s')),

n the earlier visits of the states that are taken for the same as s', here those with the same counted features
(`scaling.tasks.rl.rewards.features`), by all N environments together. It falls as 1 / sqrt(n), as in "#Exploration"
(Tang et al., arXiv 1611.04717). The end of an episode has none, so that new ways to lose are not sought. The other part
of ExploRS, a reward that it learns by gradients, is not here. A bonus may change which policies are optimal while it
lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.tasks.rl.rewards.features import FEATURES
from scaling.tasks.rl.rewards.observed import observed
from scaling.tasks.rl.rewards.rule import Rule, Scene

LAMBDA, MOST = 0.1, 0.1  # a tenth of one of MinAtar's own rewards for the first visit


@dataclass(frozen=True)
class Bonus(Rule):
    """The bonus; its state is the number of visits of each cell of counted features."""

    def start(self) -> Any:
        return jnp.zeros(math.prod(size for _, _, size in self._counted))

    def help(self, state: Any, scene: Scene) -> tuple[jax.Array, Any, Any]:
        cell_N = self.cell(scene.last_NxHxWxC)
        help_N = jnp.where(scene.terminated_N, 0.0, bonus(state[cell_N]))
        return help_N, (), state.at[cell_N].add(1.0)

    def cell(self, observation_NxHxWxC: jax.Array) -> jax.Array:
        """The number of the cell of each state, [N]."""
        found = observed(self.game, observation_NxHxWxC)
        cell_N = jnp.zeros(observation_NxHxWxC.shape[:1], jnp.int32)
        for name, low, size in self._counted:
            cell_N = cell_N * size + jnp.clip(found[name].astype(jnp.int32) - low, 0, size - 1)
        return cell_N

    @property
    def _counted(self) -> list[tuple[str, int, int]]:
        """Name, least value and number of values of the counted features."""
        features = FEATURES[self.game].items()
        return [(name, one.low, one.high - one.low + 1) for name, one in features if one.counted]


def bonus(visits: jax.Array) -> jax.Array:
    """B after so many visits."""
    return LAMBDA / jnp.sqrt((LAMBDA / MOST) ** 2 + visits)
