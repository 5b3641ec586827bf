"""What a fitted law would have one train at a budget."""

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
    """What a law would have one train at the budget, and the loss it promises."""

    n_experts: int
    n_active: float
    tokens: float
    loss: float


def default_budget(table: RunTable) -> float | None:
    """Ten times the compute of the table's largest run; None where no run has any."""
    compute = finite(table, COMPUTE)
    return float(_BEYOND * compute.max()) if compute.size else None


def advise(fit: Fit, budget: float | None) -> tuple[Advice | None, str]:
    """The model of least loss at a budget, serving not counted, or the reason why there is none."""
    if budget is None:
        return None, f"no budget is known: the table has no {COMPUTE}"
    try:
        best = recommend(replace(fit, draws={}), Question(train_flops=budget)).recommendation
    except InputError as error:
        return None, str(error)
    return Advice(best.n_experts, best.n_active, best.tokens, best.loss), ""
