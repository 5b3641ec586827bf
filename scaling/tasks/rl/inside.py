"""What is measured inside a network: dormant units of each expert, and the rank of what the head reads.

Axes: E experts of F hidden units, R rows of an expert, B observations, H features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
DORMANT = 0.025
ROWS = 2048  # of an expert that dormancy is judged by, the same for every arm
RANK_ROWS = 1024  # observations that the effective rank is judged by


@dataclass(frozen=True)
class Dormancy:
    """Shares of hidden units by expert, [E].

    dormant: score of at most `DORMANT`.   silent: never active.   idle: whether no row reached the expert; all its
    units are then dormant and silent.
    """

    dormant: Floats
    silent: Floats
    idle: NDArray[np.bool_]


def dormancy(
    hidden_ExRxF: Floats, reached_ExR: NDArray[np.bool_], rng: np.random.Generator, rows: int = ROWS
) -> Dormancy:
    """Dormant units of each expert, by its own rows alone (Sokar et al., arXiv 2302.12902, definition 3.1):

        s_i = mean |h_i| / mean over units j of mean |h_j|,    means over rows;    dormant where s_i <= tau

    At most `rows` rows that reached the expert are used, drawn at random: with more rows fewer units seem silent, so
    arms with more rows an observation would have fewer. Published figures of Soft MoE average activations over experts
    first, which counts a unit only if it is silent in all of them.
    """
    dormant, silent, idle = [], [], []
    for hidden_RxF, reached_R in zip(hidden_ExRxF, reached_ExR, strict=True):
        found = np.flatnonzero(reached_R)
        if len(found) > rows:
            found = np.sort(rng.choice(found, rows, replace=False))
        idle.append(not len(found))
        strength_F = np.mean(np.abs(hidden_RxF[found]), axis=0) if len(found) else np.zeros(hidden_RxF.shape[-1])
        typical = np.mean(strength_F)
        score_F = strength_F / typical if typical > 0 else np.zeros_like(strength_F)
        dormant.append(np.mean(score_F <= DORMANT))
        silent.append(np.mean(strength_F == 0))
    return Dormancy(np.array(dormant), np.array(silent), np.array(idle))


def spread_rows(count: int, most: int) -> NDArray[np.intp]:
    """Places of at most so many of `count` rows, evenly spread over all."""
    taken = min(count, most)
    return np.arange(taken) * count // taken


def effective_rank(features_BxH: Floats, share: float = 0.99) -> int:
    """The fewest singular values that hold `share` of the sum of all (srank, Kumar et al., arXiv 2010.14498, section 3)
    of the features of B observations; at most B, and 0 where all features are 0."""
    singular = np.linalg.svd(np.asarray(features_BxH, dtype=float), compute_uv=False)
    total = np.sum(singular)
    if total == 0:
        return 0
    return int(np.searchsorted(np.cumsum(singular) / total, share - 1e-12) + 1)
