"""The prior of exponents: how they differ between published fits, for runs that are too few to resample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prior:
    """Mean and standard deviation of the ln of exponents, over `n_fits` published fits.

    `noise` is the deviation of ln loss of a run: that of published laws, or what runs and they together say.
    """

    exponents: Mapping[str, tuple[float, float]]
    noise: float
    n_fits: int
