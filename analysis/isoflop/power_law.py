"""Power laws y = c x^s with intervals, by regression of logarithms (statsmodels)."""

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
FEWEST: Mapping[Kind, int] = {"ols": 3, "robust": 6, "quantile": 10}
"""The fewest points: for one residual degree of freedom, or for a scale."""
_EXACT = 1e-9  # of ln y: smaller residuals are rounding errors
_LEVEL = 0.95
DECIDES_ALONE = 1 - 1e-6  # leverage


@dataclass(frozen=True, eq=False)
class Band:
    """Estimates with 95 % bounds, in the units of y."""

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
        """The law at x with the 95 % confidence band of the line; new points scatter more.

        Raises InputError for x that are not positive.
        """
        shift = _logs(np.atleast_1d(np.asarray(x, dtype=float)), "x") - self.log_centre
        level, slope, both = self.variances
        half = _student(self.n - 2) * np.sqrt(level + 2 * both * shift + slope * shift**2)
        line = self.log_coefficient + self.exponent * (shift + self.log_centre)
        return Band(np.exp(line), np.exp(line - half), np.exp(line + half))


def power_law(x: npt.ArrayLike, y: npt.ArrayLike, kind: Kind = "ols", quantile: float = 0.5) -> PowerLaw:
    """The line ln y = ln c + s ln x through positive points.

    * ols: least squares;
    * robust: Huber's T with tuning constant 1.345 and covariance H1 (Huber 1981, section 7.6), for outliers;
    * quantile: the line below which a share `quantile` of the points lies (Koenker and Bassett 1978), covariance by the
      kernel estimate of statsmodels' QuantReg.

    All intervals use Student's t, which is conservative for robust and quantile lines. Points exactly on a line give
    intervals of zero width. Raises InputError for too few points (ols 3, robust 6, quantile 10), fewer than two
    distinct x, and values that are not positive.
    """
    log_x, log_y = _checked(x, y, kind, quantile)
    centre, t = float(log_x.mean()), _student(log_x.size - 2)
    params, cov, deviation = _line(np.column_stack([np.ones_like(log_x), log_x - centre]), log_y, kind, quantile)
    if not (np.isfinite(cov).all() and np.isfinite(params).all()):
        raise InputError(
            f"a power law by {kind} has no interval: more than half of the points lie on one line; use kind ols"
        )
    slope, to_zero = float(params[1]), np.array([1.0, -centre])
    log_coefficient = float(params[0]) - slope * centre
    of_slope, of_coefficient = (t * float(np.sqrt(v)) for v in (cov[1, 1], to_zero @ cov @ to_zero))
    return PowerLaw(
        exponent=slope,
        exponent_interval=(slope - of_slope, slope + of_slope),
        log_coefficient=log_coefficient,
        log_coefficient_interval=(log_coefficient - of_coefficient, log_coefficient + of_coefficient),
        residual_deviation=deviation,
        n=int(log_x.size),
        kind=kind,
        quantile=quantile if kind == "quantile" else None,
        log_centre=centre,
        variances=(float(cov[0, 0]), float(cov[1, 1]), float(cov[0, 1])),
    )


def _checked(x: npt.ArrayLike, y: npt.ArrayLike, kind: Kind, quantile: float) -> tuple[Array, Array]:
    """ln x and ln y, checked."""
    if kind not in get_args(Kind):
        raise InputError(f"kind of regression {kind!r} is not known; use {', '.join(get_args(Kind))}")
    if kind == "quantile" and not 0.0 < quantile < 1.0:
        raise InputError(f"quantile must lie between 0 and 1, found {quantile}")
    log_x, log_y = (_logs(values, name) for values, name in ((x, "x"), (y, "y")))
    if log_x.shape != log_y.shape:
        raise InputError(f"a power law needs as many x as y, found {log_x.size} and {log_y.size}")
    if log_x.size < FEWEST[kind]:
        raise InputError(f"a power law by {kind} needs at least {FEWEST[kind]} points, found {log_x.size}: add points")
    if np.ptp(log_x) == 0.0:
        raise InputError("a power law needs at least two distinct x, all are the same: vary x")
    return log_x, log_y


def _line(design: Array, log_y: Array, kind: Kind, quantile: float) -> tuple[Array, Array, float]:
    """Coefficients (level, slope), their covariance and the residual deviation."""
    least = OLS(log_y, design).fit(use_t=True)
    params, residual = np.asarray(least.params), np.asarray(least.resid, dtype=float)
    if np.max(np.abs(residual)) <= _EXACT:
        return params, np.zeros((2, 2)), 0.0
    if kind == "ols":
        return params, np.asarray(least.cov_params()), float(np.sqrt(least.scale))
    # On residuals scaled to unit deviation, since QuantReg has absolute tolerances of 1e-6.
    unit = float(residual.std())
    change, cov, deviation = _resistant(residual / unit, design, quantile if kind == "quantile" else None)
    return params + unit * change, unit**2 * cov, unit * deviation


def _resistant(y: Array, design: Array, quantile: float | None) -> tuple[Array, Array, float]:
    """Coefficients, covariance and residual deviation of Huber's T, or of a quantile's line."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # without a scale the covariance is not finite, which the caller refuses
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
        raise InputError(f"a power law needs positive finite numbers; {name} has others: leave them out")
    return np.asarray(np.log(numbers))


def most_leverage(design: Array) -> float:
    """The largest diagonal element of the hat matrix; at 1 one point determines a coefficient, and HC3 divides by 0."""
    return float(np.max(np.sum(np.linalg.qr(design)[0] ** 2, axis=1)))
