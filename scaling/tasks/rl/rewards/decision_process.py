"""Finite Markov decision processes, solved exactly, and whether another reward has other optimal policies.

Axes: S states, A actions, S' states that follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.errors import InputError

TOLERANCE = 1e-9  # of values, relative to the largest of them: actions whose values differ by less are equally good
_MOST_STEPS = 1000  # of policy iteration, which ends after a few


@dataclass(frozen=True)
class DecisionProcess:
    """A finite process with discounted reward.

    transition_SxAxS: probability that s' follows.   reward_SxAxS: of the step.   terminal_S: states that nothing
    follows; steps from them are not read, and their value is 0.   discount: gamma, below 1.

    Raises InputError for shapes that do not agree, probabilities that do not sum to 1 and a discount out of range.
    """

    transition_SxAxS: NDArray[np.float64]
    reward_SxAxS: NDArray[np.float64]
    terminal_S: NDArray[np.bool_]
    discount: float

    def __post_init__(self) -> None:
        shape = np.shape(self.transition_SxAxS)
        if len(shape) != 3 or shape[0] != shape[2] or np.shape(self.terminal_S) != shape[:1]:
            raise InputError(
                f"transitions are [S, A, S] and terminal states [S], found {shape} and {np.shape(self.terminal_S)}"
            )
        if np.shape(self.reward_SxAxS) != shape:
            raise InputError(f"rewards are of the shape of transitions, {shape}, found {np.shape(self.reward_SxAxS)}")
        sums = np.sum(self.transition_SxAxS, axis=2)[~self.terminal_S]
        if np.min(self.transition_SxAxS) < 0 or not np.allclose(sums, 1, rtol=0, atol=1e-9):
            raise InputError("the probabilities of what follows a state and action must be at least 0 and sum to 1")
        if not 0 <= self.discount < 1:
            raise InputError(f"`discount` must be from 0 to below 1, found {self.discount:g}")

    def with_reward(self, reward_SxAxS: ArrayLike) -> DecisionProcess:
        """The same process with another reward. Raises InputError."""
        reward = np.asarray(reward_SxAxS, dtype=float)
        return DecisionProcess(self.transition_SxAxS, reward, self.terminal_S, self.discount)

    def action_values(self) -> NDArray[np.float64]:
        """Q*(s, a), [S, A], by policy iteration with exact evaluation; 0 in terminal states."""
        policy = np.zeros(len(self.terminal_S), dtype=int)
        for _ in range(_MOST_STEPS):
            q_SxA = self._looked_ahead(self.value_of(policy))
            gain = q_SxA.max(axis=1) - q_SxA[np.arange(len(policy)), policy]
            if np.all(gain <= TOLERANCE * max(1.0, float(np.abs(q_SxA).max()))):
                return q_SxA
            policy = np.where(gain > 0, q_SxA.argmax(axis=1), policy)
        raise ArithmeticError(f"policy iteration has not ended after {_MOST_STEPS} steps")

    def optimal_actions(self) -> NDArray[np.bool_]:
        """Whether an action is optimal, [S, A]: of the optimal policies, all that choose among these. All in terminal
        states."""
        q_SxA = self.action_values()
        return q_SxA >= q_SxA.max(axis=1, keepdims=True) - TOLERANCE * max(1.0, float(np.abs(q_SxA).max()))

    def value_of(self, policy_S: ArrayLike) -> NDArray[np.float64]:
        """The value of a policy that chooses one action in each state, [S]."""
        chosen = np.arange(len(self.terminal_S)), np.asarray(policy_S)
        alive_S = ~self.terminal_S
        follows_SxS = self.transition_SxAxS[chosen] * alive_S[:, None]
        reward_S = np.sum(self.transition_SxAxS[chosen] * self.reward_SxAxS[chosen], axis=1) * alive_S
        return np.linalg.solve(np.eye(len(alive_S)) - self.discount * follows_SxS, reward_S)

    def _looked_ahead(self, value_S: NDArray[np.float64]) -> NDArray[np.float64]:
        """Q(s, a) where these are the values of the states that follow."""
        q_SxA = np.sum(self.transition_SxAxS * (self.reward_SxAxS + self.discount * value_S), axis=2)
        return np.where(self.terminal_S[:, None], 0.0, q_SxA)


@dataclass(frozen=True)
class PolicyChange:
    """What another reward does to the optimal policies.

    states: those in which the optimal actions differ.   loss_S: what is lost of the environment's own return, at most,
    by a policy that is optimal under the other reward; 0 where nothing is.
    """

    states: tuple[int, ...]
    loss_S: NDArray[np.float64]

    @property
    def changed(self) -> bool:
        """Whether the sets of optimal policies differ."""
        return bool(self.states)


def policy_change(process: DecisionProcess, learnt_SxAxS: ArrayLike) -> PolicyChange:
    """How the optimal policies of a process change where `learnt_SxAxS` is what is learnt from, in place of its reward.

    Potential-based shaping changes none (Ng, Harada and Russell, ICML 1999); a dense reward that can be earned again
    and again without the environment's own reward does. Both optima are found exactly, by dynamic programming. Raises
    InputError for a reward of another shape.
    """
    learnt = process.with_reward(learnt_SxAxS)
    own, other = process.optimal_actions(), learnt.optimal_actions()
    states = np.flatnonzero((own != other).any(axis=1) & ~process.terminal_S)
    best_S = process.action_values().max(axis=1)
    return PolicyChange(tuple(states.tolist()), best_S - _worst(process, other))


def _worst(process: DecisionProcess, allowed_SxA: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The least value of the policies that choose among the allowed actions, [S]: policy iteration downwards."""
    policy = allowed_SxA.argmax(axis=1)
    for _ in range(_MOST_STEPS):
        value_S = process.value_of(policy)
        q_SxA = np.where(allowed_SxA, process._looked_ahead(value_S), np.inf)
        gain = value_S - q_SxA.min(axis=1)
        if np.all(gain <= TOLERANCE * max(1.0, float(np.abs(value_S).max()))):
            return value_S
        policy = np.where(gain > 0, q_SxA.argmin(axis=1), policy)
    raise ArithmeticError(f"policy iteration has not ended after {_MOST_STEPS} steps")
