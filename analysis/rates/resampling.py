"""Averages of cells over replicates, and their bootstrap.

A cell holds one value a replicate. Cells with the same replicates are resampled together: the same replicate may have
drawn the same data in each of them, and where it has not, resampling them together is right as well. Cells with other
replicates are resampled apart, which is wide for those that share some.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fitting.bca import Resampled, interval
from analysis.rates.question import Average
from scaling.arrays import Array, Booleans

Identities = tuple[Hashable, ...]
MANY, FEW = 50, 10  # replicates from which intervals need no widening by Student's t, and from which they hold 95 %
FEWEST = 5  # replicates of an interval: resamples of fewer repeat each other
_AT_ONCE = 10_000_000  # weights in memory: 80 MB
_EXACT = 1e-12  # of a value: smaller differences of replicates are rounding
_MOST_LEFT_OUT = 1_000  # replicates; of more, the skewness of an average does not matter


@dataclass(frozen=True, eq=False)
class Cell:
    """The values of one configuration at one level: `values[i]` is that of the replicate `identities[i]`."""

    identities: Identities
    values: Array


@dataclass(frozen=True, eq=False)
class Averages:
    """Natural logarithms of the averages of C cells: of all replicates (C,), of B resamples (B, C), and without one
    replicate each (J, C); NaN where an average is not positive.

    `known` are the cells whose spread is: those of five replicates and more that differ.
    """

    estimate: Array
    draws: Array
    without: Array
    resampled: Resampled
    known: Booleans

    def interval(self, estimate: Array, draws: Array, without: Array) -> tuple[Array, Array]:
        """The 95 % intervals of quantities (Q,) from their draws (B, Q) and jackknife values (J, Q)
        (`analysis.fitting.bca.quantiles`)."""
        return interval(estimate, draws, without if len(without) else None, self.resampled)


def averages(cells: Sequence[Cell], average: Average, draws: int, rng: np.random.Generator) -> Averages:
    """Averages of the cells, `draws` resamples of their replicates, and a jackknife over them."""
    groups: dict[Identities, list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(tuple(sorted(cell.identities, key=str)), []).append(place)
    estimate = np.empty(len(cells))
    drawn = np.empty((draws, len(cells)))
    left_out: list[tuple[list[int], Array]] = []
    for identities, places in groups.items():
        values = np.stack([_in_order(cells[place], identities) for place in places], axis=1)
        count = len(identities)
        estimate[places] = log_averages(values, np.ones((1, count)), average)[0]
        step = max(1, _AT_ONCE // count)
        for first in range(0, draws, step):
            weights = rng.multinomial(count, np.full(count, 1 / count), size=min(step, draws - first)).astype(float)
            drawn[first : first + step, places] = log_averages(values, weights, average)
        if 1 < count <= _MOST_LEFT_OUT:
            left_out.append((places, log_averages(values, 1.0 - np.eye(count), average)))
    strata, without = [], [np.empty((0, len(cells)))]
    for stratum, (places, of_group) in enumerate(left_out):
        rows = np.repeat(estimate[None], len(of_group), axis=0)
        rows[:, places] = of_group
        strata += [stratum] * len(of_group)
        without.append(rows)
    counts = [len(identities) for identities in groups]
    several = [count for count in counts if count > 1]
    least = min(several, default=0)
    resampled = Resampled(
        strata=tuple(strata),
        n_trunks=sum(several),
        supply="many" if least >= MANY else "scarce",
    )
    known = np.array([len(cell.values) >= FEWEST and _differ(cell.values) for cell in cells])
    return Averages(estimate, drawn, np.concatenate(without), resampled, known)


def log_averages(values: Array, weights: Array, average: Average) -> Array:
    """The logarithm of the weighted average of each column of values (R, C), for rows of weights (B, R): (B, C).

    Weights are counts of how often a replicate occurs. NaN where the average is not positive.
    """
    counts = np.asarray(weights, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        if average == "geometric":
            return np.asarray(counts @ np.log(values) / counts.sum(axis=1, keepdims=True))
        plain = _medians(values, counts) if average == "median" else counts @ values / counts.sum(axis=1, keepdims=True)
        return np.asarray(np.where(plain > 0, np.log(plain), np.nan))


def _medians(values: Array, counts: Array) -> Array:
    """Medians of values that occur so often: the mean of the two in the middle where their number is even."""
    total = counts.sum(axis=1, keepdims=True)
    found = np.empty((len(counts), values.shape[1]))
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column], kind="stable")
        up_to = np.cumsum(counts[:, order], axis=1)
        sorted_values = values[order, column]
        lower, upper = (np.argmax(up_to >= np.floor(rank), axis=1) for rank in ((total + 1) / 2, total / 2 + 1))
        found[:, column] = (sorted_values[lower] + sorted_values[upper]) / 2
    return found


def _differ(values: Array) -> bool:
    return bool(np.ptp(values) > _EXACT * np.max(np.abs(values)))


def _in_order(cell: Cell, identities: Identities) -> Array:
    """The values of a cell in the order of these identities."""
    place = {identity: index for index, identity in enumerate(cell.identities)}
    return cell.values[[place[identity] for identity in identities]]
