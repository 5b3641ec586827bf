"""Bootstrap over trunks and seeds: a global fit to every resample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.fitting.bca import ENDS
from analysis.fitting.few_runs import needs_prior, with_prior
from analysis.fitting.fit import FEW_TRUNKS, Fit
from analysis.fitting.search import search_each
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.progress import Progress, part, silent

_LEAST_STRATUM = 3  # trunks
_SPARE = 2  # runs beyond the parameters that intervals need
_ROUGH = 100  # fewer resamples make rough intervals
_USUAL, _MOST_ROWS = 400, 50_000
_MOST_LEFT_OUT = 200  # jackknife values: trunks, or groups of them
_MOST_WEIGHTS = 100_000_000  # resamples x rows held in memory: 800 MB


def resample_weights(table: RunTable, count: int, rng: np.random.Generator) -> Array:
    """How often each row occurs in each resample, shape (count, rows).

    Trunks, whose points are correlated, are drawn with replacement within each `n_experts`; neighbouring E with fewer
    than three trunks are drawn together. The seeds of a trunk with several are drawn with replacement in turn. Without
    `trunk_id` each row is a trunk; for a trunk with several E, that of its first row counts.
    """
    strata, member = _strata(table)
    drawn = np.empty((count, len(strata)))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        drawn[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=count)
    weights = drawn[:, member]
    seeds = np.nan_to_num(table.column("seed")) if "seed" in table.frame else np.zeros(len(table))
    trunk_of_seed = np.unique(np.stack([member, seeds], axis=1), axis=0)[:, 0].astype(int)
    for trunk in np.flatnonzero(np.bincount(trunk_of_seed) > 1):
        rows = np.flatnonzero(member == trunk)
        levels = np.unique(seeds[rows])
        times = rng.multinomial((drawn[:, trunk] * len(levels)).astype(int), np.full(len(levels), 1 / len(levels)))
        weights[:, rows] = times[:, np.searchsorted(levels, seeds[rows])]
    return weights


def usual_count(table: RunTable) -> int:
    """Resamples where no number is asked for: 400, and none of more than 50,000 rows, which take long."""
    return _USUAL if len(table) <= _MOST_ROWS else 0


def bootstrap(fit: Fit, table: RunTable, count: int, rng: np.random.Generator, progress: Progress = silent) -> Fit:
    """The fit with `count` bootstrap draws, a jackknife over its trunks, and 95 % BCa intervals of its parameters.

    Every resample is fitted globally (`search.search_each`); those that do not converge are left out and counted in
    `draws_failed`. Where there are too few trunks to resample, draws come from the spread of published exponents
    (`few_runs`), and the estimate with them. A fit without parameters is returned unchanged. Raises InputError for a
    negative count, for more resamples than fit in memory, and for another table than that of the fit.
    """
    if count < 0:
        raise InputError(f"`bootstrap` must be at least 0, found {count}")
    if count == 0 or not fit.params or not fit.free:
        return fit
    problem, estimate = fit.problem(table)
    if count * len(table) > _MOST_WEIGHTS:
        most = _MOST_WEIGHTS // len(table)
        raise InputError(
            f"`bootstrap` {count} of {len(table)} rows does not fit in memory; at most {most} for this table"
        )
    if needs_prior(fit):
        return with_prior(fit, problem, count, rng)
    if len(table) < len(fit.free) + _SPARE:
        spare = f"{len(table)} runs for {len(fit.free)} parameters are too few for intervals; add runs"
        return replace(fit, warnings=(*fit.warnings, spare))
    minima = search_each(problem, estimate, resample_weights(table, count, rng), rng, part(progress, 0.0, 0.9))
    finite = np.isfinite(minima.objective)
    fit = replace(
        fit,
        draws_failed=int(count - finite.sum()),
        warnings=(*fit.warnings, *_warnings(fit, count, finite, minima.converged)),
    )
    if not finite.any():
        return fit
    strata, without = _left_out(table, rng)
    left = problem.minimise(np.repeat(estimate[None], len(without), axis=0), without, near=True).theta
    fit = replace(
        fit,
        draws={name: tuple(values.tolist()) for name, values in problem.parameters(minima.theta[finite]).items()},
        jackknife={name: tuple(values.tolist()) for name, values in problem.parameters(left).items()},
        strata=tuple(strata.tolist()),
    )
    ends = fit.quantiles(ENDS, lambda params: np.stack([np.ravel(params[name]) for name in fit.free], axis=-1))
    return replace(fit, intervals={name: (float(ends[0, i]), float(ends[1, i])) for i, name in enumerate(fit.free)})


def _warnings(fit: Fit, count: int, finite: Booleans, converged: Booleans) -> list[str]:
    """Limitations of intervals from `count` resamples."""
    warnings = []
    if not finite.all():
        warnings.append(f"{np.sum(~finite)} of {count} resamples did not converge and were left out")
    if count < _ROUGH:
        warnings.append(f"{count} resamples are too few: intervals are rough, and no decision should rest on them")
    flat = int(np.sum(finite & ~converged))
    if flat > 0.01 * count:
        warnings.append(
            f"{flat} of {count} resamples stopped in a flat valley before its minimum: some intervals may be too wide"
        )
    if fit.n_trunks < FEW_TRUNKS * len(fit.free):
        warnings.append(f"{fit.n_trunks} trunks are few for {len(fit.free)} parameters: intervals are rough")
    return warnings


def _left_out(table: RunTable, rng: np.random.Generator) -> tuple[Integers, Array]:
    """The stratum of each trunk, and weights (m, rows) without it; more than 200 trunks are grouped.

    Groups are random within a stratum: to first order their acceleration is that of trunks.
    """
    strata, member = _strata(table)
    group = np.arange(len(strata))
    if len(strata) > _MOST_LEFT_OUT:
        names = np.unique(strata)
        per_stratum = max(2, _MOST_LEFT_OUT // len(names))
        for number, stratum in enumerate(names):
            inside = rng.permutation(np.flatnonzero(strata == stratum))
            group[inside] = number * per_stratum + np.arange(len(inside)) % per_stratum
    _, first, of_trunk = np.unique(group, return_index=True, return_inverse=True)
    without = 1.0 - (of_trunk[member][None, :] == np.arange(len(first))[:, None])
    return strata[first], without


def _strata(table: RunTable) -> tuple[Integers, Integers]:
    """The stratum of each trunk and the trunk of each row, both counted from zero.

    A stratum is an E; neighbouring E are joined until each stratum has three trunks, since a single trunk would be in
    every resample and add no scatter.
    """
    _, first, member = np.unique(table.trunks, return_index=True, return_inverse=True)
    experts = np.nan_to_num(table.column(EXPERTS)[first]) if EXPERTS in table.frame else np.zeros(len(first))
    levels, counts = np.unique(experts, return_counts=True)
    stratum_of_level, stratum, trunks = [], 0, 0
    for count, remaining in zip(counts, counts[::-1].cumsum()[::-1], strict=True):
        if trunks >= _LEAST_STRATUM and remaining >= _LEAST_STRATUM:
            stratum, trunks = stratum + 1, 0
        stratum_of_level.append(stratum)
        trunks += int(count)
    return np.array(stratum_of_level)[np.searchsorted(levels, experts)], member
