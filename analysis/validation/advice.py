"""Advice of a fitted law: the model to train at a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit import Fit
from analysis.fitting.fitted_to import finite
from analysis.tables.runs import RunTable
from scaling.columns import COMPUTE
from scaling.errors import InputError

_BEYOND = 10.0  # the default budget, times the largest run's


@dataclass(frozen=True)
class Advice:
    """The model of least loss at a budget by a law, and that loss."""

    n_experts: int
    n_active: float
    tokens: float
    loss: float


def default_budget(table: RunTable) -> float | None:
    """Ten times the compute of the largest run; None where no compute is known."""
    compute = finite(table, COMPUTE)
    return float(_BEYOND * compute.max()) if compute.size else None


def advise(fit: Fit, budget: float | None) -> tuple[Advice | None, str]:
    """The model of least loss at a budget, without serving, or the reason for none."""
    if budget is None:
        return None, f"without {COMPUTE} in the table there is no default budget"
    try:
        best = recommend(replace(fit, draws={}), Question(train_flops=budget)).recommendation
    except InputError as error:
        return None, str(error)
    return Advice(best.n_experts, best.n_active, best.tokens, best.loss), ""
