"""Regressions of logs on logs: power laws y = c x^s with intervals, and what residuals of a law still hold.

statsmodels computes both; a law of the loss is fitted elsewhere (`analysis.fit`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy import linalg, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.quantile_regression import QuantReg
from statsmodels.robust.norms import HuberT
from statsmodels.robust.robust_linear_model import RLM
from statsmodels.sandbox.stats.runs import runstest_1samp
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.stattools import durbin_watson

from analysis.dual import Array
from analysis.laws import EXPERTS
from analysis.runs import COMPUTE
from scaling.errors import InputError

Kind = Literal["ols", "robust", "quantile"]
Covariance = Literal["classical", "hc3"]
FEWEST: Mapping[Kind, int] = {
    "ols": 3,
    "robust": 6,
    "quantile": 10,
}  # points: one residual degree of freedom, or a scale
FEWEST_RESIDUALS = 10
_FEWEST_FOR_TAILS = 20  # Anscombe and Glynn's approximation is good from there
_EXACT = 1e-9  # of ln y: residuals below it are rounding, and tell no variance
_LEVEL = 0.95
_DECIDES_ALONE = 1 - 1e-6  # leverage
_LARGEST_LOG = 710.0  # ln of the largest double: a larger number is not a logarithm of one


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
    if covariance == "hc3" and _most_leverage(design) >= _DECIDES_ALONE:
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


Test = Literal["spread", "tails", "trend", "curvature", "serial", "outlier"]


@dataclass(frozen=True)
class Finding:
    """One test on residuals. `p_adjusted` is Holm's, over all findings of the same residuals, and decides `sentence`."""

    test: Test
    column: str | None
    statistic: float
    p_value: float
    p_adjusted: float
    sentence: str

    @property
    def significant(self) -> bool:
        """Whether it stands at 5 % among all that were looked at."""
        return self.p_adjusted < 0.05


@dataclass(frozen=True)
class Diagnostics:
    """All findings on one set of residuals; `largest` is the row of the largest by robust z, `largest_z` that z."""

    findings: tuple[Finding, ...]
    n: int
    largest: int
    largest_z: float

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that stand after Holm's adjustment."""
        return tuple(finding for finding in self.findings if finding.significant)


