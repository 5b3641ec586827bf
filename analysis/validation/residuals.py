"""Diagnostics of residuals: spread, tails, trends and outliers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.sandbox.stats.runs import runstest_1samp
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.stattools import durbin_watson

from analysis.fitting.fit import Fit
from analysis.fitting.refit import log_residuals
from analysis.isoflop.power_law import DECIDES_ALONE, most_leverage
from analysis.tables.rows import Rows, rows_of
from analysis.tables.runs import RunTable
from scaling.arrays import Array
from scaling.columns import COMPUTE, EXPERTS
from scaling.errors import InputError

FEWEST_RESIDUALS = 10
_FEWEST_FOR_TAILS = 20  # for the approximation of Anscombe and Glynn
_LARGEST_LOG = 710.0  # ln of the largest double: larger numbers are not logarithms

Test = Literal["spread", "tails", "trend", "curvature", "serial", "outlier"]


@dataclass(frozen=True)
class ResidualFinding:
    """One test on residuals. `p_adjusted` (Holm, over all findings on the same residuals) decides `sentence`."""

    test: Test
    column: str | None
    statistic: float
    p_value: float
    p_adjusted: float
    sentence: str

    @property
    def significant(self) -> bool:
        """Whether it is significant at 5 % among all findings."""
        return self.p_adjusted < 0.05


@dataclass(frozen=True)
class Diagnostics:
    """All findings on one set of residuals; `largest` is the position of the largest robust z, `largest_z` that z."""

    findings: tuple[ResidualFinding, ...]
    n: int
    largest: int
    largest_z: float

    @property
    def faults(self) -> tuple[ResidualFinding, ...]:
        """The findings that are significant after Holm's adjustment."""
        return tuple(finding for finding in self.findings if finding.significant)

    def verdict(self) -> str:
        """One sentence."""
        faults = "; ".join(fault.sentence for fault in self.faults)
        return f"residuals: {faults or 'no trend, unequal spread, heavy tails or outlier'}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def diagnostics(
    residuals: npt.ArrayLike, columns: Mapping[str, npt.ArrayLike], rows: Rows | None = None
) -> Diagnostics:
    """Tests of the residuals of a law for trends, unequal spread, heavy tails, order in compute and an outlier.

    `residuals` are of ln loss, prediction minus observation; `columns` hold natural logs, by the table's names
    (n_active, tokens, n_experts, train_flops); `rows` name an outlier. Tests, two-sided unless stated:

    * spread: Breusch and Pagan 1979 in Koenker's form (F statistic) on all columns together;
    * tails: excess kurtosis above the normal's (Anscombe and Glynn 1983, one-sided), from 20 residuals on;
    * trend, curvature: coefficients of each column and of its square made orthogonal to it, t with HC3 errors;
    * serial: runs about the median in order of `train_flops` (Wald and Wolfowitz 1940); Durbin and Watson's statistic
      is in the sentence;
    * outlier: the largest robust z = (r - median)/(1.4826 MAD), its normal p times n (Bonferroni).

    Fitting reduces all of these, so a finding is real while its absence proves little. Columns that do not vary are
    ignored. Raises InputError for fewer than 10 residuals, different lengths, values that are not finite or not
    logarithms, and residuals of which half or more are equal.
    """
    r = np.asarray(residuals, dtype=float)
    logs = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    _require_usable(r, logs)
    r = r / float(stats.median_abs_deviation(r, scale="normal"))  # the tests are scale-invariant
    logs = {name: values for name, values in logs.items() if np.ptp(values) > 1e-9}
    z = r - np.median(r)
    largest = int(np.argmax(np.abs(z)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on small samples, excluded above
        tests = [*_spread(r, logs), *_tails(r), *_serial(r, logs), _outlier(z, largest, rows)]
        tests += [test for name, values in logs.items() for test in _trends(r, name, values)]
    adjusted = multipletests([test.p_value for test in tests], method="holm")[1]
    findings = tuple(test.judged(float(p)) for test, p in zip(tests, adjusted, strict=True))
    return Diagnostics(findings, int(r.size), largest, float(z[largest]))


def _require_usable(r: Array, logs: Mapping[str, Array]) -> None:
    if r.ndim != 1 or r.size < FEWEST_RESIDUALS:
        raise InputError(f"diagnostics need at least {FEWEST_RESIDUALS} residuals in a list, found {r.size}: add runs")
    for name, values in {"residuals": r, **logs}.items():
        if values.shape != r.shape or not np.isfinite(values).all():
            raise InputError(f"diagnostics: {name} must hold {r.size} finite numbers, one a residual")
    for name, values in logs.items():
        if np.abs(values).max() > _LARGEST_LOG:
            raise InputError(f"diagnostics: {name} reaches {np.abs(values).max():.3g}, not a logarithm: pass ln")
    if stats.median_abs_deviation(r, scale="normal") == 0.0:
        raise InputError("diagnostics: half or more of the residuals are equal, so their scatter is unknown")


class _Tested(NamedTuple):
    """A test before the Holm adjustment, with a sentence for either outcome."""

    test: Test
    column: str | None
    statistic: float
    p_value: float
    if_significant: str
    otherwise: str

    def judged(self, p_adjusted: float) -> ResidualFinding:
        finding = ResidualFinding(self.test, self.column, self.statistic, self.p_value, p_adjusted, self.otherwise)
        return replace(finding, sentence=self.if_significant) if finding.significant else finding


def _spread(r: Array, logs: Mapping[str, Array]) -> list[_Tested]:
    """Breusch-Pagan on linearly independent columns (ln C is often ln N + ln D + a constant)."""
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
    uneven = f"the residuals' spread changes with {on}: weight the runs, or use bootstrap intervals only"
    return [_Tested("spread", None, float(statistic), float(p), uneven, even)]


def _tails(r: Array) -> list[_Tested]:
    if r.size < _FEWEST_FOR_TAILS:
        return []
    statistic, p = stats.kurtosistest(r, alternative="greater")
    excess = float(stats.kurtosis(r, bias=False))
    heavy = f"the residuals have heavy tails (excess kurtosis {excess:.1f}): use the objective huber or lad"
    return [_Tested("tails", None, float(statistic), float(p), heavy, "the residuals' tails are not heavy")]


def _trends(r: Array, name: str, values: Array) -> list[_Tested]:
    x = stats.zscore(values)
    square = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    bends = len(np.unique(np.round(x, 9))) >= 3
    for columns in ([x, square] if bends else [x], [x]):
        design = np.column_stack([np.ones_like(x), *columns])
        if most_leverage(design) < DECIDES_ALONE:
            robust = OLS(r, design).fit(cov_type="HC3", use_t=True)
            break
    else:
        return []
    t, p = robust.tvalues[1:].tolist(), robust.pvalues[1:].tolist()
    tests = [_Tested("trend", name, t[0], p[0], *_trend_sentences(name, t[0]))]
    if len(t) == 2:
        tests.append(_Tested("curvature", name, t[1], p[1], *_curvature_sentences(name, t[1])))
    return tests


def _trend_sentences(name: str, t: float) -> tuple[str, str]:
    if name == EXPERTS:
        reading = f"the law {'understates' if t > 0 else 'overstates'} the effect of experts at large E"
    else:
        reading = f"the law predicts too {'high' if t > 0 else 'low'} a loss at large {name}"
    trend = f"residuals {'rise' if t > 0 else 'fall'} with {name} (t {t:.1f}): {reading}"
    return trend, f"no trend of the residuals with {name} (t {t:.1f})"


def _curvature_sentences(name: str, t: float) -> tuple[str, str]:
    reading = f"the law predicts too {'high' if t > 0 else 'low'} a loss at both ends of {name}"
    bend = f"residuals curve {'up' if t > 0 else 'down'} in {name} (t {t:.1f}): {reading}"
    return bend, f"no curvature of the residuals in {name} (t {t:.1f})"


def _serial(r: Array, logs: Mapping[str, Array]) -> list[_Tested]:
    if COMPUTE not in logs:
        return []
    ordered = r[np.argsort(logs[COMPUTE], kind="stable")]
    z, p = (float(value) for value in runstest_1samp(ordered, cutoff="median"))
    dw = float(durbin_watson(ordered - ordered.mean()))
    alike = (
        f"neighbours in {COMPUTE} have {'like' if z < 0 else 'alternating'} residuals (runs z {z:.1f}, Durbin-Watson "
        f"{dw:.2f}): the law lacks an effect that varies with compute"
    )
    mixed = f"no order of the residuals along {COMPUTE} (Durbin-Watson {dw:.2f})"
    return [_Tested("serial", COMPUTE, z, p, alike, mixed)]


def _outlier(z: Array, largest: int, rows: Rows | None) -> _Tested:
    size = float(z[largest])
    place = f"row {largest + 1}" if rows is None else rows.named(np.arange(z.size) == largest).removeprefix("in ")
    p = min(1.0, 2.0 * z.size * float(stats.norm.sf(abs(size))))
    far = f"{place} is an outlier ({abs(size):.1f} robust SD): inspect that run, and fit without it too"
    return _Tested("outlier", None, size, p, far, f"no outlier (largest robust z {abs(size):.1f})")


def diagnose(fit: Fit, table: RunTable) -> Diagnostics:
    """`diagnostics` of the residuals of a fit by N, tokens, experts and compute.

    Columns with missing values are ignored. Raises InputError for a fit without parameters and for too few runs.
    """
    logs = {}
    for name in dict.fromkeys((*fit.definition.columns, EXPERTS, COMPUTE)):
        values = table.column(name) if name in table.frame else np.zeros(len(table))
        if (np.isfinite(values) & (values > 0)).all():
            logs[name] = np.log(values)
    return diagnostics(log_residuals(fit, table), logs, rows_of(table))
