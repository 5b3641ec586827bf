"""Noise by compute: whether small runs are noisier than large ones, or the reverse, and by how much.

Pooled residuals say how far an average run lies from its law. Where the size of residuals changes with compute, a
smaller or larger run lies closer or further. The change is estimated only where a test shows it, is shrunk by how
clearly it does, and is never continued beyond the runs studied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats
from scipy.special import ndtri

from analysis.fitting.fitted_to import seed_deviations
from analysis.laws import Law
from analysis.tables.runs import RunTable
from scaling.arrays import Array
from scaling.columns import COMPUTE, TOKENS

FALSE_ALARM = 0.05  # share of tables of equal noise in which a change is seen
_LEAST_FREEDOM = 6  # degrees of freedom of the test, and of seeds that take the place of residuals
_LEAST_RANGE = 0.7  # of ln of compute: less shows no change of noise
_MOST_LEVERAGE = 0.9  # a run that the law follows whatever it says has no residual to judge
_OUTLIER = 6.0  # times the median size of residuals, beyond which they count as that
_STEPS = 40


@dataclass(frozen=True)
class NoiseTrend:
    """The size of residuals relative to their pooled size: (compute/centre)^slope, within `least` and `most`.

    Compute is the product of `columns`: N and D, or what of them the law reads. `least` and `most` are those of the
    runs studied. `p_value` is that of equal noise, `source` what showed the change: residuals of runs, or seeds that
    were repeated. `standardised` are the residuals of the fit, each divided by the relative size at its run.
    """

    columns: tuple[str, ...]
    slope: float
    centre: float
    least: float
    most: float
    p_value: float
    source: Literal["residuals", "seeds"]
    standardised: tuple[float, ...]

    def scale(self, columns: Mapping[str, Any]) -> Array:
        """The relative size of noise of models; 1 is that of an average run."""
        log_scale = self.slope * (_log_compute(columns, self.columns) - np.log(self.centre))
        return np.asarray(np.clip(np.exp(log_scale), self.least, self.most))

    def describe(self) -> str:
        """The change in words, with numbers."""
        larger, smaller = ("larger", "smaller") if self.slope > 0 else ("smaller", "larger")
        return (
            f"{larger} runs are noisier than {smaller} ones, up to {self.most / self.least:.2g} times (by their "
            f"{self.source}, p = {self.p_value:.1g}): intervals of a run are as wide as noise is at its compute"
        )


def noise_trend(law: Law, table: RunTable, residuals: Array, leverages: Array, n_free: float) -> NoiseTrend | None:
    """How noise changes with the compute of runs; None where nothing shows that it does.

    `residuals` are of ln loss, `leverages` the share of each that its own run takes out of it, `n_free` the parameters
    estimated. Where enough seeds were repeated, their spread is judged, since it has no error of the law in it. The
    test is a regression of normal scores of sizes on ln C, with as many runs as there are trunks less the parameters.
    """
    names = tuple(name for name in (law.n_column, TOKENS) if name in law.columns)
    names = names or tuple(name for name in (COMPUTE,) if name in law.columns)
    if not names or not len(residuals) or not np.all(np.isfinite(residuals)):
        return None
    log_compute = _log_compute(table.columns(names), names)
    deviations, seeds_freedom = seed_deviations(table)
    source: Literal["residuals", "seeds"] = "residuals"
    if seeds_freedom > _LEAST_FREEDOM + 1:
        judged, size, freedom, source = np.isfinite(deviations), np.abs(deviations), float(seeds_freedom), "seeds"
    else:
        judged = leverages < _MOST_LEVERAGE
        size = np.abs(residuals) / np.sqrt(1.0 - np.minimum(leverages, _MOST_LEVERAGE))
        freedom = min(len(np.unique(table.trunks)), int(judged.sum())) - n_free
    f_value, p_value = _test(size[judged], log_compute[judged], freedom)
    if not p_value < FALSE_ALARM:
        return None
    slope = _slope(size[judged], log_compute[judged]) * max(0.0, 1.0 - 1.0 / f_value)
    if not slope:
        return None
    log_scale = slope * (log_compute - log_compute.mean())
    # The pooled size is a root mean square, so that of the scales is 1.
    shift = 0.5 * np.log(np.mean(np.exp(2.0 * log_scale)))
    scale = np.exp(log_scale - shift)
    return NoiseTrend(
        columns=names,
        slope=slope,
        centre=float(np.exp(log_compute.mean() + shift / slope)),
        least=float(scale.min()),
        most=float(scale.max()),
        p_value=p_value,
        source=source,
        standardised=tuple((residuals / scale).tolist()),
    )


def _log_compute(columns: Mapping[str, Any], names: Sequence[str]) -> Array:
    """ln of the product of columns."""
    logs = [np.log(np.atleast_1d(np.asarray(columns[name], dtype=float))) for name in names]
    return np.asarray(sum(logs[1:], start=logs[0]))


def leverage(jacobian: Array) -> Array:
    """The leverage (n,) of each run under derivatives (P, n): the diagonal of the projection on them."""
    size = np.linalg.norm(jacobian, axis=1, keepdims=True)
    scaled = np.nan_to_num(jacobian / np.where(size > 0, size, 1.0))
    directions, strength, _ = np.linalg.svd(scaled.T, full_matrices=False)
    kept = directions[:, strength > 1e-9 * strength.max(initial=0.0)]
    return np.asarray(np.sum(kept**2, axis=1))


def _test(size: Array, log_compute: Array, freedom: float) -> tuple[float, float]:
    """F and p of a regression of the half-normal scores of sizes on ln C; p is 1 where there is too little to judge."""
    left = freedom - 2
    if left < _LEAST_FREEDOM or np.ptp(log_compute) < _LEAST_RANGE:
        return 0.0, 1.0
    scores = ndtri(0.5 + 0.5 * stats.rankdata(size) / (len(size) + 1))
    explained = float(np.corrcoef(scores, log_compute)[0, 1]) ** 2 if np.ptp(scores) > 0 else 0.0
    f_value = explained / max(1.0 - explained, 1e-12) * left
    return f_value, float(stats.f.sf(f_value, 1, left))


def _slope(size: Array, log_compute: Array) -> float:
    """The slope b of ln s = a + b ln C that minimises sum(size/s + ln s): convex, and no logs of residuals."""
    capped = np.minimum(size, _OUTLIER * np.median(size))
    design = np.column_stack([np.ones(len(size)), log_compute - log_compute.mean()])
    place = np.array([np.log(max(float(capped.mean()), 1e-300)), 0.0])
    for _ in range(_STEPS):
        ratio = capped * np.exp(-np.clip(design @ place, -700, 700))
        matrix = (design * np.maximum(ratio, 0.1)[:, None]).T @ design
        move = np.linalg.solve(matrix, design.T @ (ratio - 1.0))
        place = place + np.clip(move, -1.0, 1.0)
        if np.max(np.abs(move)) < 1e-9:
            break
    return float(place[1])