def diagnostics(residuals: npt.ArrayLike, columns: Mapping[str, npt.ArrayLike]) -> Diagnostics:
    """What a law has left in its residuals: trends, unequal spread, heavy tails, order in compute, an outlier.

    `residuals` are of ln loss, prediction minus observation; `columns` hold natural logs, by the table's names
    (n_active, tokens, n_experts, train_flops). Tests, two-sided unless said:

    * spread: Breusch and Pagan 1979 in Koenker's form (F statistic) on all columns together;
    * tails: excess kurtosis above the normal's (Anscombe and Glynn 1983, one-sided), from 20 residuals on;
    * trend, curvature: coefficients of each column and of its square made orthogonal to it, t with HC3 errors;
    * serial: runs about the median in order of `train_flops` (Wald and Wolfowitz 1940); Durbin and Watson's statistic
      is in the sentence;
    * outlier: the largest robust z = (r - median)/(1.4826 MAD), its normal p times n (Bonferroni).

    A fit has already bent the residuals towards none of this, so a finding is real while its absence proves little.
    Columns that do not vary are passed over. Raises InputError for fewer than 10 residuals, lengths that differ,
    numbers that are not finite or no logs, and residuals that are half or more the same.
    """
    r = np.asarray(residuals, dtype=float)
    logs = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    if r.ndim != 1 or r.size < FEWEST_RESIDUALS:
        raise InputError(f"diagnostics need at least {FEWEST_RESIDUALS} residuals in a list, found {r.size}: add runs")
    for name, values in {"residuals": r, **logs}.items():
        if values.shape != r.shape or not np.isfinite(values).all():
            raise InputError(f"diagnostics: {name} must hold {r.size} finite numbers, one a residual")
    for name, values in logs.items():
        if np.abs(values).max() > _LARGEST_LOG:
            raise InputError(f"diagnostics: {name} reaches {np.abs(values).max():.3g}, which is no logarithm: pass ln")
    deviation = float(stats.median_abs_deviation(r, scale="normal"))
    if deviation == 0.0:
        raise InputError("diagnostics: half or more of the residuals are the same; nothing can be told from them")
    r = r / deviation  # tests do not mind, and tiny residuals lose no digits
    logs = {name: values for name, values in logs.items() if np.ptp(values) > 1e-9}
    z = r - np.median(r)
    largest = int(np.argmax(np.abs(z)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small samples, which the sizes above bound
        found = [*_spread(r, logs), *_tails(r), *_serial(r, logs), _outlier(z, largest)]
        found += [finding for name, values in logs.items() for finding in _trends(r, name, values)]
    adjusted = multipletests([one.p_value for one in found], method="holm")[1]
    return Diagnostics(
        tuple(one.judged(float(p)) for one, p in zip(found, adjusted, strict=True)),
        int(r.size),
        largest,
        float(z[largest]),
    )


class _Tested(NamedTuple):
    """A test before the adjustment for the others, with what is said if it stands and if it does not."""

    test: Test
    column: str | None
    statistic: float
    p_value: float
    found: str
    nothing: str

    def judged(self, p_adjusted: float) -> Finding:
        finding = Finding(self.test, self.column, self.statistic, self.p_value, p_adjusted, self.nothing)
        return replace(finding, sentence=self.found) if finding.significant else finding


def _spread(r: Array, logs: Mapping[str, Array]) -> list[_Tested]:
    """Breusch-Pagan on columns that none of the others make up (ln C is often ln N + ln D + a constant)."""
    if not logs:
        return []
    names = list(logs)
    scaled = np.column_stack([stats.zscore(values) for values in logs.values()])
    _, upper, order = linalg.qr(scaled, mode="economic", pivoting=True)
    kept = sorted(order[np.abs(np.diag(upper)) > 1e-6 * abs(upper[0, 0])])
    if len(kept) + 2 > r.size:
        return []
    with_constant = np.column_stack([np.ones_like(r), scaled[:, kept]])
    _, _, statistic, p = het_breuschpagan(r - r.mean(), with_constant)
    if not np.isfinite(p):
        return []
    on = ", ".join(names[index] for index in kept)
    even = f"no sign that the residuals' spread changes with {on}"
    uneven = f"the residuals' spread changes with {on}: weigh the runs, or take intervals from the bootstrap alone"
    return [_Tested("spread", None, float(statistic), float(p), uneven, even)]


def _tails(r: Array) -> list[_Tested]:
    if r.size < _FEWEST_FOR_TAILS:
        return []
    statistic, p = stats.kurtosistest(r, alternative="greater")
    excess = float(stats.kurtosis(r, bias=False))
    heavy = f"the residuals have heavy tails (excess kurtosis {excess:.1f}): fit by huber or lad, not least squares"
    return [_Tested("tails", None, float(statistic), float(p), heavy, "the residuals' tails are not heavy")]


def _trends(r: Array, name: str, values: Array) -> list[_Tested]:
    x = stats.zscore(values)
    square = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    bends = len(np.unique(np.round(x, 9))) >= 3
    for columns in ([x, square] if bends else [x], [x]):
        design = np.column_stack([np.ones_like(x), *columns])
        if _most_leverage(design) < _DECIDES_ALONE:
            robust = OLS(r, design).fit(cov_type="HC3", use_t=True)
            break
    else:
        return []
    t, p = ([float(value) for value in values[1:]] for values in (robust.tvalues, robust.pvalues))
    tested = [_Tested("trend", name, t[0], p[0], *_trend_words(name, t[0]))]
    if len(t) == 2:
        tested.append(_Tested("curvature", name, t[1], p[1], *_curvature_words(name, t[1])))
    return tested


def _most_leverage(design: Array) -> float:
    """The largest diagonal element of the hat matrix; at 1 that point alone decides a coefficient, and HC3 divides by 0."""
    return float(np.max(np.sum(np.linalg.qr(design)[0] ** 2, axis=1)))


def _trend_words(name: str, t: float) -> tuple[str, str]:
    if name == EXPERTS:
        reading = f"the law {'misses' if t > 0 else 'overstates'} experts' effect at large E"
    else:
        reading = f"the law predicts too {'high' if t > 0 else 'low'} a loss at large {name}"
    told = f"residuals {'rise' if t > 0 else 'fall'} with {name} (t {t:.1f}): {reading}"
    return told, f"no trend of the residuals with {name} (t {t:.1f})"


def _curvature_words(name: str, t: float) -> tuple[str, str]:
    told = (
        f"residuals bend {'up' if t > 0 else 'down'} along {name} (t {t:.1f}): the law predicts too "
        f"{'high' if t > 0 else 'low'} a loss at both ends of {name}"
    )
    return told, f"no bend of the residuals along {name} (t {t:.1f})"


def _serial(r: Array, logs: Mapping[str, Array]) -> list[_Tested]:
    if COMPUTE not in logs:
        return []
    ordered = r[np.argsort(logs[COMPUTE], kind="stable")]
    z, p = (float(value) for value in runstest_1samp(ordered, cutoff="median"))
    dw = float(durbin_watson(ordered - ordered.mean()))
    alike = (
        f"neighbours in {COMPUTE} have {'like' if z < 0 else 'alternating'} residuals (runs z {z:.1f}, Durbin-Watson "
        f"{dw:.2f}): the law misses something that changes with compute"
    )
    mixed = f"no order of the residuals along {COMPUTE} (Durbin-Watson {dw:.2f})"
    return [_Tested("serial", COMPUTE, z, p, alike, mixed)]


def _outlier(z: Array, largest: int) -> _Tested:
    size = float(z[largest])
    p = min(1.0, 2.0 * z.size * float(stats.norm.sf(abs(size))))
    far = f"row {largest} lies {abs(size):.1f} robust deviations off: look at that run, and fit without it too"
    return _Tested("outlier", None, size, p, far, f"no residual stands out (largest z {abs(size):.1f})")
