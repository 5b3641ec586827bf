"""A rule of reward: what is added to the environment's own reward of a step, in N environments at once.

Returns and all metrics of a cell stay those of the environment's own reward; only what is learnt from has the help.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from flax import struct


@struct.dataclass
class Scene:
    """One step of N environments, as a rule sees it.

    observation: of the state that was acted in.   reward: the environment's own.   last: of the state that the step led
    to, before any reset.   terminated, truncated: bool, as in `scaling.tasks.rl.environment.Step`.
    """

    observation_NxHxWxC: jax.Array
    action_N: jax.Array
    reward_N: jax.Array
    last_NxHxWxC: jax.Array
    terminated_N: jax.Array
    truncated_N: jax.Array


@dataclass(frozen=True)
class Rule(ABC):
    """A rule in one game, for a learner with this discount (gamma). Its `repr` says all that its program depends on.

    `adapts`: whether `adapt` is to be called after each round.
    """

    game: str
    discount: float
    adapts: ClassVar[bool] = False

    def start(self) -> Any:
        """What the rule carries from step to step, before the first one: a pytree, part of the learner's state."""
        return ()

    @abstractmethod
    def help(self, state: Any, scene: Scene) -> tuple[jax.Array, Any, Any]:
        """The help of this step, [N]; its trace, a pytree of [N, ...] for `adapt`; and the next state."""

    def learnt(self, state: Any, scene: Scene, weight: jax.Array | float) -> tuple[jax.Array, Any, Any]:
        """The reward that is learnt from, own + weight x help, [N]; the trace; and the next state."""
        help_N, trace, state = self.help(state, scene)
        return scene.reward_N + weight * help_N, trace, state

    def adapt(self, state: Any, trace: Any, advantage_TxN: jax.Array) -> Any:
        """The state after a round of T steps: their traces [T, N, ...], and how much better than expected each action
        turned out in what was learnt from."""
        return state
