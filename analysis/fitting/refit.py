"""Refits: one fit again on many selections of its runs, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.fitting import identifiability
from analysis.fitting.fit import Fit
from analysis.fitting.problem import search_each
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans
from scaling.errors import InputError


@dataclass(frozen=True)
class Refits:
    """The parameters of every selection, name -> (selections,), pinned ones too, and whether they mean anything.

    `determined` is False where no start converged, or where the runs of a selection refuse a fit
    (`analysis.fitting.identifiability`); `reasons` says why, "" where determined. `log_residuals` (selections, runs)
    are prediction minus observation of ln loss for every run of the table, those left out too.
    """

    params: dict[str, Array]
    determined: Booleans
    reasons: tuple[str, ...]
    log_residuals: Array

    def columns(self, rows: Booleans) -> dict[str, Array]:
        """The parameters of some selections as columns (selections, 1), as a law takes them."""
        return {name: values[rows][:, None] for name, values in self.params.items()}


def refit(fit: Fit, table: RunTable, kept: Booleans, rng: np.random.Generator) -> Refits:
    """Fit the fit's law, under its objective and with its pins, to each selection of runs `kept` (selections, runs).

    Each selection is fitted globally (`problem.search_each`). Pins stay those of the whole table, so that
    selections differ in their runs alone. Raises InputError for a fit without parameters and for a table that is not
    the fit's.
    """
    fit.require_params()
    if kept.ndim != 2 or kept.shape[1] != len(table):
        raise InputError(
            f"the fit has {fit.n_runs} runs, the table {len(table)}, the selections {kept.shape[-1]}: refit the table "
            "that was fitted"
        )
    law, count = fit.definition, len(kept)
    task, estimate = fit.problem(table)
    theta, reached = np.repeat(estimate[None], count, axis=0), np.ones(count, dtype=bool)
    if fit.free and count:
        theta, value, _ = search_each(task, estimate, kept.astype(float), rng)
        reached = np.isfinite(value)
    lower, upper = task.bounds
    observed, residuals, reasons = np.log(task.loss), np.empty(kept.shape), []
    for index, (place, rows) in enumerate(zip(theta, kept, strict=True)):
        log_loss, jacobian = law.log_loss_gradient(place[None], task.free, task.pinned, task.columns)
        residuals[index] = log_loss[0] - observed
        inside = (place > lower + 1e-6) & (place < upper - 1e-6)
        names = [name for name, moves in zip(fit.free, inside, strict=True) if moves]
        left = {name: values[rows] for name, values in task.columns.items()}
        found = identifiability.design_findings(law, left, fit.free, None)
        valley = identifiability.flat_valley(law, names, jacobian[0][np.ix_(inside, rows)]) if names else None
        refused = [str(finding) for finding in (*found, valley) if finding is not None and finding.refused]
        reasons.append("; ".join(refused) if reached[index] else "no start converged")
    free = {name: np.asarray(law.from_coordinates(name, theta[:, i])) for i, name in enumerate(fit.free)}
    return Refits(
        params={name: free[name] if name in free else np.full(count, fit.params[name]) for name in law.names},
        determined=np.array([not reason for reason in reasons], dtype=bool),
        reasons=tuple(reasons),
        log_residuals=residuals,
    )
