"""What a training with PPO is at one moment, what it sees in a round, and what it reports.

Axes: T steps, N environments, G games, K rounds of a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@dataclass(frozen=True)
class Shape:
    """What a round is made of; each shape is a program of its own."""

    n_steps: int
    n_minibatches: int
    n_epochs: int


@struct.dataclass
class Schedule:
    """Numbers that programs take as arguments: settings of these names, as in `scaling.tasks.policy_rl`; the round
    from which the learning rate falls; and the number of the first game among the tasks of the cell."""

    lr: Any
    decay_frames: Any
    discount: Any
    trace: Any
    clip: Any
    entropy_weight: Any
    value_weight: Any
    most_norm: Any
    reward_weight: Any
    first_round: Any
    first_task: Any

    def rate(self, rounds: jax.Array, round_frames: int) -> jax.Array:
        """Learning rate of a round."""
        frame = (rounds - self.first_round) * round_frames
        left = jnp.clip(1 - frame / jnp.maximum(self.decay_frames, 1), 0, 1)
        return self.lr * jnp.where(self.decay_frames > 0, left, 1.0)


@struct.dataclass
class Play:
    """Where the environments stand. score_N: own reward so far in each one's episode.   help: states of the rules of
    reward, () without them."""

    world: Any
    observation_NxHxWxC: jax.Array
    score_N: jax.Array
    help: tuple[Any, ...]


@struct.dataclass
class Learner:
    """Everything that a training is at one moment. moments: of the optimiser."""

    params: Any
    moments: Any
    play: Play
    rounds: jax.Array
    key: jax.Array


@struct.dataclass
class Transitions:
    """What was seen in T steps. log_prob: of the action taken.   reward: what is learnt from.   next_value: of the
    state that each step led to, before any reset."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_value: jax.Array


@struct.dataclass
class Losses:
    """Means of one or of all minibatches. kl: estimate of the divergence from the policy that acted (mean of r - 1 -
    log r, r the ratio of probabilities).   clipped: share of the ratios beyond the clip."""

    policy: jax.Array
    value: jax.Array
    entropy: jax.Array
    kl: jax.Array
    clipped: jax.Array


@struct.dataclass
class Records:
    """What each round reported: of each game the sum of the returns of episodes that ended and their number, [K, G];
    and its losses and the mean over steps of the reward that was learnt from, [K]."""

    return_sum: jax.Array
    episodes: jax.Array
    losses: Losses
    learnt: jax.Array
