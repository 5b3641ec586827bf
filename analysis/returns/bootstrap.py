"""Stratified bootstrap over runs within games, with percentile intervals (arXiv 2108.13264, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.returns.statistics import Scores
from scaling.arrays import Array

DRAWS = 50_000
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval lies wholly on one side of the value."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class Band:
    """Estimates at the places `x`, with pointwise 95 % intervals."""

    x: tuple[float, ...]
    estimate: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def resampled(scores: Scores, draws: int, rng: np.random.Generator) -> list[Array]:
    """For each game `draws` samples of its N_m runs with replacement, independent of the other games: [draws, N_m].

    Runs with K values each, [N_m, K], give [draws, N_m, K].

    Few runs give few distinct samples: 126 of 5, 92,378 of 10. Games are not resampled: an interval says how other
    seeds would do on these games, not how other games would.
    """
    return [values[rng.integers(len(values), size=(draws, len(values)))] for values in scores]


def interval(estimate: Array | float, draws: Array) -> Interval:
    """The 2.5 and 97.5 percentiles of the draws of one statistic beside its estimate."""
    low, high = np.quantile(draws, _QUANTILES)
    return Interval(float(estimate), float(low), float(high))


def band(x: Array, estimate_K: Array, draws_DxK: Array) -> Band:
    """The same at each of K places."""
    low_K, high_K = np.quantile(draws_DxK, _QUANTILES, axis=0)
    x_, estimate, low, high = (tuple(map(float, values)) for values in (x, estimate_K, low_K, high_K))
    return Band(x_, estimate, low, high)
