"""What is said of the scores of an arm: aggregates over games, and the probability that one arm beats another.

`scores` holds one array a game: its runs along the last axis, [..., N_m]. Axes before it are draws of a bootstrap,
equal for all games, and a statistic has one value for each of them. Method paper: arXiv 2108.13264.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from scaling.arrays import Array

Scores = Sequence[Array]


def interquartile_mean(scores: Scores) -> Array:
    """The mean of the middle half of all runs of all games: sorted together, floor(.25 N M) are dropped at each end.

    Games with more runs than others weigh more. arXiv 2108.13264, section 4.3.
    """
    return np.asarray(stats.trim_mean(np.concatenate(scores, axis=-1), 0.25, axis=-1))


def mean(scores: Scores) -> Array:
    """The mean over games of the mean over runs."""
    return np.mean([np.mean(values, axis=-1) for values in scores], axis=0)


def optimality_gap(scores: Scores, target: float = 1.0) -> Array:
    """By how much runs miss the target: target - mean over games and runs of min(x, target). Less is better.

    arXiv 2108.13264, section 4.3, where the target is gamma = 1, the reference's score.
    """
    return target - mean([np.minimum(values, target) for values in scores])


def performance_profile(scores: Scores, thresholds: Array) -> Array:
    """The share of runs that score more than each of K thresholds, mean over games: [..., K].

    arXiv 2108.13264, section 4.2, equation 3. It falls from 1 to 0; where one arm's lies above another's throughout,
    its scores are stochastically larger.
    """
    above = [np.mean(values[..., :, None] > thresholds, axis=-2) for values in scores]
    return np.mean(above, axis=0)


def probability_of_improvement(ours: Scores, theirs: Scores) -> Array:
    """P(X > Y), that a run of ours scores more than one of theirs in a game drawn at random; ties count half.

    The mean over games of U_m / (N_x N_y), where U_m is the statistic of Mann and Whitney (arXiv 2108.13264, section
    4.3). It needs no normalised scores. Raises ValueError where the games are not as many.
    """
    by_game = []
    for x, y in zip(ours, theirs, strict=True):
        more, equal = (op(x[..., :, None], y[..., None, :]) for op in (np.greater, np.equal))
        by_game.append(np.mean(more, axis=(-2, -1)) + np.mean(equal, axis=(-2, -1)) / 2)
    return np.mean(by_game, axis=0)


def normalised(scores: Scores, random: Sequence[float], reference: Sequence[float]) -> list[Array]:
    """(x - random) / (reference - random) by game: 0 for random actions, 1 for the reference.

    Raises ValueError for a game in which the reference is not above random.
    """
    for game, (low, high) in enumerate(zip(random, reference, strict=True)):
        if not high > low:
            raise ValueError(f"game {game}: the reference scores {high:g}, not more than random actions ({low:g})")
    return [(x - low) / (high - low) for x, low, high in zip(scores, random, reference, strict=True)]
