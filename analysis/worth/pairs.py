"""Worth without a law: cells of one E against the cells of the baseline in the same table, by interpolation alone.

Where the baseline first reaches a cell's loss is read from a curve through its cells, ln C linear in ln L between
neighbours, as far as each improves on those of less compute; never beyond them. The curve is that of the cells that
share all but E and tokens (`same shape`), or of all cells of the baseline (`all shapes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.worth.cells import Cells
from analysis.worth.speedup import Interval, Sample, factor, factors, span, times
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.formatting import listed

Curve = Literal["same shape", "all shapes"]
CURVES: tuple[Curve, ...] = ("same shape", "all shapes")
_DRAWS, _SEED = 1_000, 0
_BELOW = "its loss lies below that of every baseline cell: more than {times:.3g}x, beyond what was run"
_ABOVE = "its loss lies above that of every baseline cell: it is matched by less than any of them took"
_FEW = "the baseline has fewer than two cells of this shape"


@dataclass(frozen=True)
class Pair:
    """One cell against a curve of the baseline. A speedup is None where `reason` says why; intervals hold the noise
    between seeds, and are None where no cell was repeated."""

    n_experts: int
    curve: Curve
    train_flops: float
    tokens: float
    n_active: float | None
    loss: float
    seeds: int
    compute_speedup: float | None
    compute_interval: Interval | None = None
    time_speedup: float | None = None
    time_interval: Interval | None = None
    reason: str = ""


@dataclass(frozen=True)
class PairedSpeedup:
    """The geometric mean over the cells of one E that the curve reaches; `beyond` counts those whose loss no baseline
    cell reaches, which are worth more than the mean says."""

    n_experts: int
    curve: Curve
    n_pairs: int
    beyond: int
    compute_speedup: float | None
    compute_interval: Interval | None
    time_speedup: float | None
    time_interval: Interval | None

    def sentence(self) -> str:
        """The mean in words."""
        parts = (
            [f"{times(self.compute_speedup)} the compute{span(self.compute_interval)}"] if self.compute_speedup else []
        )
        parts += [f"{times(self.time_speedup)} the time{span(self.time_interval)}"] if self.time_speedup else []
        of = "of its width" if self.curve == "same shape" else "of any width"
        return f"E = {self.n_experts} is worth {', '.join(parts)} of cells {of}"


def paired_speedups(cells: Cells, baseline_experts: int = 1) -> tuple[tuple[Pair, ...], tuple[PairedSpeedup, ...]]:
    """Every cell of another E against both curves of the baseline, and the means by E.

    Noise: every cell's ln loss is drawn anew, normal with the deviation between seeds over the root of its seeds, that
    deviation itself drawn with its degrees of freedom. Raises InputError where the baseline or others have no cell.
    """
    others = [int(e) for e in np.unique(cells.experts) if e != baseline_experts]
    if not np.any(cells.experts == baseline_experts):
        raise InputError(f"no run has E = {baseline_experts}; there are E = {listed(others)}: give `baseline_experts`")
    if not others:
        raise InputError(f"every run has E = {baseline_experts}: there is nothing to compare")
    noise = _noise(cells)
    pairs: list[Pair] = []
    means: list[PairedSpeedup] = []
    for curve in CURVES:
        for e in others:
            rows = np.flatnonzero(cells.experts == e)
            found = [_Matched.of(cells, int(row), curve, baseline_experts, noise) for row in rows]
            pairs += [one.pair(cells, curve) for one in found]
            means.append(_mean(found, e, curve))
    return tuple(pairs), tuple(means)


def _noise(cells: Cells) -> Array | None:
    """Noise of every cell's ln loss (draws, cells); None where no cell was repeated."""
    if cells.noise is None:
        return None
    rng = np.random.default_rng(_SEED)
    deviation = cells.noise * np.sqrt(cells.freedom / rng.chisquare(cells.freedom, _DRAWS))
    return deviation[:, None] / np.sqrt(cells.seeds) * rng.standard_normal((_DRAWS, len(cells)))


