"""Draws of published fits, by one rule: refits to runs such as the paper's.

A draw is the law, fitted by least squares to as many runs as the paper had, spread evenly over the ranges that it
states, whose ln losses are those of the published constants with residuals of the size that the paper prints. To that
comes what rounding took: every constant anywhere within half a unit of its last printed digit. Residuals are taken
`SHORTFALL` times as large as printed, because by that factor the rule, as it stands, falls short of the standard errors
of the one paper that prints them (Besiroglu et al. 2024, arXiv 2404.10102): real runs lie less evenly, and their
residuals have heavier tails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cache
from types import MappingProxyType

import numpy as np
from scipy.stats import qmc

from analysis.fitting.discrepancy import Discrepancy
from analysis.fitting.fit import Fit
from analysis.fitting.published import PUBLISHED, published
from analysis.fitting.published_error import ASSUMED_RANGES, ASSUMED_RMSE, ASSUMED_RUNS, PublishedError, Range, error_of
from analysis.laws import Law
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS

DRAWS = 256
SHORTFALL = 1.5
"""Standard errors that arXiv 2404.10102 prints, over those of the rule with residuals as printed (median)."""
_POINTS = 64  # runs that stand for the paper's, each with the noise of its share of them
_STEPS, _DAMPING = 40, (1e-3, 0.2, 5.0)  # of a refit: the most, and the first damping and its factors
_MET = 1e-6  # relative decrease of the squares below which a refit has converged
PRIOR_SHARE = 0.5
"""Of a residual: the discrepancy for an e-fold of compute, as before any roll-out of a mixture."""


def with_draws(name: str) -> Fit:
    """The published fit of that name with draws, intervals, and what they rest on; made once. Raises InputError."""
    return _with_draws(name) if name in PUBLISHED else published(name)


@cache
def _with_draws(name: str) -> Fit:
    fit, error = published(name), error_of(name)
    ranges, assumed = ranges_of(fit, error)
    columns = design(fit, error, ranges)
    rmse = rmse_log(fit, error, columns)
    draws = refits(fit, columns, SHORTFALL * rmse, runs_of(error), np.random.default_rng(0))
    ends = {key: np.quantile(values, (0.025, 0.975)) for key, values in draws.items()}
    return replace(
        fit,
        draws={key: tuple(values.tolist()) for key, values in draws.items()},
        intervals={key: (float(low), float(high)) for key, (low, high) in ends.items()},
        rmse_log=rmse,
        n_runs=error.n_runs or 0,
        discrepancy=_discrepancy(fit, columns, rmse),
        warnings=(*fit.warnings, *told_of(error, assumed)),
        notes=(*fit.notes, *((error.source,) if error.source else ())),
    )


def told_of(error: PublishedError, assumed: Mapping[str, Range]) -> tuple[str, ...]:
    """By which rule the draws were made, and what they assume."""
    runs = f"{error.n_runs} runs" if error.n_runs else f"{ASSUMED_RUNS} runs"
    where = "of its own" if error.runs else "spread evenly over its ranges"
    rule = (
        f"the paper prints no draws: here they are refits to {runs} {where}, with {SHORTFALL:g} times its residuals, "
        "and the rounding of its constants"
    )
    return rule, *error.assumptions(assumed)


def runs_of(error: PublishedError) -> int:
    """How many runs there were, or are assumed."""
    return error.n_runs or ASSUMED_RUNS


def rmse_log(fit: Fit, error: PublishedError, columns: Mapping[str, Array]) -> float:
    """The residual of ln loss, as printed or assumed; one of the loss itself divided by the geometric mean of the
    loss over the runs."""
    if error.rmse is None:
        return ASSUMED_RMSE
    return error.rmse if error.rmse_of == "ln loss" else error.rmse / float(np.exp(np.log(fit.loss(columns)).mean()))


def ranges_of(fit: Fit, error: PublishedError) -> tuple[dict[str, Range], dict[str, Range]]:
    """The ranges that runs are spread over, and those of them that are assumed, as no paper states them."""
    law, known = fit.definition, {**fit.domain, **error.ranges}
    wanted = [name for name in law.columns if not (name == TOKENS and "tokens_per_param" in known)]
    wanted += ["tokens_per_param"] if "tokens_per_param" in known else []
    if {"n_total", "n_active"} <= set(wanted):  # no model has more active than it has
        wanted[wanted.index("n_active")] = "activation_ratio"
    ranges = {name: known[name] if name in known else ASSUMED_RANGES[name] for name in wanted}
    return ranges, {name: ends for name, ends in ranges.items() if name not in known}


def design(fit: Fit, error: PublishedError, ranges: Mapping[str, Range]) -> dict[str, Array]:
    """Runs such as the paper's, by column of the law: its own where it lists them, else spread evenly in logarithms
    (Sobol points; evenly in what may be 0, and over the E studied)."""
    if error.runs:
        return {name: np.array(values) for name, values in error.runs.items()}
    found = spread_evenly(ranges, {EXPERTS: fit.experts} if len(fit.experts) > 1 else {})
    if "tokens_per_param" in found:
        found[TOKENS] = found["tokens_per_param"] * found["n_active"]
    if "n_total" in found and "activation_ratio" in found:
        found["n_active"] = found["n_total"] * found["activation_ratio"]
    return {name: found[name] for name in fit.definition.columns}


def spread_evenly(
    ranges: Mapping[str, Range], values: Mapping[str, Sequence[float]] = MappingProxyType({}), count: int = _POINTS
) -> dict[str, Array]:
    """Sobol points over ranges, in logarithms but where a range begins at 0; a column with `values` takes those."""
    places = qmc.Sobol(len(ranges), rng=np.random.default_rng(0)).random(count)
    found: dict[str, Array] = {}
    for (name, (low, high)), place in zip(ranges.items(), places.T, strict=True):
        if name in values:
            found[name] = np.array(values[name], dtype=float)[(place * len(values[name])).astype(int)]
        else:
            found[name] = low + (high - low) * place if low == 0 else low * (high / low) ** place
    return found


def refits(
    fit: Fit, columns: Mapping[str, Array], noise: float, n_runs: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Parameters of the law refitted to losses with noise, (DRAWS,) each, and rounded constants anywhere within half a
    unit of their last digit."""
    law = fit.definition
    points = len(next(iter(columns.values())))
    each = noise * np.sqrt(points / n_runs)  # as much is learnt as from the paper's runs
    start = np.array([law.to_coordinates(name, fit.params[name]) for name in law.names], dtype=float)
    observed = law.log_loss(fit.params, columns) + each * rng.standard_normal((DRAWS, points))
    theta = _least_squares(law, columns, observed, np.tile(start, (DRAWS, 1)))
    values = {name: np.asarray(law.from_coordinates(name, theta[:, i])) for i, name in enumerate(law.names)}
    for name, value in values.items():
        low, high = law.parameter(name).bounds
        moved = value + rounding(fit.params[name]) * rng.uniform(-1.0, 1.0, DRAWS)
        values[name] = np.clip(moved, low, high)
    return values


