"""Intervals: what bootstrap draws, and a jackknife over trunks, say of any quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, t

from analysis.dual import Array

ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Resampled:
    """How draws were made: the stratum of each jackknife value, the trunks there were, and whether those were few.

    `strata` (m,) are the strata in which trunks were resampled, in the order of the jackknife's values.
    """

    strata: tuple[int, ...] = ()
    n_trunks: int = 0
    few: bool = False


ALONE = Resampled()
"""Draws of which nothing is known."""


def quantiles(
    probabilities: Sequence[float] | Array, estimate: Any, draws: Any, jackknife: Any = None, how: Resampled = ALONE
) -> Array:
    """Bias-corrected and accelerated (BCa) bootstrap quantiles (len(probabilities), ...) of every quantity.

    `estimate` (...) is the value on all runs, `draws` (B, ...) that of each resample, `jackknife` (m, ...) that without
    each trunk. The quantile of p is that of the draws at Phi(z0 + (z0 + z)/(1 - a (z0 + z))): z the normal quantile of p, z0
    that of the share of draws below the estimate, a the acceleration (Efron 1987, "Better bootstrap confidence
    intervals"). Plain percentiles cover too much where trunks are many, because resamples of a robust estimate spread
    more than the estimate does. Where trunks are `few`, resamples spread too little and the corrections overshoot: z is
    sqrt(m/(m - 1)) t_(m-1)(p) for m trunks there (expanded percentiles, Hesterberg 2015, arXiv 1411.5279), and the wider
    of corrected and plain is taken (`benchmarks.coverage`). Without a jackknife a = 0. Draws that are not a number are
    left out.
    """
    shape = np.shape(draws)[1:]
    values = np.sort(np.asarray(draws, dtype=float).reshape(len(draws), -1), axis=0)  # not-a-numbers come last
    centre = np.broadcast_to(np.asarray(estimate, dtype=float), shape).ravel()
    known = np.maximum(np.sum(~np.isnan(values), axis=0), 1)
    share = (np.sum(values < centre, axis=0) + 0.5 * np.sum(values == centre, axis=0)) / known
    z0 = norm.ppf(np.clip(share, 0.5 / known, 1 - 0.5 / known))
    a = acceleration(jackknife, how.strata) if jackknife is not None else np.zeros(values.shape[1])
    asked = np.asarray(probabilities, dtype=float)[:, None]
    plain = norm.ppf(asked)
    if how.few:
        plain = np.sqrt(how.n_trunks / (how.n_trunks - 1)) * t.ppf(asked, how.n_trunks - 1)
    moved = z0 + (z0 + plain) / np.maximum(1.0 - a * (z0 + plain), 1e-3)
    if how.few:
        moved = np.where(asked < 0.5, np.minimum(moved, plain), np.maximum(moved, plain))
    place = norm.cdf(moved) * (known - 1)
    below = np.floor(place).astype(int)
    columns = np.arange(values.shape[1])
    low, high = values[below, columns], values[np.minimum(below + 1, known - 1), columns]
    with np.errstate(invalid="ignore"):  # between two infinities
        found = np.where(low == high, low, low + (place - below) * (high - low))
    return np.asarray(found.reshape(len(found), *shape), dtype=float)


def interval(estimate: Any, draws: Any, jackknife: Any = None, how: Resampled = ALONE) -> tuple[Array, Array]:
    """The 95 % interval of every quantity: `quantiles` at .025 and .975."""
    low, high = quantiles(ENDS, estimate, draws, jackknife, how)
    return low, high


def acceleration(jackknife: Any, strata: Sequence[int] = ()) -> Array:
    """The acceleration of each quantity, a sixth of the skewness of its influence values over the root of their number.

    a = sum l^3 / (6 (sum l^2)^1.5), l = (n_s - 1)/n_s (mean_s - value), mean_s over the n_s trunks of the same stratum
    (Davison and Hinkley 1997, section 5.3.2, with its extension to several samples). Zero where nothing moves.
    """
    values = np.asarray(jackknife, dtype=float).reshape(len(jackknife), -1)
    values = np.where(np.isfinite(values), values, np.nan)
    groups = np.asarray(strata) if len(strata) else np.zeros(len(values), dtype=int)
    influence = np.zeros_like(values)
    for group in np.unique(groups):
        inside = groups == group
        known = np.sum(~np.isnan(values[inside]), axis=0)
        mean = np.nansum(values[inside], axis=0) / np.maximum(known, 1)
        influence[inside] = np.nan_to_num((known - 1) / np.maximum(known, 1) * (mean - values[inside]))
    spread = np.sum(influence**2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.sum(influence**3, axis=0) / (6.0 * spread**1.5))
