"""Refits: one fit repeated on many selections of its runs at once; residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.identifiability import design_findings, flat_valley, refusals
from analysis.fitting.problem import Problem
from analysis.fitting.search import search_each
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.progress import Progress, silent


@dataclass(frozen=True)
class Refits:
    """The parameters of every selection, name -> (selections,), pinned ones included.

    `determined` is False where no start converged or the runs of a selection determine no fit
    (`analysis.fitting.identifiability`), for the reason in `reasons`, else "". `log_residuals` (selections, runs) are
    prediction minus observation of ln loss for every run of the table, left out or not.
    """

    params: dict[str, Array]
    determined: Booleans
    reasons: tuple[str, ...]
    log_residuals: Array

    def columns(self, rows: Booleans) -> dict[str, Array]:
        """The parameters of some selections as columns (selections, 1), as a law takes them."""
        return {name: values[rows][:, None] for name, values in self.params.items()}


def refit(
    fit: Fit, table: RunTable, selections: Booleans, rng: np.random.Generator, progress: Progress = silent
) -> Refits:
    """Fit the fit's law, under its objective and with its pins, to each selection of runs (selections, runs).

    Each selection is fitted globally (`search.search_each`). Pins stay those of the whole table, so selections differ
    in their runs alone. Raises InputError for a fit without parameters and for another table than that of the fit.
    """
    fit.require_params()
    if selections.ndim != 2 or selections.shape[1] != len(table):
        raise InputError(
            f"the fit has {fit.n_runs} runs, the table {len(table)}, the selections {selections.shape[-1]}: refit the "
            "table that was fitted"
        )
    problem, estimate = fit.problem(table)
    theta, converged = np.repeat(estimate[None], len(selections), axis=0), np.ones(len(selections), dtype=bool)
    if fit.free and len(selections):
        minima = search_each(problem, estimate, selections.astype(float), rng, progress)
        theta, converged = minima.theta, np.isfinite(minima.objective)
    residuals, reasons = np.empty(selections.shape), []
    for index, rows in enumerate(selections):
        log_loss, jacobian = problem.log_loss(theta[index, None])
        residuals[index] = log_loss[0] - np.log(problem.loss)
        refused = _refusals(problem, theta[index], jacobian[0], rows)
        reasons.append("; ".join(refused) if converged[index] else "no start converged")
    free = problem.parameters(theta)
    return Refits(
        params={
            name: free[name] if name in free else np.full(len(selections), fit.params[name])
            for name in fit.definition.names
        },
        determined=np.array([not reason for reason in reasons], dtype=bool),
        reasons=tuple(reasons),
        log_residuals=residuals,
    )


def _refusals(problem: Problem, theta: Array, jacobian: Array, rows: Booleans) -> list[str]:
    """Why these rows determine no fit, if so; `jacobian` (P, runs) is that of the log loss at `theta`."""
    columns = {name: values[rows] for name, values in problem.columns.items()}
    inside = problem.within_bounds(theta)
    names = [name for name, moves in zip(problem.free, inside, strict=True) if moves]
    valley = flat_valley(problem.law, names, jacobian[np.ix_(inside, rows)])
    return refusals([*design_findings(problem.law, columns, problem.free, None), valley])


def log_residuals(fit: Fit, table: RunTable) -> Array:
    """Prediction minus observation of ln loss for every run."""
    law = fit.definition
    return np.asarray(np.log(fit.loss(table.columns(law.columns))) - np.log(table.column(law.target)))
