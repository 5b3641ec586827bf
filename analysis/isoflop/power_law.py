"""Regressions of logs on logs: power laws y = c x^s with intervals, and what residuals of a law still hold.

statsmodels computes both; a law of the loss is fitted elsewhere (`analysis.fitting.fit`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.quantile_regression import QuantReg
from statsmodels.robust.norms import HuberT
from statsmodels.robust.robust_linear_model import RLM

from scaling.arrays import Array
from scaling.errors import InputError

Kind = Literal["ols", "robust", "quantile"]
Covariance = Literal["classical", "hc3"]
FEWEST: Mapping[Kind, int] = {
    "ols": 3,
    "robust": 6,
    "quantile": 10,
}  # points: one residual degree of freedom, or a scale
_EXACT = 1e-9  # of ln y: residuals below it are rounding, and tell no variance
_LEVEL = 0.95
DECIDES_ALONE = 1 - 1e-6  # leverage


@dataclass(frozen=True, eq=False)
class Band:
    """An estimate at several places with its 95 % bounds, in the units of y."""

    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(log_coefficient) x^exponent, with 95 % intervals from Student's t with n - 2 degrees of freedom.

    `residual_deviation` is of ln y: the standard error of regression for ols, the scaled median absolute deviation
    for robust, the mean absolute residual for a quantile. `variances` are of the line's level at `log_centre` (the mean
    of ln x), of its slope, and their covariance.
    """

    exponent: float
    exponent_interval: tuple[float, float]
    log_coefficient: float
    log_coefficient_interval: tuple[float, float]
    residual_deviation: float
    n: int
    kind: Kind
    quantile: float | None
    log_centre: float
    variances: tuple[float, float, float]

    def predict(self, x: npt.ArrayLike) -> Band:
        """The law at x, with the 95 % confidence band of the line itself (new points scatter more: `predict_new`).

        Raises InputError for x that are not positive.
        """
        return self._band(x, 0.0)

    def predict_new(self, x: npt.ArrayLike) -> Band:
        """The law at x, with the 95 % band in which one new y lies.

        exp(line +- t sqrt(var(line) + residual_deviation^2)). Raises InputError for x that are not positive, and for a
        quantile fit, whose residuals say nothing about how far a new point may lie.
        """
        if self.kind == "quantile":
            raise InputError("a quantile fit has no band for a new point: fit the quantiles .025 and .975 instead")
        return self._band(x, self.residual_deviation**2)

    def _band(self, x: npt.ArrayLike, extra: float) -> Band:
        shift = _logs(np.atleast_1d(np.asarray(x, dtype=float)), "x") - self.log_centre
        level, slope, both = self.variances
        half = _student(self.n - 2) * np.sqrt(level + 2 * both * shift + slope * shift**2 + extra)
        line = self.log_coefficient + self.exponent * (shift + self.log_centre)
        return Band(np.exp(line), np.exp(line - half), np.exp(line + half))


