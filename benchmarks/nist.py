"""Two nonlinear least-squares problems with certified answers: NIST's Statistical Reference Datasets, DanWood and
Bennett5.

NIST certifies the parameters, their standard deviations (of s^2 (J'J)^-1, s^2 = RSS/(n - P)) and RSS to 11 digits
(NIST/ITL StRD, nonlinear regression, files DanWood.dat and Bennett5.dat; works of the US government, not under
copyright). DanWood is of its lower level of difficulty, Bennett5 of its higher one. The certified RSS at the certified
parameters, which depends on every observation, is what proves the numbers below (tests/analysis/test_nist.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.fitting.fit import Fit, fit
from analysis.fitting.objective import Objective
from analysis.fitting.problem import Problem
from analysis.laws import Law, Parameter
from analysis.laws.autodiff import log
from analysis.tables.runs import RunTable
from scaling.errors import InputError


def standard_errors(fit: Fit, table: RunTable) -> dict[str, float]:
    """Linearised standard errors of a least-squares fit's parameters, each in its parameter's unit.

    sqrt of the diagonal of s^2 (J'J)^-1, s^2 = RSS/(n - P), J the derivatives of the n predictions by the P parameters
    (Seber and Wild 1989, Nonlinear Regression, ch. 2; what NIST's StRD certifies). It supposes equal, independent
    errors in the residual's units, and predictions that are straight within the errors: `bootstrap` supposes neither.
    Parameters that were pinned or ended at a bound are held and have none. Raises InputError for a fit without
    parameters, of another objective, or as many parameters as rows, and for a table that is not the fit's.
    """
    fit.require_params()
    if fit.objective_kind != "least-squares":
        raise InputError(
            f"standard errors follow from residual squares, and this fit minimised {fit.objective_kind}: fit with "
            "least-squares"
        )
    if len(table) != fit.n_runs:
        raise InputError(f"the fit has {fit.n_runs} runs, the table {len(table)}: give the table that was fitted")
    law = fit.definition
    moving = [name for name in fit.free if name not in fit.at_bounds]
    if len(table) <= len(moving):
        raise InputError(
            f"{len(table)} runs for {len(moving)} parameters leave nothing to judge the scatter by; add runs"
        )
    held = {name: value for name, value in fit.params.items() if name not in moving}
    problem = Problem.of(table, law, held, fit.criterion)
    predicted, jacobian = problem.model(problem.coordinates(fit.params)[None])
    variance = np.sum((predicted[0] - problem.observed) ** 2) / (len(table) - len(moving))
    # R of J = QR with columns of unit norm: (J'J)^-1 = R^-1 R^-1', and J'J, which squares the condition, is never
    # formed.
    norms = np.linalg.norm(jacobian[0], axis=1)
    inverse = np.linalg.inv(np.linalg.qr((jacobian[0] / norms[:, None]).T, mode="r"))
    errors = np.sqrt(variance) * np.linalg.norm(inverse, axis=1) / norms
    # A parameter that moves by its logarithm x has dp = p dx.
    units = [fit.params[name] if law.parameter(name).scale == "log" else 1.0 for name in problem.free]
    return {name: float(error * unit) for name, error, unit in zip(problem.free, errors, units, strict=True)}


@dataclass(frozen=True)
class Certified:
    """A law, its observations, and what NIST certifies: parameters, their standard deviations, residual sum of
    squares."""

    law: Law
    table: RunTable
    params: Mapping[str, float]
    deviations: Mapping[str, float]
    rss: float

    def fitted(self, seed: int = 0) -> tuple[Fit, dict[str, float]]:
        """Our least-squares fit of the raw observations from starts of its own, and its standard errors."""
        found = fit(self.table, self.law, objective=Objective("least-squares", "raw"), seed=seed)
        return found, standard_errors(found, self.table)


Formula = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


def _law(
    name: str, formula: str, parameters: tuple[Parameter, ...], log_formula: Formula, column: str, target: str
) -> Law:
    """A law outside the package's own, of one column."""
    return Law(name, formula, "", "", parameters, log_formula, f"NIST StRD, {name}", "", (column,), target=target)


_MAGNETISM = (
    -34.834702, -34.3932, -34.152901, -33.979099, -33.845901, -33.732899, -33.640301, -33.5592, -33.486801, -33.4231,
    -33.365101, -33.313, -33.260899, -33.2174, -33.176899, -33.139198, -33.101601, -33.066799, -33.035, -33.003101,
    -32.971298, -32.942299, -32.916302, -32.890202, -32.864101, -32.841, -32.817799, -32.797501, -32.7743, -32.757,
    -32.733799, -32.7164, -32.6991, -32.678799, -32.6614, -32.644001, -32.626701, -32.612202, -32.597698, -32.583199,
    -32.568699, -32.554298, -32.539799, -32.525299, -32.510799, -32.499199, -32.487598, -32.473202, -32.461601,
    -32.435501, -32.435501, -32.4268, -32.4123, -32.400799, -32.392101, -32.380501, -32.366001, -32.3573, -32.348598,
    -32.339901, -32.3284, -32.319698, -32.311001, -32.2994, -32.290699, -32.282001, -32.2733, -32.264599, -32.256001,
    -32.247299, -32.238602, -32.2299, -32.224098, -32.215401, -32.2038, -32.198002, -32.1894, -32.183601, -32.1749,
    -32.169102, -32.1633, -32.154598, -32.145901, -32.140099, -32.131401, -32.125599, -32.119801, -32.111198, -32.1054,
    -32.096699, -32.0909, -32.088001, -32.0793, -32.073502, -32.067699, -32.061901, -32.056099, -32.050301, -32.044498,
    -32.038799, -32.033001, -32.027199, -32.0243, -32.018501, -32.012699, -32.004002, -32.001099, -31.9953, -31.9895,
    -31.9837, -31.9779, -31.972099, -31.969299, -31.963501, -31.957701, -31.9519, -31.9461, -31.9403, -31.937401,
    -31.931601, -31.9258, -31.922899, -31.917101, -31.911301, -31.9084, -31.902599, -31.8969, -31.893999, -31.888201,
    -31.8853, -31.882401, -31.8766, -31.873699, -31.867901, -31.862101, -31.8592, -31.8563, -31.8505, -31.8447,
    -31.841801, -31.8389, -31.833099, -31.8302, -31.827299, -31.8216, -31.818701, -31.812901, -31.809999, -31.8071,
    -31.8013, -31.798401, -31.7955, -31.7897, -31.7868,
)  # fmt: skip

_LOG_TIME = (
    7.447168, 8.102586, 8.452547, 8.711278, 8.916774, 9.087155, 9.23259, 9.359535, 9.472166, 9.573384, 9.665293,
    9.749461, 9.827092, 9.899128, 9.966321, 10.02928, 10.08851, 10.14443, 10.19738, 10.24767, 10.29556, 10.34125,
    10.38495, 10.42682, 10.467, 10.50564, 10.54283, 10.57869, 10.61331, 10.64678, 10.67915, 10.71052, 10.74092,
    10.77044, 10.7991, 10.82697, 10.85408, 10.88047, 10.90619, 10.93126, 10.95572, 10.97959, 11.00291, 11.0257,
    11.04798, 11.06977, 11.0911, 11.11198, 11.13244, 11.15248, 11.17213, 11.19141, 11.21031, 11.22887, 11.24709,
    11.26498, 11.28256, 11.29984, 11.31682, 11.33352, 11.34994, 11.3661, 11.382, 11.39766, 11.41307, 11.42824, 11.4432,
    11.45793, 11.47244, 11.48675, 11.50086, 11.51477, 11.52849, 11.54202, 11.55538, 11.56855, 11.58156, 11.59442,
    11.607121, 11.61964, 11.632, 11.64421, 11.65628, 11.6682, 11.67998, 11.69162, 11.70313, 11.71451, 11.72576,
    11.73688, 11.74789, 11.75878, 11.76955, 11.7802, 11.79073, 11.80116, 11.81148, 11.8217, 11.83181, 11.84182,
    11.85173, 11.86155, 11.87127, 11.88089, 11.89042, 11.89987, 11.90922, 11.91849, 11.92768, 11.93678, 11.94579,
    11.95473, 11.96359, 11.97237, 11.98107, 11.9897, 11.99826, 12.00674, 12.01515, 12.02349, 12.03176, 12.03997,
    12.0481, 12.05617, 12.06418, 12.07212, 12.08001, 12.08782, 12.09558, 12.10328, 12.11092, 12.1185, 12.12603, 12.1335,
    12.14091, 12.14827, 12.15557, 12.16283, 12.17003, 12.17717, 12.18427, 12.19132, 12.19832, 12.20527, 12.21217,
    12.21903, 12.22584, 12.2326, 12.23932, 12.24599, 12.25262, 12.2592, 12.26575, 12.27224,
)  # fmt: skip

DANWOOD = Certified(
    law=_law(
        "DanWood",
        "y = b1 x^b2",
        (
            Parameter("b1", "size", "factor", (1.0, 1e4), (1e-6, 1e9), "log", "loss"),
            Parameter("b2", "size", "exponent", (0.1, 10.0), (-50.0, 50.0)),
        ),
        lambda p, x: log(p["b1"]) + np.log(x["temperature"]) * p["b2"],
        "temperature",
        "energy",
    ),
    table=RunTable(
        pd.DataFrame(
            {
                "temperature": [1.309, 1.471, 1.490, 1.565, 1.611, 1.680],
                "energy": [2.138, 3.421, 3.597, 4.340, 4.882, 5.660],
            }
        ),
        "NIST StRD DanWood",
    ),
    params={"b1": 7.6886226176e-01, "b2": 3.8604055871e00},
    deviations={"b1": 1.8281973860e-02, "b2": 5.1726610913e-02},
    rss=4.3173084083e-03,
)

# A law predicts a positive quantity and the magnetism is negative, so -y is fitted and b1 has the other sign. Starts
# are within a factor of about two of NIST's own two (b2 50 and 45, b3 .8 and .85).
BENNETT5 = Certified(
    law=_law(
        "Bennett5",
        "-y = -b1 (b2 + x)^(-1/b3)",
        (
            Parameter("b1", "size", "factor, negated", (1.0, 1e4), (1e-6, 1e15), "log", "loss"),
            Parameter("b2", "size", "offset", (25.0, 100.0), (-7.0, 1e4)),
            Parameter("b3", "size", "inverse exponent, negated", (0.4, 1.6), (1e-3, 100.0)),
        ),
        lambda p, x: log(p["b1"]) - log(p["b2"] + x["log_time"]) / p["b3"],
        "log_time",
        "magnetism",
    ),
    table=RunTable(
        pd.DataFrame({"log_time": _LOG_TIME, "magnetism": np.negative(_MAGNETISM)}),
        "NIST StRD Bennett5",
    ),
    params={"b1": 2.5235058043e03, "b2": 4.6736564644e01, "b3": 9.3218483193e-01},
    deviations={"b1": 2.9715175411e02, "b2": 1.2448871856e00, "b3": 2.0272299378e-02},
    rss=5.2404744073e-04,
)
