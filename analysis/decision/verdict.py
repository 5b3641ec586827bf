"""The verdict: why a recommendation is not decided, what to be warned of, and what was assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.decision.assumptions import explained
from analysis.decision.optima import MOST_REGRET, UNANSWERED_LIMIT, SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommendation import DRAWS_NEEDED, EXTRAPOLATION_LIMIT, PROBABILITY_NEEDED, REGRET_LIMIT, Choice
from analysis.fitting.fit import AS_ASKED, Fit
from analysis.laws.model_family import Sizes
from scaling.columns import TOKENS
from scaling.serving.step_time import ASSUMED


def disagreement(chosen: Choice) -> list[str]:
    """What the draws say against the choice; empty where they agree on it, or where there are none."""
    best, chance, regret = chosen.n_experts, chosen.probability_best, chosen.regret
    found: list[str] = []
    if chance is not None and chance < PROBABILITY_NEEDED:
        found.append(f"E = {best} is best in {chance:.0%} of the draws, {PROBABILITY_NEEDED:.0%} are needed")
    if regret is not None and regret > REGRET_LIMIT:
        found.append(f"choosing E = {best} is expected to cost {regret:.1%} too much, {REGRET_LIMIT:.0%} is allowed")
    if chosen.unanswered is not None and chosen.unanswered > UNANSWERED_LIMIT:
        found.append(
            f"in {chosen.unanswered:.0%} of the draws no size of E = {best} meets the loss within the limits given, "
            f"{UNANSWERED_LIMIT:.0%} is allowed"
        )
    return found


def limits_of_the_runs(fit: Fit, chosen: Choice, experts: Sequence[int]) -> list[str]:
    """Why the answer could not be decided even if the draws agreed."""
    doubts: list[str] = []
    best = chosen.n_experts
    if chosen.probability_best is None:
        doubts.append("the fit has no bootstrap draws, so how sure the answer is cannot be said")
    elif fit.n_draws < DRAWS_NEEDED:
        doubts.append(f"{fit.n_draws} bootstrap draws are too few to be sure by; {DRAWS_NEEDED} are needed")
    borrowed = [name for name, pin in fit.pinned.items() if pin.source != AS_ASKED and _of_experts(fit, name)]
    if borrowed and len(experts) > 1:
        doubts.append(
            f"{', '.join(borrowed)} of the effect of experts are other people's values, taken as exact: these runs do "
            "not identify them"
        )
    if fit.definition.uses_experts:
        if len(experts) == 1:
            doubts.append(f"E = {best} is the only expert count that was compared")
        if not fit.experts:
            doubts.append("the fit does not say which expert counts were studied")
        elif best >= fit.experts[-1] or best < fit.experts[0] or (best == fit.experts[0] and best != 1):
            doubts.append(f"E = {best} is at or beyond an edge of the expert counts studied, {_listed(fit.experts)}")
    largest = fit.largest_train_flops
    if largest is None:
        doubts.append("the fit does not say how large its largest run was")
    elif chosen.train_flops > EXTRAPOLATION_LIMIT * largest:
        doubts.append(
            f"training it takes {chosen.train_flops / largest:.0f} times the compute of the largest run; "
            f"{EXTRAPOLATION_LIMIT:.0f} times is allowed"
        )
    return doubts


def assumed_speed(task: SizeOptimiser, experts: Sequence[int], best: int) -> list[str]:
    """Whether another E would be best if the device reached half as much, or half as much more, as was assumed
    unmeasured."""
    question, reached = task.question, task.question.service.efficiency
    if task.pricing.device is None or not task.pricing.serve_tokens or reached.source != ASSUMED.source:
        return []
    for name, what in (("bandwidth_share", "bandwidth"), ("flops_share", "peak FLOP/s in serving")):
        for factor in (0.5, 1.5):
            share = min(1.0, factor * getattr(reached, name))
            service = replace(question.service, efficiency=replace(reached, **{name: share}))
            other = SizeOptimiser(task.fit, replace(question, service=service)).solve(experts, dict(task.fit.params), 1)
            values = {e: float(other.value(e)[0]) for e in experts}
            leads = min(values, key=lambda e: values[e])
            if leads != best:
                return [
                    f"what the device reaches is assumed, not measured: at {share:.0%} of its {what} E = {leads} would "
                    "be best (--latency takes a measurement)"
                ]
    return []


def _of_experts(fit: Fit, name: str) -> bool:
    return fit.definition.parameter(name).role in ("expert", "saturation", "interaction")


def warnings_about(
    task: SizeOptimiser, question: Question, chosen: Choice, unreachable: Sequence[int], asked: Sequence[int]
) -> list[str]:
    fit = task.fit
    found = [f"the fit: {warning}" for warning in fit.warnings]
    where = {"n_active": chosen.n_active, TOKENS: chosen.tokens, "train_flops": chosen.train_flops}
    found += [f"extrapolation: {text}" for text in fit.outside_domain(where)]
    if fit.experts and fit.definition.uses_experts:
        unseen = [e for e in asked if e not in fit.experts]
        if unseen:
            found.append(f"E = {_listed(unseen)} was not studied; studied were {_listed(fit.experts)}")
    reference = question.reference_experts
    kept = question.budget is not None and question.goal != "loss"
    if kept and fit.experts and fit.definition.uses_experts and reference not in fit.experts:
        found.append(
            f"the loss to keep is that of E = {reference}, which was not studied; --reference-experts names another"
        )
    if unreachable:
        found.append(f"E = {_listed(unreachable)} cannot answer: no size of it meets the loss within the limits given")
    if question.memory_gb is not None and _sizes(task, chosen).kv_elements_per_token is None:
        found.append("the fit knows no widths: the cache of keys and values is not in the memory")
    text = fit.corpus_tokens
    if text is not None and chosen.tokens > text * (1 + 1e-9):
        found.append(
            f"D = {chosen.tokens:.2g} is {chosen.tokens / text:.2g} epochs of the text that was studied "
            f"({text:.2g} tokens): the law knows no repetition"
        )
    return found


def assumptions_of(task: SizeOptimiser, chosen: Choice) -> list[str]:
    """What was computed and how, in the words of this question."""
    fit, pricing = task.fit, task.pricing
    told = explained(pricing, _sizes(task, chosen))
    if fit.family is not None:
        told.append(f"sizes between the studied ones: {fit.family.source}")
    elif chosen.n_total is None:
        told.append("total sizes are unknown: the fit has no n_total")
    if chosen.probability_best is not None:
        beyond = (
            "how much more of the budget would make up for its loss, to first order,"
            if task.loss_is_minimised
            else f"what it costs in {pricing.unit}"
        )
        told.append(
            f"regret of an E: {beyond} beyond the best E of a draw, at most {MOST_REGRET:g} times the cost, mean over "
            "the draws in which it can answer; those in which it cannot (unmet) are counted apart"
        )
    if fit.definition.uses_experts and chosen.n_experts == 1 and 1 in fit.experts:
        told.append("E = 1 is the smallest E studied and counts as no edge: there is nothing below a dense model")
    told.append(
        "run-to-run noise was not estimated: no configuration was repeated with another seed"
        if fit.noise is None
        else f"run-to-run noise of ln loss {fit.noise:.2g}: in the interval of one run, not in that of the law"
    )
    return told


def _sizes(task: SizeOptimiser, chosen: Choice) -> Sizes:
    """The counts of the model that was chosen."""
    return task.space(chosen.n_experts, dict(task.fit.params)).sizes(np.array([chosen.n_active]))


def no_answer(question: Question, asked_experts: Sequence[int]) -> str:
    if question.target_loss is not None:
        asked = f"loss {question.target_loss:g}"
    elif question.budget is not None:
        asked = f"the budget {question.budget:g} FLOPs"
    else:
        asked = f"the lifetime cost {question.lifetime_cost:g} {question.pricing.unit}"
    service = question.service
    limits = {
        "GB": question.memory_gb,
        "tokens of data": question.data_tokens,
        "USD a million tokens": question.usd_per_million,
        "s to the first token": service.ttft_s,
        "s a further token": service.tpot_s,
    }
    told = "".join(f", {value:g} {name}" for name, value in limits.items() if value is not None)
    return (
        f"no model with E = {_listed(asked_experts)} meets {asked}{told}: below the law's irreducible loss, or too "
        "large for memory, price, data or latency; ask for a higher loss or allow more"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
