"""What training costs in time: the seconds that a device takes for one training token of a model.

`seconds(models, on)` are device-seconds a token at the estimate; with `drawn` (rows, coefficients) of `draws` they are
(rows, models), so that whoever carries draws on meets one a row. Every E is met with a scatter of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from scipy.special import ndtri

from scaling.arrays import Array, Values
from scaling.bounds import LEAST_SHARE
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.device import Device
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.service import ModelSizes
from scaling.serving.training_work import LEAST, TERMS, TrainingWork

_STEEPEST = 5.0  # of a slope, or of a standard deviation of ln(time)
_SHORTEST = 1e-9  # tokens of a sequence whose attention takes no time
_COMMON = 0.5  # of the variance of the scatter: an assumption, as for engines (`analysis.latency.speeds`)


class TrainedModels(Protocol):
    """Models of one E, by what every training speed reads."""

    @property
    def n_active(self) -> Values: ...

    @property
    def n_experts(self) -> int: ...


@dataclass(frozen=True)
class MfuByExperts:
    """A share of the device's peak that falls with the experts: MFU(E) = `mfu` (E / `at`)^-`slope`, 1 at most.

    MFU counts 6 N_active FLOPs a token (PaLM, arXiv 2204.02311, without attention). `mfu_spread` is the standard
    deviation of ln `mfu`, common to all E, `slope_spread` that of the slope, `scatter` that of ln(time) of one E.
    `measured_at`: the E that were measured (empty: none); `error`: the largest relative error there.
    """

    name: str
    mfu: float
    slope: float
    source: str
    mfu_spread: float = 0.0
    slope_spread: float = 0.0
    scatter: float = 0.0
    at: float = 1.0
    measured_at: tuple[int, ...] = ()
    error: float | None = None
    date: str = "not dated"
    needs_structure: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not LEAST_SHARE <= self.mfu <= 1:
            raise InputError(f"`mfu` must be above 0 (at least {LEAST_SHARE:g}) and at most 1, found {self.mfu:g}")
        for name in ("slope", "mfu_spread", "slope_spread", "scatter"):
            if not 0 <= getattr(self, name) <= _STEEPEST:
                raise InputError(f"`{name}` must be from 0 to {_STEEPEST:g}, found {getattr(self, name):g}")
        if not self.at >= 1:
            raise InputError(f"`at` is a number of experts, at least 1, found {self.at:g}")

    def mfu_at(self, n_experts: int) -> float:
        """The share of the peak at this E."""
        return float(min(1.0, self.mfu * (n_experts / self.at) ** -self.slope))

    def seconds(self, models: TrainedModels, on: Device, drawn: Array | None = None) -> Array:
        """Device-seconds a training token: 6 N_active / (peak MFU(E))."""
        at_peak = 6.0 * np.asarray(models.n_active, dtype=float) / on.peak_flops
        if drawn is None:
            return np.asarray(at_peak / self.mfu_at(models.n_experts))
        times = drawn[:, :1] * (models.n_experts / self.at) ** drawn[:, 1:]
        return np.asarray(np.maximum(times, 1.0) * at_peak)

    def draws(self, count: int, n_experts: int) -> Array:
        """So many rows of 1/MFU at E = `at`, with the scatter of this E in it, and the slope."""
        common, slopes, own = (_normal(count, *seed) for seed in ((1,), (2,), (3, n_experts)))
        factor = np.exp(self.mfu_spread * common + self.scatter * own) / self.mfu
        return np.stack([factor, np.maximum(self.slope + self.slope_spread * slopes, 0.0)], axis=1)

    def mfu_of(self, models: TrainedModels, on: Device) -> Array:
        """The share of the peak that is reached."""
        return 6.0 * np.asarray(models.n_active, dtype=float) / (on.peak_flops * self.seconds(models, on))


@dataclass(frozen=True)
class TrainingLaw:
    """Device-seconds a token as a sum of terms: a coefficient for each of `training_work.TERMS`, none negative.

    `drawn`: coefficients refitted to bootstrap samples, one a row. `scatter`: standard deviation of ln(time) of a
    configuration that the fit has not seen; half of its variance is taken as common to all E, half as each E's own.
    `error`: the median relative error of configurations left out (None: not measured). A model is priced at the
    `batch_tokens` of a step on one device (None: what a step does once was not measured), in sequences of `seq_len`
    (None: nor was attention), on `devices` data-parallel ones; `loops` is of the experts' kernel. `absent`: the terms
    that no row had. `domain`: the E, k and ranges that were measured, tokens of a step on one device as its batch,
    sequences as its context. `device`: with the peaks that the coefficients refer to, which hold for a device of that
    name: a CPU's are measured, and beside other work they come out lower.
    """

    name: str
    coefficients: tuple[float, ...]
    drawn: tuple[tuple[float, ...], ...]
    scatter: float
    source: str
    batch_tokens: float | None
    seq_len: float | None
    domain: MeasuredRange
    error: float | None = None
    date: str = "not dated"
    devices: float = 1
    loops: bool = False
    absent: tuple[str, ...] = ()
    device: Device | None = None
    needs_structure: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, row in (("coefficients", self.coefficients), *((f"drawn[{i}]", r) for i, r in enumerate(self.drawn))):
            if len(row) != len(TERMS):
                raise InputError(f"`{name}` has {len(row)} values; it needs one each for {listed(TERMS, most=20)}")
            below = np.flatnonzero(~((np.array(row) >= LEAST * (1 - 1e-9)) & np.isfinite(row)))
            if len(below):
                term = below[0]
                raise InputError(f"`{name}`[{term}] is {row[term]:g}; {[*TERMS][term]}: at least {LEAST[term]:g}")
        for name in ("batch_tokens", "seq_len", "devices"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < np.inf:
                raise InputError(f"`{name}` must be at least 1, found {value:g}")
        if not 0 <= self.scatter < np.inf:
            raise InputError(f"`scatter` must be at least 0, found {self.scatter:g}")

    def work(self, models: ModelSizes) -> TrainingWork:
        """What a token of these models asks, at this law's batch, sequences and devices."""
        tokens, length = self.batch_tokens or np.inf, self.seq_len or _SHORTEST
        return TrainingWork.of(models, tokens, length, self.devices, loops=self.loops)

    def peaks(self, on: Device) -> Device:
        """The device with the peaks that the coefficients refer to."""
        return self.device if self.device is not None and self.device.name == on.name else on

    def seconds(self, models: ModelSizes, on: Device, drawn: Array | None = None) -> Array:
        """Device-seconds a training token; with rows of `draws`, (rows, models)."""
        terms = self.work(models).terms(self.peaks(on))
        factors = np.array(self.coefficients) if drawn is None else drawn
        return np.asarray(np.tensordot(factors, terms, axes=1))

    def draws(self, count: int, n_experts: int) -> Array:
        """So many rows of coefficients, with the scatter of this E in them; none faster than the data sheet."""
        rows = np.array(self.drawn or (self.coefficients,))
        rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
        common, own = _normal(count, 1), _normal(count, 3, n_experts)
        off = self.scatter * (np.sqrt(_COMMON) * common + np.sqrt(1 - _COMMON) * own)
        return np.maximum(rows * np.exp(off)[:, None], LEAST)

    def mfu_of(self, models: ModelSizes, on: Device) -> Array:
        """The share of the peak that is reached, of 6 N_active FLOPs a token; embeddings, which are looked up, may
        bring it above 1."""
        return 6.0 * np.asarray(models.n_active, dtype=float) / (self.peaks(on).peak_flops * self.seconds(models, on))


TrainingSpeed = MfuByExperts | TrainingLaw
"""What prices a training token."""


def _normal(count: int, *seed: int) -> Array:
    """Evenly spread quantiles of a normal variable, in an order of their own for each seed."""
    levels = ndtri((np.arange(count) + 0.5) / count)
    return np.random.default_rng([*seed, count]).permutation(levels)
