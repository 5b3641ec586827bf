"""Uncertainty: bootstrap over trunks and seeds; every resample is fitted globally and its parameters are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.fitting.bca import ENDS
from analysis.fitting.fit import FEW_TRUNKS, Fit
from analysis.fitting.objective import Objective
from analysis.fitting.problem import problem, search_each
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Integers
from scaling.columns import EXPERTS
from scaling.errors import InputError

_LEAST_STRATUM = 3  # trunks
_SPARE = 2  # runs beyond the parameters, below which residuals say nothing
_ROUGH = 100  # resamples below which the ends of an interval are a matter of chance
_MOST_LEFT_OUT = 200  # trunks, or groups of them, of the jackknife
_MOST_WEIGHTS = 100_000_000  # resamples x rows held in memory: 800 MB


def resample_weights(table: RunTable, count: int, rng: np.random.Generator) -> Array:
    """How often each row occurs in each resample, shape (count, rows).

    Trunks are drawn with replacement within each `n_experts`, as many as there are (points of one trunk are
    correlated); neighbouring E with fewer than three trunks are drawn together. A trunk that holds several seeds brings
    its seeds drawn with replacement in turn. Without `trunk_id` each row is a trunk; with a trunk that spans several E,
    the E of its first row counts.
    """
    strata, member = _strata(table)
    drawn = np.empty((count, len(strata)))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        drawn[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=count)
    weights = drawn[:, member]
    seeds = np.nan_to_num(table.column("seed")) if "seed" in table.frame else np.zeros(len(table))
    held = np.unique(np.stack([member, seeds], axis=1), axis=0)[:, 0].astype(int)  # each trunk once a seed
    for trunk in np.flatnonzero(np.bincount(held) > 1):
        rows = np.flatnonzero(member == trunk)
        levels = np.unique(seeds[rows])
        times = rng.multinomial((drawn[:, trunk] * len(levels)).astype(int), np.full(len(levels), 1 / len(levels)))
        weights[:, rows] = times[:, np.searchsorted(levels, seeds[rows])]
    return weights


def bootstrap(fit: Fit, table: RunTable, count: int, rng: np.random.Generator) -> Fit:
    """The fit with `count` bootstrap draws, a jackknife over its trunks, and 95 % BCa intervals of its parameters.

    Every resample is fitted globally (`problem.search_each`). Resamples that do not converge are left out and counted
    in `draws_failed`. A fit without parameters is returned as it is. Raises InputError for a negative count, for more
    resamples than memory holds, and for a table that is not the fit's.
    """
    if count < 0:
        raise InputError(f"--bootstrap must be at least 0, found {count}")
    if count == 0 or not fit.params or not fit.free:
        return fit
    task, estimate = fit.problem(table)
    if count * len(table) > _MOST_WEIGHTS:
        most = _MOST_WEIGHTS // len(table)
        raise InputError(
            f"--bootstrap {count} of {len(table)} rows does not fit in memory; at most {most} for this table"
        )
    if len(table) < len(fit.free) + _SPARE:
        told = f"{len(table)} runs for {len(fit.free)} parameters leave nothing to judge scatter by: no intervals; add runs"
        return replace(fit, warnings=(*fit.warnings, told))
    definition = fit.definition
    theta, value, settled = search_each(task, estimate, resample_weights(table, count, rng), rng)
    kept = np.isfinite(value)
    values = {name: definition.from_coordinates(name, theta[kept, i]) for i, name in enumerate(fit.free)}
    warnings = list(fit.warnings)
    failed = int(count - kept.sum())
    if failed:
        warnings.append(f"{failed} of {count} resamples did not converge and were left out of the intervals")
    if count < _ROUGH:
        warnings.append(f"{count} resamples are few: the ends of intervals are rough, and nothing is decided by them")
    flat = int(np.sum(kept & ~settled))
    if flat > 0.01 * count:
        warnings.append(
            f"{flat} of {count} resamples lie in a valley too flat to reach its bottom: some intervals are wider"
        )
    if fit.n_trunks < FEW_TRUNKS * len(fit.free):
        warnings.append(f"{fit.n_trunks} trunks for {len(fit.free)} parameters are few: intervals are rough")
    if not kept.any():
        return replace(fit, draws_failed=failed, warnings=tuple(warnings))
    strata, without = _left_out(table, rng)
    left = task.minimise(np.repeat(estimate[None], len(without), axis=0), without, near=True).theta
    found = replace(
        fit,
        draws={name: tuple(draws.tolist()) for name, draws in values.items()},
        jackknife={n: tuple(definition.from_coordinates(n, left[:, i]).tolist()) for i, n in enumerate(fit.free)},
        strata=tuple(strata.tolist()),
        draws_failed=failed,
        warnings=tuple(warnings),
    )
    ends = found.quantiles(ENDS, lambda params: np.stack([np.ravel(params[name]) for name in fit.free], axis=-1))
    return replace(found, intervals={name: (float(ends[0, i]), float(ends[1, i])) for i, name in enumerate(fit.free)})


def _left_out(table: RunTable, rng: np.random.Generator) -> tuple[Integers, Array]:
    """The stratum of each trunk, and weights (m, rows) without it; at most 200 groups of trunks where they are more.

    Groups take trunks at random within a stratum: the acceleration of groups is that of trunks, to first order.
    """
    strata, member = _strata(table)
    group = np.arange(len(strata))
    if len(strata) > _MOST_LEFT_OUT:
        names = np.unique(strata)
        each = max(2, _MOST_LEFT_OUT // len(names))
        for stratum in names:
            inside = rng.permutation(np.flatnonzero(strata == stratum))
            group[inside] = np.flatnonzero(names == stratum)[0] * each + np.arange(len(inside)) % each
    _, first, of_trunk = np.unique(group, return_index=True, return_inverse=True)
    without = 1.0 - (of_trunk[member][None, :] == np.arange(len(first))[:, None])
    return strata[first], without


def _strata(table: RunTable) -> tuple[Integers, Integers]:
    """The stratum that each trunk is resampled within, and the trunk that each row is of, both counted from zero.

    A stratum is an E; neighbouring E are joined until each has three trunks, since a trunk alone in its stratum would
    be in every resample, and its noise in none.
    """
    _, first, member = np.unique(table.trunks, return_index=True, return_inverse=True)
    experts = np.nan_to_num(table.column(EXPERTS)[first]) if EXPERTS in table.frame else np.zeros(len(first))
    levels, counts = np.unique(experts, return_counts=True)
    joined, held = [0], 0
    for count, left in zip(counts, counts[::-1].cumsum()[::-1], strict=True):
        if held >= _LEAST_STRATUM and left >= _LEAST_STRATUM:
            joined.append(joined[-1] + 1)
            held = 0
        else:
            joined.append(joined[-1])
        held += int(count)
    return np.array(joined[1:])[np.searchsorted(levels, experts)], member


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
            "--objective least-squares, or use --bootstrap"
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
    task = problem(table, law, held, Objective(fit.objective_kind, fit.residual, fit.delta))
    estimate = np.array([law.to_coordinates(name, fit.params[name]) for name in task.free], dtype=float)
    predicted, jacobian = task.model(estimate[None])
    variance = np.sum((predicted[0] - task.observed) ** 2) / (len(table) - len(moving))
    # R of J = QR with columns of unit norm: (J'J)^-1 = R^-1 R^-1', and J'J, which squares the condition, is never
    # formed.
    norms = np.linalg.norm(jacobian[0], axis=1)
    inverse = np.linalg.inv(np.linalg.qr((jacobian[0] / norms[:, None]).T, mode="r"))
    errors = np.sqrt(variance) * np.linalg.norm(inverse, axis=1) / norms
    # A parameter that moves by its logarithm x has dp = p dx.
    units = [fit.params[name] if law.parameter(name).scale == "log" else 1.0 for name in task.free]
    return {name: float(error * unit) for name, error, unit in zip(task.free, errors, units, strict=True)}
