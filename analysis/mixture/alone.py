"""One law alone: the discrepancy of its own roll-outs, which stands beside its intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.refit import log_residuals
from analysis.mixture.candidates import one_budget
from analysis.mixture.discrepancy_of_cuts import discrepancy
from analysis.mixture.roll_outs import compute_of, roll_outs
from analysis.tables.runs import RunTable
from scaling.columns import TOKENS


def with_discrepancy(fit: Fit, table: RunTable, seed: int = 0) -> Fit:
    """The fit with the discrepancy of its law by roll-out on the table that was fitted (`Fit.interval_beyond`).

    Unchanged without draws, for a law that does not read `n_active` and `tokens`, and for runs of one token budget.
    """
    law = fit.definition
    if not fit.draws or not {"n_active", TOKENS} <= set(law.columns) or not law.divides_compute or one_budget(table):
        return fit
    cuts = roll_outs({fit.law: fit}, table, np.random.default_rng(seed))
    residuals, largest = log_residuals(fit, table), float(compute_of(table).max())
    return replace(fit, discrepancy=discrepancy(cuts, {fit.law: 1.0}, residuals, largest))
