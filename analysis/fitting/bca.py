"""BCa intervals of any quantity from bootstrap draws and a jackknife over trunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from scaling.arrays import Array

ENDS = (0.025, 0.975)
Supply = Literal["many", "few", "scarce"]


@dataclass(frozen=True)
class Resampled:
    """The resampling behind draws.

    `strata` (m,) are the strata of trunks, in the order of the jackknife values; `supply` classes the number of trunks
    per free parameter of the law. `plain` draws are of several laws, and their quantiles are taken as they are: an
    estimate between two laws says nothing of a bias of the draws.
    """

    strata: tuple[int, ...] = ()
    n_trunks: int = 0
    supply: Supply = "many"
    plain: bool = False

    @property
    def widening(self) -> float:
        """sqrt(n/(n - 1)), averaged over the trunks of strata of n: resamples of n spread too little by that factor."""
        _, counts = np.unique(self.strata, return_counts=True)
        sizes = np.maximum(counts, 2)
        return float(np.sqrt(np.sum(counts * sizes / (sizes - 1)) / np.sum(counts))) if len(counts) else 1.0

    def normal_quantile(self, probability: Any) -> Array:
        """The normal quantile for many trunks, widened for few; for scarce ones that of Student's t with trunks minus
        strata degrees of freedom, widened (expanded percentiles, Hesterberg 2015, arXiv 1411.5279)."""
        if self.supply == "many":
            return np.asarray(ndtri(probability))
        freedom = np.inf if self.supply == "few" else max(1, self.n_trunks - len(set(self.strata) or {0}))
        return np.asarray(self.widening * stdtrit(freedom, probability))


UNSPECIFIED = Resampled()
"""Draws of unknown origin, treated as from many trunks."""


def quantiles(
    probabilities: Sequence[float] | Array,
    estimate: Any,
    draws: Any,
    jackknife: Any = None,
    resampled: Resampled = UNSPECIFIED,
    of_runs: Any = 1.0,
) -> Array:
    """Bootstrap quantiles (len(probabilities), ...) of every quantity.

    `estimate` (...) is the value on all runs, `draws` (B, ...) that of each resample, `jackknife` (m, ...) that without
    each trunk (without it a = 0). `of_runs` (...) is the share of the draws' variance that resampled runs cause, where
    something else varies in them too, such as a speed: skewness adds up as cubes, so a counts its power 3/2. With z the
    normal quantile of p, z0 that of the share of draws below the estimate and a the acceleration, the quantile of p is
    that of the draws at Phi of

    * many trunks: c(z) = z0 + (z0 + z)/(1 - a (z0 + z)), the BCa interval (Efron 1987, "Better bootstrap confidence
      intervals"). Plain percentiles are too wide here: resamples of a robust estimate spread more than it does;
    * few: (z + c(z))/2 with z widened, because the correction overshoots and resamples of few trunks spread too little;
    * scarce: the wider of z and c(z), with z a widened quantile of Student's t (`Resampled.normal_quantile`).

    `benchmarks.coverage` measures the coverage of each. NaN draws are left out.
    """
    shape = np.shape(draws)[1:]
    values = np.sort(np.asarray(draws, dtype=float).reshape(len(draws), -1), axis=0)  # NaN come last
    centre = np.broadcast_to(np.asarray(estimate, dtype=float), shape).ravel()
    n_draws = np.maximum(np.sum(~np.isnan(values), axis=0), 1)
    share = (np.sum(values < centre, axis=0) + 0.5 * np.sum(values == centre, axis=0)) / n_draws
    z0 = ndtri(np.clip(share, 0.5 / n_draws, 1 - 0.5 / n_draws))
    a = acceleration(jackknife, resampled.strata) if jackknife is not None else np.zeros(values.shape[1])
    a = a * np.broadcast_to(np.asarray(of_runs, dtype=float), shape).ravel() ** 1.5
    probability = np.asarray(probabilities, dtype=float)[:, None]
    plain = resampled.normal_quantile(probability)
    corrected = z0 + (z0 + plain) / np.maximum(1.0 - a * (z0 + plain), 1e-3)
    if resampled.plain:
        corrected = np.broadcast_to(plain, corrected.shape)
    elif resampled.supply == "few":
        corrected = 0.5 * (plain + corrected)
    elif resampled.supply == "scarce":
        corrected = np.where(probability < 0.5, np.minimum(corrected, plain), np.maximum(corrected, plain))
    place = ndtr(corrected) * (n_draws - 1)
    below = np.floor(place).astype(int)
    columns = np.arange(values.shape[1])
    low, high = values[below, columns], values[np.minimum(below + 1, n_draws - 1), columns]
    with np.errstate(invalid="ignore"):  # between two infinities
        between = np.where(low == high, low, low + (place - below) * (high - low))
    return np.asarray(between.reshape(len(between), *shape), dtype=float)


def interval(
    estimate: Any, draws: Any, jackknife: Any = None, resampled: Resampled = UNSPECIFIED, of_runs: Any = 1.0
) -> tuple[Array, Array]:
    """The 95 % interval of every quantity: `quantiles` at .025 and .975."""
    low, high = quantiles(ENDS, estimate, draws, jackknife, resampled, of_runs)
    return low, high


def acceleration(jackknife: Any, strata: Sequence[int] = ()) -> Array:
    """The acceleration of each quantity: a = sum l^3 / (6 (sum l^2)^1.5), zero without variation.

    l = (n_s - 1)/n_s (mean_s - value), with mean_s over the n_s trunks of a stratum (Davison and Hinkley 1997, section
    5.3.2, extended to several samples).
    """
    values = np.asarray(jackknife, dtype=float).reshape(len(jackknife), -1)
    values = np.where(np.isfinite(values), values, np.nan)
    groups = np.asarray(strata) if len(strata) else np.zeros(len(values), dtype=int)
    influence = np.zeros_like(values)
    for group in np.unique(groups):
        inside = groups == group
        count = np.sum(~np.isnan(values[inside]), axis=0)
        mean = np.nansum(values[inside], axis=0) / np.maximum(count, 1)
        influence[inside] = np.nan_to_num((count - 1) / np.maximum(count, 1) * (mean - values[inside]))
    spread = np.sum(influence**2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.sum(influence**3, axis=0) / (6.0 * spread**1.5))