def power_law(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    kind: Kind = "ols",
    quantile: float = 0.5,
    covariance: Covariance = "classical",
) -> PowerLaw:
    """The line ln y = ln c + s ln x through positive points.

    * ols: least squares; `covariance` "hc3" where the scatter changes along x (MacKinnon and White 1985);
    * robust: Huber's T with tuning constant 1.345 and covariance H1 (Huber 1981, section 7.6), for points with outliers;
    * quantile: the line below which a share `quantile` of the points lies (Koenker and Bassett 1978), covariance by
      the kernel estimate of statsmodels' QuantReg.

    Student's t serves all three; for robust and quantile, which are normal in the limit, it errs on the wide side.
    Points that lie on a line exactly give intervals of no width. Raises InputError for too few points
    (ols 3, robust 6, quantile 10), fewer than two distinct x, and values that are not positive.
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind of regression {kind!r} is not known; use {', '.join(get_args(Kind))}")
    if covariance not in get_args(Covariance) or (covariance == "hc3" and kind != "ols"):
        raise InputError(f"covariance {covariance!r} is not for kind {kind!r}: hc3 is for ols, classical for all")
    if kind == "quantile" and not 0.0 < quantile < 1.0:
        raise InputError(f"quantile must lie between 0 and 1, found {quantile}")
    log_x, log_y = (_logs(values, name) for values, name in ((x, "x"), (y, "y")))
    if log_x.shape != log_y.shape:
        raise InputError(f"a power law needs as many x as y, found {log_x.size} and {log_y.size}")
    if log_x.size < FEWEST[kind]:
        raise InputError(f"a power law by {kind} needs at least {FEWEST[kind]} points, found {log_x.size}: add points")
    if np.ptp(log_x) == 0.0:
        raise InputError("a power law needs at least two distinct x, all are the same: vary x")
    centre = float(log_x.mean())
    design = np.column_stack([np.ones_like(log_x), log_x - centre])
    if covariance == "hc3" and most_leverage(design) >= DECIDES_ALONE:
        raise InputError("one point alone decides this slope, which hc3 cannot judge: use the classical covariance")
    least = OLS(log_y, design).fit(cov_type="HC3" if covariance == "hc3" else "nonrobust", use_t=True)
    residual = np.asarray(least.resid, dtype=float)
    if np.max(np.abs(residual)) <= _EXACT:
        params, cov, deviation = np.asarray(least.params), np.zeros((2, 2)), 0.0
    elif kind == "ols":
        params, cov, deviation = np.asarray(least.params), np.asarray(least.cov_params()), float(np.sqrt(least.scale))
    else:
        # On least squares' residuals over their deviation: QuantReg's tolerances are absolute, 1e-6.
        unit = float(residual.std())
        change, cov, deviation = _resistant(residual / unit, design, quantile if kind == "quantile" else None)
        params, cov, deviation = np.asarray(least.params) + unit * change, unit**2 * cov, unit * deviation
    if not (np.isfinite(cov).all() and np.isfinite(params).all()):
        raise InputError(
            f"a power law by {kind} has no interval here: more than half of the points lie on one line; use kind ols"
        )
    slope, level = float(params[1]), float(params[0])
    to_zero = np.array([1.0, -centre])
    log_coefficient, t = level - slope * centre, _student(log_x.size - 2)
    errors = np.sqrt([cov[1, 1], to_zero @ cov @ to_zero])
    return PowerLaw(
        exponent=slope,
        exponent_interval=(slope - t * float(errors[0]), slope + t * float(errors[0])),
        log_coefficient=log_coefficient,
        log_coefficient_interval=(log_coefficient - t * float(errors[1]), log_coefficient + t * float(errors[1])),
        residual_deviation=deviation,
        n=int(log_x.size),
        kind=kind,
        quantile=quantile if kind == "quantile" else None,
        log_centre=centre,
        variances=(float(cov[0, 0]), float(cov[1, 1]), float(cov[0, 1])),
    )


def _resistant(y: Array, design: Array, quantile: float | None) -> tuple[Array, Array, float]:
    """Coefficients, covariance and residual deviation of Huber's T, or of a quantile's line."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of no scale: the covariance is then not finite, which the caller refuses
        if quantile is None:
            robust = RLM(y, design, M=HuberT()).fit(cov="H1")
            scale = float(robust.scale)
            covariance = np.asarray(robust.bcov_scaled) if scale > _EXACT else np.full((2, 2), np.nan)
            return np.asarray(robust.params), covariance, scale
        line = QuantReg(y, design).fit(q=quantile)
        covariance = np.asarray(line.cov_params()) if line.bandwidth > _EXACT else np.full((2, 2), np.nan)
        return np.asarray(line.params), covariance, float(np.mean(np.abs(line.resid)))


def _student(freedom: int) -> float:
    return float(stats.t.ppf(0.5 + _LEVEL / 2, freedom))


def _logs(values: npt.ArrayLike, name: str) -> Array:
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or not np.all(np.isfinite(numbers) & (numbers > 0)):
        raise InputError(f"a power law needs a list of positive finite numbers; {name} has others: leave them out")
    return np.asarray(np.log(numbers))


def most_leverage(design: Array) -> float:
    """The largest diagonal element of the hat matrix; at 1 that point alone decides a coefficient, and HC3 divides by
    0."""
    return float(np.max(np.sum(np.linalg.qr(design)[0] ** 2, axis=1)))
