"""Fitting a mixture: its members, their weights and discrepancy by roll-out, and its draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import Fit, fit
from analysis.fitting.noise import noise_trend
from analysis.fitting.objective import HUBER, Objective
from analysis.fitting.roll_out import refusal
from analysis.mixture.candidates import Candidate, candidates, family_of_laws, one_budget
from analysis.mixture.composite import DISCREPANCY, NAME, parameter_name, weight_name
from analysis.mixture.discrepancy_of_cuts import discrepancy
from analysis.mixture.mixture import Member, Mixture, RollOutCut
from analysis.mixture.roll_outs import SPARE_RUNS, Cut, compute_of, roll_outs, weights
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE, TOKENS
from scaling.progress import Progress, part, silent

# What a mixture says of its table as its members do.
_SHARED = (
    "objective_kind", "residual", "delta", "n_runs", "n_trunks", "domain", "experts", "studied", "noise", "prior",
    "family", "corpus_tokens", "router_skew", "settings", "source", "dropped", "notes", "versions", "made_from",
    "doubts",
)  # fmt: skip
_FEW_CUTS = 2
_UNTIL_WEIGHED = 0.2  # of the time


def fit_mixture(
    table: RunTable,
    *,
    objective: Objective = HUBER,
    auto_pin: bool = True,
    n_starts: int = 64,
    resamples: int = 400,
    seed: int = 0,
    progress: Progress = silent,
) -> Mixture:
    """Fit the laws that a table can bear, weigh them by roll-out, and draw from them together.

    Members are the `candidates` that the runs determine, with runs to spare. Weights and discrepancy come from
    `roll_outs`; with `resamples` 0 there are no draws. Raises InputError for a missing column.
    """
    table = table.for_law(family_of_laws(table))
    fits = {
        each.name: _fit(table, each, objective, auto_pin=auto_pin, n_starts=n_starts, seed=seed)
        for each in candidates(table)
    }
    usable = _usable(fits)
    first = next(iter((usable or fits).values()))
    if not usable:
        return Mixture(law=NAME, params={}, status=first.status, warnings=first.warnings, **_shared(first))
    cuts = roll_outs(usable, table, np.random.default_rng(seed))
    weighed = weights(cuts, list(usable))
    drawn: dict[str, Fit] = {}
    for number, (name, each) in enumerate(usable.items()):
        span = (1.0 - _UNTIL_WEIGHED) / len(usable)
        watched = part(progress, _UNTIL_WEIGHED + number * span, _UNTIL_WEIGHED + (number + 1) * span)
        drawn[name] = bootstrap(each, table, resamples, np.random.default_rng(seed), watched)
    left_out = [
        f"{name} is left out of the mixture: {_why_left_out(each)}" for name, each in fits.items() if name not in usable
    ]
    return _together(drawn, weighed, cuts, table, left_out, seed)


def _fit(
    table: RunTable, candidate: Candidate, objective: Objective, *, auto_pin: bool, n_starts: int, seed: int
) -> Fit:
    held = {name: pin.value for name, pin in candidate.held.items()}
    fitted = fit(table, candidate.law, objective=objective, pin=held, auto_pin=auto_pin, n_starts=n_starts, seed=seed)
    return replace(fitted, pinned={**fitted.pinned, **candidate.held})


def _usable(fits: Mapping[str, Fit]) -> dict[str, Fit]:
    """The fits with parameters and runs to spare; where none has any to spare, the first with parameters."""
    fitted = {name: each for name, each in fits.items() if each.params}
    spare = {name: each for name, each in fitted.items() if each.n_runs >= len(each.free) + SPARE_RUNS}
    return spare or dict(list(fitted.items())[:1])


def _why_left_out(fitted: Fit) -> str:
    if fitted.params:
        return f"{fitted.n_runs} runs are too few for its {len(fitted.free)} parameters"
    return refusal(fitted)


def _shared(member: Fit) -> dict[str, Any]:
    return {name: getattr(member, name) for name in _SHARED}


def _together(
    fits: Mapping[str, Fit],
    weighed: Mapping[str, float],
    cuts: Sequence[Cut],
    table: RunTable,
    warnings: Sequence[str],
    seed: int,
) -> Mixture:
    """The mixture of fits with draws, by their weights, with the discrepancy of their roll-outs."""
    first, compute = next(iter(fits.values())), compute_of(table)
    observed = np.log(table.column(first.definition.target))
    log_loss = {name: _log_loss(each, table) for name, each in fits.items()}
    residuals = np.sum([weighed[name] * values for name, values in log_loss.items()], axis=0) - observed
    beyond = discrepancy(cuts, weighed, residuals, float(compute.max()))
    errors = {name: float(np.mean([cut.error(name) for cut in cuts])) if cuts else None for name in fits}
    members = tuple(
        Member(
            **{each.name: getattr(fitted, each.name) for each in fields(Fit)},
            name=name,
            weight=weighed[name],
            roll_out_error=errors[name],
        )
        for name, fitted in fits.items()
    )
    told = _warnings(members, cuts, table, warnings)
    params = {parameter_name(m.name, name): value for m in members for name, value in m.params.items()}
    params |= {weight_name(m.name): m.weight for m in members} | {DISCREPANCY: 0.0}
    draws = _draws(members, weighed, beyond.slopes, seed)
    small = len(residuals) <= len(first.residuals)
    leverages = np.sum([weighed[name] * each.leverages(table) for name, each in fits.items()], axis=0)
    n_free = sum(weighed[name] * len(each.free) for name, each in fits.items())
    trend = noise_trend(first.definition, table, residuals, leverages, n_free) if small else None
    return Mixture(
        **_shared(first) | {"domain": {COMPUTE: (float(compute.min()), float(compute.max())), **first.domain}},
        law=NAME,
        params=params,
        intervals={parameter_name(m.name, name): ends for m in members for name, ends in m.intervals.items()},
        pinned={parameter_name(m.name, name): pin for m in members for name, pin in m.pinned.items()},
        at_bounds=tuple(parameter_name(m.name, name) for m in members for name in m.at_bounds),
        draws=draws,
        draws_failed=max(m.draws_failed for m in members),
        strata=first.strata if draws else (),
        residuals=tuple(residuals.tolist()) if small else (),
        noise_trend=trend,
        rmse_log=float(np.sqrt(np.mean(residuals**2))),
        n_starts=sum(m.n_starts for m in members),
        n_starts_at_minimum=sum(m.n_starts_at_minimum for m in members),
        status="ok",
        warnings=tuple(told),
        members=tuple(replace(m, draws={}, jackknife={}, strata=()) for m in members),
        discrepancy=beyond,
        roll_outs=tuple(
            RollOutCut(cut.train_flops, cut.n_fitted, cut.n_predicted, float(np.exp(cut.reach.max()))) for cut in cuts
        ),
        one_budget=float(np.median(table.column(TOKENS))) if one_budget(table) else None,
    )


def _log_loss(fitted: Fit, table: RunTable) -> Array:
    law = fitted.definition
    return law.log_loss(fitted.params, table.columns(law.columns))


def _draws(
    members: Sequence[Member], weighed: Mapping[str, float], slopes: Any, seed: int
) -> dict[str, tuple[float, ...]]:
    """Draws of every parameter of the composite law; none where no member has any.

    Each draw has one member, as often as its weight says, and that member's parameters in one resample, in which the
    others have theirs.
    """
    count = max(member.n_draws for member in members)
    if not count:
        return {}
    rng = np.random.default_rng(seed)
    chosen = _chosen([weighed[member.name] for member in members], count, rng)
    draws: dict[str, tuple[float, ...]] = {}
    for number, member in enumerate(members):
        for name in member.free:
            values = np.asarray(member.draws.get(name, (member.params[name],)))
            draws[parameter_name(member.name, name)] = tuple(values[np.arange(count) % len(values)].tolist())
        draws[weight_name(member.name)] = tuple((chosen == number).astype(float).tolist())
    return {**draws, DISCREPANCY: tuple(slopes(count, rng).tolist())}


def _chosen(weights: Sequence[float], count: int, rng: np.random.Generator) -> Integers:
    """Which member each draw is of: each as often as its weight, to within one, in random order."""
    edges = np.cumsum(weights) * count
    chosen = np.searchsorted(edges, np.arange(count) + 0.5)
    return rng.permutation(np.minimum(chosen, len(weights) - 1))


def _warnings(members: Sequence[Member], cuts: Sequence[Cut], table: RunTable, left_out: Sequence[str]) -> list[str]:
    """What members warn of, each once, and what the mixture could not do."""
    of_all = set.intersection(*(set(member.warnings) for member in members))
    told = [warning for warning in members[0].warnings if warning in of_all]
    told += [f"{m.name}: {warning}" for m in members for warning in m.warnings if warning not in of_all]
    told += left_out
    if one_budget(table):
        tokens = float(np.median(table.column(TOKENS)))
        told.append(f"every run has {tokens:.3g} tokens: the mixture speaks of that budget alone; vary tokens")
    if len(cuts) < _FEW_CUTS:
        found = "no compute cut leaves" if not cuts else "only one compute cut leaves"
        told.append(
            f"{found} enough runs to predict larger ones from: the weights and the discrepancy beyond the largest run "
            "rest on an assumption; add runs over a wider range of compute"
        )
    return told
