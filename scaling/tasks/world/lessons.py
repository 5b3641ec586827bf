"""Walks as texts to learn from: which of their words are to be predicted. Axes: N walks of S attempts, T words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.world.layout import ATTEMPT_TOKENS
from scaling.tasks.world.rollout import Walks


@dataclass(frozen=True)
class Lessons:
    """Texts, and the weight of each word in the loss: 0 for a word that is only read."""

    text_NxT: NDArray[np.int32]
    weight_NxT: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.text_NxT)


def of_expert(walks: Walks) -> Lessons:
    """Every action of the teacher is to be predicted: imitation."""
    action_NxS = np.asarray(walks.live_NxS & walks.taught_NxS)
    return _lessons(walks, action_NxS, np.zeros_like(action_NxS))


def of_exploration(walks: Walks) -> Lessons:
    """Feedback is to be predicted, and what corrects an error.

    With a teacher these are all its actions, of which those after an error correct it; without one, the model's own
    first feasible action after an error. The errors themselves are read and not learnt.
    """
    live_NxS, feasible_NxS = np.asarray(walks.live_NxS), np.asarray(walks.feasible_NxS)
    erred_NxS = np.zeros_like(live_NxS)
    erred_NxS[:, 1:] = live_NxS[:, :-1] & ~feasible_NxS[:, :-1]
    return _lessons(walks, live_NxS & (np.asarray(walks.taught_NxS) | (erred_NxS & feasible_NxS)), live_NxS)


def joined(lessons: list[Lessons]) -> Lessons:
    """All of them, one after another."""
    return Lessons(
        np.concatenate([one.text_NxT for one in lessons]), np.concatenate([one.weight_NxT for one in lessons])
    )


def _lessons(walks: Walks, action_NxS: NDArray[np.bool_], feedback_NxS: NDArray[np.bool_]) -> Lessons:
    text_NxT = np.asarray(walks.text_NxT)
    count, attempts = action_NxS.shape
    weight_NxSx4 = np.stack([action_NxS, action_NxS, feedback_NxS, feedback_NxS], axis=2)
    weight_NxT = np.zeros(text_NxT.shape, np.float32)
    weight_NxT[:, text_NxT.shape[1] - ATTEMPT_TOKENS * attempts :] = weight_NxSx4.reshape(count, -1)
    return Lessons(text_NxT, weight_NxT)
