"""Worth by a law: the speedup of every E at training budgets, and how it changes from budget to budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.decision.question import Question
from analysis.decision.recommend import candidates, some_draws, with_settings
from analysis.decision.recommendation import MOST_DRAWS
from analysis.fitting.fit import Fit
from analysis.worth.equal_loss import Comparison, EqualLoss, fixes_tokens
from analysis.worth.prices import Prices
from analysis.worth.speedup import Growth, Sample, Speedup, factor, factors, growth_of, slope_weights
from scaling.arrays import Array
from scaling.columns import TOKENS
from scaling.errors import InputError
from scaling.formatting import listed

_CURVE = 5  # budgets of a curve
_LEAST_CURVE = 2  # budgets that have a slope
_REACH = 10.0  # times below and above a single budget
_COMPUTE, _TIME, _COST = range(3)
_UNREACHED = "no baseline of up to 1e16 parameters reaches this loss: by the law it lies at or below its least"
_UNSERVED = "the device cannot serve one of the two models: no ratio of cost"


@dataclass(frozen=True)
class LawWorth:
    """Speedups at the budgets asked for (`worth`) and over those around them (`curve`), and their `growth`."""

    worth: tuple[Speedup, ...]
    curve: tuple[Speedup, ...]
    growth: tuple[Growth, ...]


def compared_experts(fit: Fit, question: Question) -> list[int]:
    """The E to compare with the baseline: those asked for, else those studied without it. Raises InputError where there
    are none."""
    law = fit.definition
    if not law.uses_experts:
        raise InputError(
            f"law {law.name} says nothing about experts, so no E can be compared: fit a law with experts, or test runs "
            "of another method against this fit with `baseline` and `candidate`"
        )
    experts = candidates(fit, question)
    if question.n_experts:
        return experts
    others = [e for e in experts if e != question.reference_experts]
    if not others:
        raise InputError(f"the fit knows E = {listed(experts)} alone: give `n_experts`, or another `baseline_experts`")
    return others


def law_worth(fit: Fit, budgets: Sequence[float], prices: Prices, *, around: bool = True) -> LawWorth:
    """The speedups of every E against E = `reference_experts` of the question.

    `around` adds budgets around those asked for, and with them the growth. Intervals are BCa over the draws of the fit
    (`Fit.quantiles`); each draw of the law meets one of the training speed and, where models are served, one of the
    device's speed. Raises InputError where the law cannot compare models at equal loss.
    """
    fit.require_params()
    study = _Study(comparison_of(fit, prices.question), prices)
    experts = compared_experts(study.compared.fit, prices.question)
    curve = curve_budgets(budgets) if around else sorted({*budgets})
    worth: list[Speedup] = []
    along: list[Speedup] = []
    growth: list[Growth] = []
    for e in experts:
        found, logs = study.of(e, curve)
        along += found
        worth += [found[curve.index(budget)] for budget in dict.fromkeys(budgets)]
        if len(curve) < _LEAST_CURVE:
            continue
        slopes = logs.weighted(slope_weights(np.log(curve)))
        growth.append(growth_of(e, (curve[0], curve[-1]), slopes[_COMPUTE], slopes[_TIME].beside(slopes[_COMPUTE])))
    order = {budget: place for place, budget in enumerate(dict.fromkeys(budgets))}
    return LawWorth(tuple(sorted(worth, key=lambda one: order[one.train_flops])), tuple(along), tuple(growth))


def comparison_of(fit: Fit, question: Question) -> Comparison:
    """How models of a fit are matched. Raises InputError for a law that neither divides compute nor fixes tokens."""
    law, tokens = fit.definition, None
    if fixes_tokens(fit):
        tokens = question.settings.get(TOKENS)
        if tokens is None:
            raise InputError(
                f"law {law.name} does not read tokens: every run behind it had as many; give them with `set` "
                f"{TOKENS}=..., and a budget is 6 N D at that D"
            )
        others = {name: value for name, value in question.settings.items() if name != TOKENS}
        fit = with_settings(fit, replace(question, settings=others))
    elif not law.divides_compute:
        raise InputError(
            f"law {law.name} predicts {law.target} from {', '.join(law.columns)}: it cannot compare models at one loss"
        )
    else:
        fit = with_settings(fit, question)
    return Comparison(fit, question.reference_experts, question.family, tokens)


def curve_budgets(asked: Sequence[float]) -> list[float]:
    """The budgets of a curve, ascending: those asked for and evenly spaced ones between them; around a single one a
    decade either way."""
    low, high = min(asked), max(asked)
    if low == high:
        low, high = low / _REACH, high * _REACH
    even = np.geomspace(low, high, _CURVE).tolist()
    apart = [each for each in even if all(abs(np.log(each / budget)) > 1e-6 for budget in asked)]
    return sorted({*asked, *apart})


@dataclass(frozen=True)
class _Study:
    """What is computed for one E after another."""

    compared: Comparison
    prices: Prices

    def of(self, n_experts: int, budgets: Sequence[float]) -> tuple[list[Speedup], Sample]:
        """The speedups of one E, and their logarithms (3 kinds, budgets)."""
        fit = self.compared.fit
        matched, estimate = self._logs(n_experts, budgets, fit.params, 1)
        draws = jackknife = None
        if fit.n_draws:
            count = min(fit.n_draws, MOST_DRAWS)
            draws = self._logs(n_experts, budgets, some_draws(fit), count, drawn=True)[1]
            if fit.strata and fit.jackknife:
                jackknife = self._logs(n_experts, budgets, fit.parameter_jackknife(), len(fit.strata))[1]
        logs = Sample(estimate[0], draws, jackknife, fit.resampled)
        return [self._speedup(one, logs, place) for place, one in enumerate(matched)], logs

    def _logs(
        self,
        n_experts: int,
        budgets: Sequence[float],
        params: Mapping[str, Any],
        rows: int,
        *,
        drawn: bool = False,
    ) -> tuple[list[EqualLoss], Array]:
        """The matched models at every budget, and ln of the ratios of compute, time and cost (rows, 3, budgets)."""
        matched = [self.compared.at(n_experts, budget, params, rows) for budget in budgets]
        logs = []
        for one in matched:
            by_time = self.prices.log_time_ratio(self.compared, one, drawn=drawn)
            by_cost = self.prices.log_cost_ratio(self.compared, one, drawn=drawn)
            logs.append(np.stack([one.log_speedup, by_time, by_cost], axis=1))
        return matched, np.stack(logs, axis=2)

    def _speedup(self, matched: EqualLoss, logs: Sample, place: int) -> Speedup:
        compute = logs[_COMPUTE, place]
        time, cost = (logs[kind, place].beside(compute) for kind in (_TIME, _COST))
        model, baseline = matched.model, matched.baseline
        reached = compute.value is not None
        beyond = None if compute.draws is None else float(np.mean(np.isposinf(compute.draws)))
        missing = _UNREACHED if not reached else _UNSERVED if cost.value is None else ""

        def known(value: Array) -> float | None:
            return float(value[0]) if reached else None

        return Speedup(
            n_experts=matched.n_experts,
            train_flops=matched.train_flops,
            compute_speedup=factor(compute.value),
            compute_interval=factors(compute.interval),
            time_speedup=factor(time.value),
            time_interval=factors(time.interval),
            cost_speedup=factor(cost.value),
            cost_interval=factors(cost.interval),
            above_one=compute.above(0.0),
            time_above_one=time.above(0.0),
            unreachable=beyond,
            loss=float(model.value[0]),
            n_active=float(model.n_active[0]),
            tokens=float(model.tokens[0]),
            baseline_flops=known(baseline.value),
            baseline_n_active=known(baseline.n_active),
            baseline_tokens=known(baseline.tokens),
            reason=missing,
        )
