"""Worth by a law of leverage: efficiency leverage is the ratio of compute at equal loss, which the law itself gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.decision.question import Question
from analysis.fitting.fit import Fit
from analysis.worth.of_law import curve_budgets
from analysis.worth.speedup import Growth, Sample, Speedup, factor, factors, growth_of, slope_weights
from scaling.arrays import Array
from scaling.columns import COMPUTE
from scaling.errors import InputError
from scaling.formatting import listed

LEVERAGE = "compute_leverage"
_NO_TIME = "the law gives a ratio of compute: it knows no E to price time by"


@dataclass(frozen=True)
class LeverageWorth:
    """Speedups at the budgets asked for and around them, their growth, and what lies outside the fitted ranges."""

    worth: tuple[Speedup, ...]
    curve: tuple[Speedup, ...]
    growth: tuple[Growth, ...]
    warnings: tuple[str, ...]


def is_leverage(fit: Fit) -> bool:
    """Whether the law predicts C_dense/C at equal loss (arXiv 2507.17702) and no loss."""
    return fit.definition.target == LEVERAGE


def leverage_worth(fit: Fit, question: Question, budgets: Sequence[float]) -> LeverageWorth:
    """EL(A, G, C) at every budget, A and G from the question's `settings`. Raises InputError where one is missing."""
    law = fit.definition
    given = {**fit.settings, **question.settings}
    missing = [name for name in law.columns if name != COMPUTE and name not in given]
    if missing:
        raise InputError(
            f"law {law.name} reads {listed(law.columns)}: give {listed(missing)} with `set` {missing[0]}=..."
        )
    unknown = [name for name in given if name not in law.columns or name == COMPUTE]
    if unknown:
        raise InputError(
            f"`set` {unknown[0]}: law {law.name} has {listed(n for n in law.columns if n != COMPUTE)} to set"
        )
    if question.reference_experts != 1:
        raise InputError(f"law {law.name} compares with dense models alone: leave out `baseline_experts`")
    curve = curve_budgets(budgets)
    columns = {**{name: np.full(len(curve), given[name]) for name in given}, COMPUTE: np.array(curve)}

    def log_ratio(params: object) -> Array:
        return np.atleast_2d(law.log_loss(params, columns))  # type: ignore[arg-type]

    draws = log_ratio(fit.parameter_draws()) if fit.n_draws else None
    jackknife = log_ratio(fit.parameter_jackknife()) if fit.strata and fit.jackknife else None
    logs = Sample(log_ratio(fit.params)[0], draws, jackknife, fit.resampled)
    found = tuple(_speedup(budget, logs[place]) for place, budget in enumerate(curve))
    slope = logs.weighted(slope_weights(np.log(curve)))
    growth = growth_of(None, (curve[0], curve[-1]), slope, slope)
    only_compute = replace(growth, time_slope=None, time_interval=None, time_grows=None)
    outside = [line for budget in budgets for line in fit.outside_domain({**given, COMPUTE: budget})]
    return LeverageWorth(
        worth=tuple(found[curve.index(budget)] for budget in dict.fromkeys(budgets)),
        curve=found,
        growth=(only_compute,),
        warnings=tuple(f"extrapolation: {line}" for line in dict.fromkeys(outside)),
    )


def _speedup(budget: float, log_ratio: Sample) -> Speedup:
    ratio = factor(log_ratio.value)
    return Speedup(
        n_experts=None,
        train_flops=budget,
        compute_speedup=ratio,
        compute_interval=factors(log_ratio.interval),
        above_one=log_ratio.above(0.0),
        baseline_flops=None if ratio is None else ratio * budget,
        reason=_NO_TIME,
    )
