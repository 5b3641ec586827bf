"""Refits of a mixture: to parts of its runs, whole or member by member with the weights held."""

from __future__ import annotations

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.objective import Objective
from analysis.fitting.refit import Refits, refit
from analysis.fitting.roll_out import Fitted, refusal
from analysis.mixture.composite import DISCREPANCY, parameter_name, weight_name
from analysis.mixture.fitted_mixture import fit_mixture
from analysis.mixture.mixture import Mixture
from analysis.mixture.roll_outs import SPARE_RUNS
from analysis.tables.runs import RunTable
from scaling.arrays import Booleans
from scaling.progress import Progress, part, silent

_STARTS = 16


def of_mixture(whole: Mixture, objective: Objective) -> Fitted:
    """How a mixture is fitted to a part of its runs: anew, its weights and discrepancy too.

    Where that part has one E, or one token budget, and the whole has several, its laws say nothing of the others.
    """

    def fitted(table: RunTable, resamples: int, rng: np.random.Generator) -> tuple[Fit, str]:
        seed = int(rng.integers(2**31))
        found = fit_mixture(table, objective=objective, n_starts=_STARTS, resamples=resamples, seed=seed)
        if not found.params:
            return found, refusal(found)
        if whole.definition.uses_experts and not found.definition.uses_experts:
            return found, "the runs left have one E, and say nothing of others"
        if found.one_budget is not None and whole.one_budget is None:
            return found, f"the runs left have one token budget, {found.one_budget:.3g}, and say nothing of others"
        fewest = min(len(member.free) for member in found.members)
        if len(table) < fewest + SPARE_RUNS:
            return found, f"{len(table)} runs are too few to test {fewest} parameters"
        return found, ""

    return fitted


def refits(
    fit: Fit, table: RunTable, selections: Booleans, rng: np.random.Generator, progress: Progress = silent
) -> Refits:
    """As `refit`; of a mixture every member is refitted, with the weights that all runs give it, and no discrepancy.

    A selection that leaves one member undetermined determines no mixture.
    """
    if not isinstance(fit, Mixture):
        return refit(fit, table, selections, rng, progress)
    fit.require_params()
    count = len(selections)
    several: dict[str, Refits] = {}
    for number, member in enumerate(fit.members):
        watched = part(progress, number / len(fit.members), (number + 1) / len(fit.members))
        several[member.name] = refit(member, table, selections, rng, watched)
    params = {
        parameter_name(member, name): values for member, each in several.items() for name, values in each.params.items()
    }
    params |= {weight_name(member.name): np.full(count, member.weight) for member in fit.members}
    return Refits(
        params={**params, DISCREPANCY: np.zeros(count)},
        determined=np.all([each.determined for each in several.values()], axis=0),
        reasons=tuple(
            next((reason for reason in reasons if reason), "")
            for reasons in zip(*(each.reasons for each in several.values()), strict=True)
        ),
        log_residuals=np.sum([m.weight * several[m.name].log_residuals for m in fit.members], axis=0),
    )
