"""Stratified bootstrap over runs within games, with percentile intervals (arXiv 2108.13264, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.returns.statistics import Scores
from scaling.arrays import Array
from scaling.formatting import listed

DRAWS = 50_000
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; without ends where a game has one run, which says nothing of another."""

    estimate: float
    low: float | None
    high: float | None

    def above(self, value: float) -> bool:
        """Whether the interval lies wholly above the value."""
        return self.low is not None and self.low > value

    def below(self, value: float) -> bool:
        """Whether it lies wholly below."""
        return self.high is not None and self.high < value

    def excludes(self, value: float) -> bool:
        """Whether it lies wholly on one side of the value."""
        return self.above(value) or self.below(value)

    def within(self, margin: float) -> bool:
        """Whether it lies between -margin and margin."""
        return self.low is not None and self.high is not None and -margin <= self.low and self.high <= margin

    def text(self, form: str, words: str = "({} to {})") -> str:
        """`0.912 (0.850 to 0.974)`; `0.912 (one run)` without ends."""
        if self.low is None or self.high is None:
            return f"{self.estimate:{form}} (one run)".replace("-", "−")
        ends = words.format(f"{self.low:{form}}", f"{self.high:{form}}")
        return f"{self.estimate:{form}} {ends}".replace("-", "−")


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


def interval(estimate: Array | float, draws: Array, fewest: int) -> Interval:
    """The 2.5 and 97.5 percentiles of the draws of one statistic beside its estimate. fewest: runs of the game that has
    fewest; resamples of one run are all the same."""
    if fewest < 2:
        return Interval(float(estimate), None, None)
    low, high = np.quantile(draws, _QUANTILES)
    return Interval(float(estimate), float(low), float(high))


def band(x: Array, estimate_K: Array, draws_DxK: Array) -> Band:
    """The same at each of K places."""
    low_K, high_K = np.quantile(draws_DxK, _QUANTILES, axis=0)
    x_, estimate, low, high = (tuple(map(float, values)) for values in (x, estimate_K, low_K, high_K))
    return Band(x_, estimate, low, high)


def opposed(by_game: Mapping[str, Interval]) -> str:
    """`above 0 in asterix, below 0 in breakout`: differences of both signs, each by more than chance; else empty."""
    above = [game for game, found in by_game.items() if found.above(0.0)]
    below = [game for game, found in by_game.items() if found.below(0.0)]
    return f"above 0 in {listed(above)}, below 0 in {listed(below)}" if above and below else ""