def rounding(value: float) -> float:
    """Half a unit of the last digit of a constant as it is written."""
    exponent = Decimal(repr(float(value))).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return 0.5 * 10.0**exponent


def _least_squares(law: Law, columns: Mapping[str, Array], observed: Array, theta: Array) -> Array:
    """Minima of the squared residuals of ln loss near each row of `theta` (B, P), by damped Gauss-Newton steps within
    the bounds of the law."""
    ends = [[law.to_coordinates(name, end) for end in law.parameter(name).bounds] for name in law.names]
    lower, upper = np.array(ends, dtype=float).T
    damping = np.full(len(theta), _DAMPING[0])
    moving = np.arange(len(theta))
    prediction, jacobian = law.log_loss_gradient(theta, law.names, {}, columns)
    residual = prediction - observed
    for _ in range(_STEPS):
        if not moving.size:
            break
        squares = np.sum(residual**2, axis=1)
        gradient = np.einsum("bpn,bn->bp", jacobian, residual)
        matrix = jacobian @ jacobian.swapaxes(1, 2)
        held = ((theta[moving] <= lower) & (gradient > 0)) | ((theta[moving] >= upper) & (gradient < 0))
        gradient = np.where(held, 0.0, gradient)
        diagonal = np.einsum("bpp->bp", matrix) * (1.0 + damping[moving, None]) + 1e-300
        matrix = np.where(held[:, :, None] | held[:, None, :], 0.0, matrix)
        rows = np.arange(len(law.names))
        matrix[:, rows, rows] = np.where(held, 1.0, diagonal)
        step = np.linalg.solve(matrix, -gradient[..., None])[..., 0]
        trial = np.clip(theta[moving] + step, lower, upper)
        with np.errstate(all="ignore"):
            tried, slopes = law.log_loss_gradient(trial, law.names, {}, columns)
            missed = tried - observed[moving]
            fallen = squares - np.sum(missed**2, axis=1)
        better = fallen > 0
        theta[moving[better]] = trial[better]
        residual = np.where(better[:, None], missed, residual)
        jacobian = np.where(better[:, None, None], slopes, jacobian)
        damping[moving] = np.clip(damping[moving] * np.where(better, _DAMPING[1], _DAMPING[2]), 1e-12, 1e12)
        going = ~(better & (fallen <= _MET * squares)) & (damping[moving] < 1e11)
        moving, residual, jacobian = moving[going], residual[going], jacobian[going]
    return theta


def _discrepancy(fit: Fit, columns: Mapping[str, Array], rmse: float) -> Discrepancy | None:
    """What is believed of the law beyond its largest run, before any roll-out; None for a law that reads no compute.

    Where the compute of that run is not known it is taken as that of the largest of the runs spread evenly.
    """
    if "n_active" in columns:
        active = columns["n_active"]
    elif {"n_total", "top_k", EXPERTS} <= set(columns):  # the law counts N_active as that share
        active = columns["n_total"] * columns["top_k"] / columns[EXPERTS]
    else:
        return None
    if TOKENS not in columns:
        return None
    largest = fit.largest_train_flops or float(6.0 * np.max(active * columns[TOKENS]))
    return Discrepancy(PRIOR_SHARE * rmse, PRIOR_SHARE * rmse, largest)
