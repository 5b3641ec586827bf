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
from scaling.serving.device import Device


class TrainedModels(Protocol):
    """Models of one E, by what every training speed reads."""

    @property
    def n_active(self) -> Values: ...

    @property
    def n_experts(self) -> int: ...


@dataclass(frozen=True)
class MfuByExperts:
    """A share of the device's peak that falls with the experts: MFU(E) = `mfu` E^-`slope`.

    MFU counts 6 N_active FLOPs a token (PaLM, arXiv 2204.02311, without attention). `mfu_spread` is the standard
    deviation of ln `mfu`, common to all E, `slope_spread` that of the slope, `scatter` that of ln(time) of one E.
    """

    name: str
    mfu: float
    slope: float
    source: str
    mfu_spread: float = 0.0
    slope_spread: float = 0.0
    scatter: float = 0.0
    needs_structure: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not LEAST_SHARE <= self.mfu <= 1:
            raise InputError(f"`mfu` must be above 0 (at least {LEAST_SHARE:g}) and at most 1, found {self.mfu:g}")

    def seconds(self, models: TrainedModels, on: Device, drawn: Array | None = None) -> Array:
        """Device-seconds a training token: 6 N_active / (peak MFU(E))."""
        at_peak = 6.0 * np.asarray(models.n_active, dtype=float) / on.peak_flops
        if drawn is None:
            return np.asarray(at_peak / self.mfu * models.n_experts**self.slope)
        return at_peak * (drawn[:, :1] * models.n_experts ** drawn[:, 1:])

    def draws(self, count: int, n_experts: int) -> Array:
        """So many rows of 1/MFU(1), with the scatter of this E in it, and the slope."""
        levels = ndtri((np.arange(count) + 0.5) / count)
        common, slopes = (np.random.default_rng([seed, count]).permutation(levels) for seed in (1, 2))
        own = np.random.default_rng([3, n_experts, count]).permutation(levels)
        factor = np.exp(self.mfu_spread * common + self.scatter * own) / self.mfu
        return np.stack([factor, self.slope + self.slope_spread * slopes], axis=1)

    def mfu_of(self, models: TrainedModels, on: Device) -> Array:
        """The share of the peak that is reached."""
        return 6.0 * np.asarray(models.n_active, dtype=float) / (on.peak_flops * self.seconds(models, on))