@dataclass(frozen=True)
class _Matched:
    """ln of the ratio of compute, and of time where it was measured; infinite beyond the curve."""

    row: int
    compute: Sample
    time: Sample | None
    few: bool
    most: float  # ln of the largest ratio that the curve could show

    @classmethod
    def of(cls, cells: Cells, row: int, curve: Curve, baseline_experts: int, noise: Array | None) -> _Matched:
        dense = cells.experts == baseline_experts
        if curve == "same shape":
            dense = dense & (cells.shape == cells.shape[row])
        few = len(np.unique(cells.log_flops[dense])) < 2
        compute = _sample(cells, row, dense, cells.log_flops, noise)
        time = None if cells.log_seconds is None else _sample(cells, row, dense, cells.log_seconds, noise)
        most = float(cells.log_flops[dense].max() - cells.log_flops[row]) if dense.any() else 0.0
        return cls(row, compute, time, few, most)

    @property
    def beyond(self) -> bool:
        """Whether no baseline cell reaches the loss."""
        return not self.few and bool(np.isposinf(self.compute.estimate))

    def pair(self, cells: Cells, curve: Curve) -> Pair:
        cell = cells.frame.iloc[self.row]
        value = None if self.few else self.compute.value
        reason = ""
        if value is None:
            reason = _FEW if self.few else _BELOW.format(times=np.exp(self.most)) if self.beyond else _ABOVE
        time = None if value is None else self.time
        return Pair(
            n_experts=int(cells.experts[self.row]),
            curve=curve,
            train_flops=float(np.exp(cells.log_flops[self.row])),
            tokens=float(cell["tokens"]),
            n_active=float(cell["n_active"]) if "n_active" in cell else None,
            loss=float(np.exp(cells.log_loss[self.row])),
            seeds=int(cells.seeds[self.row]),
            compute_speedup=factor(value),
            compute_interval=None if value is None else factors(self.compute.interval),
            time_speedup=None if time is None else factor(time.value),
            time_interval=None if time is None else factors(time.interval),
            reason=reason,
        )


def _sample(cells: Cells, row: int, dense: Booleans, log_cost: Array, noise: Array | None) -> Sample:
    """ln of what the baseline takes over what the cell takes; estimate and draws."""
    if not dense.any():
        return Sample(np.array(np.nan))
    order = np.flatnonzero(dense)[np.argsort(log_cost[dense], kind="stable")]
    cost = log_cost[order] - log_cost[row]
    estimate = first_reached(cells.log_loss[order][None], cost, cells.log_loss[[row]])[0]
    if noise is None:
        return Sample(np.asarray(estimate))
    losses = cells.log_loss + noise
    return Sample(np.asarray(estimate), first_reached(losses[:, order], cost, losses[:, row]))


def first_reached(log_losses: Array, log_cost: Array, wanted: Array) -> Array:
    """ln of the least cost at which curves (rows, points) by rising `log_cost` (points,) first reach ln losses `wanted`
    (rows,): linear between the points that improve on all before; inf below the least loss, -inf above the first."""
    best = np.minimum.accumulate(log_losses, axis=1)
    rows = np.arange(len(best))
    reached = best <= wanted[:, None]
    after = np.argmax(reached, axis=1)
    improves = np.diff(best, axis=1, prepend=np.inf) < 0
    latest = np.maximum.accumulate(np.where(improves, np.arange(best.shape[1]), 0), axis=1)
    before = latest[rows, np.maximum(after - 1, 0)]
    low, high = log_cost[before], log_cost[after]
    before_loss = best[rows, before]
    gap = before_loss - best[rows, after]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(gap > 0, (before_loss - wanted) / gap, 1.0)
    found = low + share * (high - low)
    first = np.where(best[:, 0] == wanted, log_cost[0], -np.inf)
    return np.where(reached.any(axis=1), np.where(after == 0, first, found), np.inf)


def _mean(found: list[_Matched], n_experts: int, curve: Curve) -> PairedSpeedup:
    """The mean of the logarithms over the cells that the curve reaches; a draw beyond the curve counts as its end."""
    usable = [one for one in found if not one.few and one.compute.value is not None]
    compute = _mean_of([one.compute for one in usable])
    time = _mean_of([one.time for one in usable if one.time is not None])
    return PairedSpeedup(
        n_experts=n_experts,
        curve=curve,
        n_pairs=len(usable),
        beyond=sum(one.beyond for one in found),
        compute_speedup=None if compute is None else factor(compute.value),
        compute_interval=None if compute is None else factors(compute.interval),
        time_speedup=None if time is None else factor(time.value),
        time_interval=None if time is None else factors(time.interval),
    )


def _mean_of(samples: list[Sample]) -> Sample | None:
    if not samples:
        return None
    estimate = np.asarray(np.mean([one.estimate for one in samples]))
    draws = list(_finite_draws(samples))
    return Sample(estimate, np.mean(draws, axis=0) if draws else None)


def _finite_draws(samples: list[Sample]) -> Iterator[Array]:
    for one in samples:
        if one.draws is not None:
            finite = one.draws[np.isfinite(one.draws)]
            yield np.clip(one.draws, finite.min(initial=float(one.estimate)), finite.max(initial=float(one.estimate)))
