"""The verdict: why a recommendation is not decided, and what to be warned of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.decision.lineage import unlike_the_runs
from analysis.decision.next_run import beyond_edge
from analysis.decision.optima import UNANSWERED_LIMIT, SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommendation import DRAWS_NEEDED, EXTRAPOLATION_LIMIT, PROBABILITY_NEEDED, REGRET_LIMIT, Choice
from analysis.decision.reference import Reference
from analysis.fitting.fit import AS_ASKED, Fit
from analysis.fitting.limits import FAR, refused_of_optimum
from analysis.fitting.studied import plausible_ratios
from analysis.latency.coverage import not_covered, unseen_experts
from analysis.laws.model_family import Sizes
from analysis.training_speed.coverage import not_covered as not_covered_in_training
from scaling.columns import TOKENS
from scaling.formatting import between, listed, si
from scaling.serving.published_training import ASSUMED as ASSUMED_TRAINING
from scaling.serving.service import Service
from scaling.serving.step_time import ASSUMED
from scaling.serving.training_speed import MfuByExperts

_WITHIN_95 = 1.96  # standard deviations
# Doubts of a table (`analysis.tables.doubts`) that say its numbers may be others than they are taken for.
_MISREAD = (
    "unit", "mixed_units", "perplexity", "loss_rises", "loss_above_uniform", "active_above_total",
    "top_k_above_experts", "few_tokens",
)  # fmt: skip


def disagreement_of_draws(chosen: Choice, others: Sequence[Choice] = ()) -> list[str]:
    """How the draws contradict the choice; empty where they agree on it, or where there are none. Names the E of
    `others` that has less expected regret, where there is one: the choice is that of the estimate."""
    best, chance, regret, unanswered = chosen.n_experts, chosen.probability_best, chosen.regret, chosen.unanswered
    doubts: list[str] = []
    if chance is not None and chance < PROBABILITY_NEEDED:
        doubts.append(f"E = {best} is best in only {chance:.0%} of draws ({PROBABILITY_NEEDED:.0%} required)")
    if regret is not None and regret > REGRET_LIMIT:
        safer = min((c for c in others if _risks_less(c, regret)), key=lambda c: c.regret or 0.0, default=None)
        instead = "" if safer is None else f"; that of E = {safer.n_experts} is {safer.regret:.1%}"
        doubts.append(f"its expected regret is {regret:.1%} (limit {REGRET_LIMIT:.0%}){instead}")
    if unanswered is not None and unanswered > UNANSWERED_LIMIT:
        doubts.append(
            f"in {unanswered:.0%} of draws no model with E = {best} reaches the loss within the limits (at most "
            f"{UNANSWERED_LIMIT:.0%} allowed)"
        )
    return doubts


def _risks_less(choice: Choice, regret: float) -> bool:
    """Whether an E has less expected regret, and answers in nearly all draws."""
    return choice.regret is not None and choice.regret < regret and (choice.unanswered or 0.0) <= UNANSWERED_LIMIT


def limits_of_the_runs(fit: Fit, chosen: Choice, experts: Sequence[int]) -> list[str]:
    """Why the answer could not be decided even if the draws agreed."""
    doubts: list[str] = []
    best, law, largest = chosen.n_experts, fit.definition, fit.largest_train_flops
    in_doubt = dict.fromkeys(name for doubt in fit.doubts if doubt.code in _MISREAD for name in doubt.columns)
    if in_doubt:
        doubts.append(f"{listed(in_doubt)} of the runs may be misread, in another unit or swapped (see the warnings)")
    if fit.prior is not None and fit.prior.doubt:
        doubts.append(fit.prior.doubt)
    if chosen.probability_best is None:
        doubts.append("the fit has no draws to say how certain the answer is")
    elif fit.n_draws < DRAWS_NEEDED:
        doubts.append(f"{fit.n_draws} draws are too few ({DRAWS_NEEDED} required)")
    of_experts = {p.name for p in law.parameters if p.role in ("expert", "saturation", "interaction")}
    pinned = [name for name, pin in fit.pinned.items() if pin.source != AS_ASKED and name in of_experts]
    borrowed = list(dict.fromkeys(name.rpartition(".")[2] for name in pinned))  # members of a mixture share names
    if borrowed and len(experts) > 1:
        doubts.append(
            f"{', '.join(borrowed)}, which set the effect of experts, are fixed at published values that these runs "
            "cannot estimate"
        )
    if law.uses_experts:
        if len(experts) == 1:
            doubts.append(f"only E = {best} was compared")
        if not fit.experts:
            doubts.append("the fit does not record which expert counts were studied")
        elif beyond_edge(fit, best) is not None:
            doubts.append(f"E = {best} is at or beyond the edge of the expert counts studied ({listed(fit.experts)})")
    if largest is None:
        doubts.append("the fit does not record the compute of its largest run")
    elif chosen.train_flops > EXTRAPOLATION_LIMIT * largest:
        doubts.append(
            f"training takes {chosen.train_flops / largest:.0f} times the compute of the largest run (limit "
            f"{EXTRAPOLATION_LIMIT:.0f})"
        )
    return doubts


def doubts_about_reference(fit: Fit, reference: Reference | None) -> list[str]:
    """Why the law's loss of the reference is not to be believed: of an E that was not studied, of tokens per parameter
    that nobody trains at (`plausible_ratios`), or of far more compute than any run of its E."""
    if reference is None or reference.n_active is None or reference.tokens is None or reference.n_experts is None:
        return []
    e, doubts = reference.n_experts, []
    model = f"{si(reference.n_active)} active parameters on {si(reference.tokens)} tokens"
    if fit.definition.uses_experts and fit.experts and e not in fit.experts:
        doubts.append(
            f"the loss to keep is that of E = {e}, which was not studied; `reference_experts` or `reference_loss` "
            "names another"
        )
    ratio, (low, high) = reference.tokens / reference.n_active, plausible_ratios(fit, e)
    if not low <= ratio <= high:
        doubts.append(
            f"the loss to keep is that of {si(ratio)} tokens per parameter ({model}), outside {si(low)} to {si(high)}; "
            "`reference_fit`, `reference_model` or `reference_loss` names another"
        )
    runs, compute = fit.studied.get(e), 6.0 * reference.n_active * reference.tokens
    if runs is not None and runs.train_flops is not None and compute > EXTRAPOLATION_LIMIT * runs.train_flops[1]:
        doubts.append(
            f"the loss to keep is that of a model of {compute / runs.train_flops[1]:.0f} times the compute of the "
            f"largest run with E = {e} (limit {EXTRAPOLATION_LIMIT:.0f}): {model}"
        )
    return doubts


def no_answer_though_found(optimiser: SizeOptimiser, chosen: Choice) -> list[str]:
    """Why the optimum is no answer, though the formula gives it: the law is not known there (`limits`), or the device's
    speed was not measured at anything like its E."""
    space = optimiser.space(chosen.n_experts)
    sizes = space.sizes(np.array([chosen.n_active]))
    columns = space.columns(sizes, np.array([chosen.tokens]))
    refused = list(refused_of_optimum(optimiser.fit, columns, chosen.train_flops))
    if (ends := chosen.n_active_interval) is not None and ends[1] > FAR * ends[0]:
        refused.append(
            f"its size is not known to within a factor of {FAR:g}: the 95 % interval of N_active is {between(ends)}"
        )
    if optimiser.pricing.device is not None and chosen.served is not None:
        refused += unseen_experts(optimiser.question.service.measured_range, chosen.n_experts)
    return refused


def sensitivity_to_speed(optimiser: SizeOptimiser, ranked: Sequence[int]) -> list[str]:
    """Whether another E than the first of `ranked`, those that can answer, would be best if the device reached half as
    much, or half as much more, as was assumed without a measurement."""
    question, reached = optimiser.question, optimiser.question.service.efficiency
    if optimiser.pricing.device is None or not optimiser.pricing.serve_tokens or not _is_assumed(question.service):
        return []
    for name, quantity in (("bandwidth_share", "bandwidth"), ("flops_share", "peak FLOP/s in serving")):
        for factor in (0.5, 1.5):
            share = min(1.0, factor * getattr(reached, name))
            service = replace(question.service, efficiency=replace(reached, **{name: share}))
            best = optimiser.asked(replace(question, service=service)).estimate(ranked).ranked()[:1]
            if best and best[0] != ranked[0]:
                return [
                    f"device efficiency is assumed, not measured: at {share:.0%} of its {quantity} E = {best[0]} would "
                    "be best (`latency` reads a measurement)"
                ]
    return []


def sensitivity_to_training_speed(optimiser: SizeOptimiser, choices: Sequence[Choice]) -> list[str]:
    """Whether another E than that of the first of `choices` would be best if MFU, whose fall with E was assumed, fell
    as little or as much as 95 % of the settings that were published, where training is paid for in USD; of a measured
    speed, what it does not cover."""
    question, speed = optimiser.question, optimiser.pricing.training_speed
    in_money = question.goal == "lifetime" or question.train_usd is not None or question.lifetime_cost is not None
    if optimiser.pricing.device is None or not in_money:
        return []
    if not isinstance(speed, MfuByExperts) or speed.name != ASSUMED_TRAINING:
        sizes = optimiser.sizes(choices[0].n_experts, choices[0].n_active)
        return not_covered_in_training(speed, [choice.n_experts for choice in choices], _widths(sizes))
    chosen, near = choices[0].n_experts, {choice.n_experts: choice.n_active for choice in choices}
    for ends in (-1.0, 1.0):
        slope = max(speed.slope + ends * _WITHIN_95 * speed.slope_spread, 0.0)
        otherwise = replace(question, training_speed=replace(speed, slope=slope), mfu=None)
        best = optimiser.asked(otherwise).estimate_near(dict(sorted(near.items()))).ranked()[:1]
        if best and best[0] != chosen:
            falls = f"falling with E as E^-{slope:.2f}" if slope else "equal at every E"
            return [
                f"training speed is assumed, not measured: with an MFU {falls} E = {best[0]} would be best "
                "(`training_speed` takes a measurement)"
            ]
    return []


def _is_assumed(service: Service) -> bool:
    """Whether the speed of the device was neither measured nor fitted nor given."""
    return service.engine is None and service.efficiency.source == ASSUMED.source


def warnings_about(
    optimiser: SizeOptimiser, chosen: Choice, experts: Sequence[int], unreachable: Sequence[int]
) -> list[str]:
    """What to know before the answer is used: extrapolation, E that were not studied or cannot answer, repetition."""
    fit, question = optimiser.fit, optimiser.question
    warnings = [f"the fit: {warning}" for warning in fit.warnings]
    where = {"n_active": chosen.n_active, TOKENS: chosen.tokens, "train_flops": chosen.train_flops}
    warnings += [f"extrapolation: {outside}" for outside in fit.outside_domain(where)]
    if fit.experts and fit.definition.uses_experts:
        unseen = [e for e in experts if e not in fit.experts]
        if unseen:
            warnings.append(f"E = {listed(unseen)} was not studied; studied were {listed(fit.experts)}")
    warnings += _beyond_measured_speed(optimiser, chosen, experts)
    warnings += unlike_the_runs(optimiser.pricing.family, fit.family, chosen.n_experts)
    if unreachable:
        warnings.append(f"E = {listed(unreachable)} is ruled out: no size reaches the loss within the limits given")
    if question.memory_gb is not None and not optimiser.pricing.knows_the_cache(
        optimiser.sizes(chosen.n_experts, chosen.n_active)
    ):
        warnings.append("the fit has no layer widths: memory leaves out the KV cache")
    text = fit.corpus_tokens
    if text is not None and chosen.tokens > text * (1 + 1e-9):
        warnings.append(
            f"{si(chosen.tokens)} tokens are {chosen.tokens / text:.2g} epochs of the corpus ({si(text)} tokens); the "
            "law does not model repeated data"
        )
    return warnings


def _widths(sizes: Sizes) -> dict[str, float]:
    """Width and depth of a model, where they are known."""
    known = (("d_model", sizes.d_model), ("n_layers", sizes.n_layers))
    return {name: float(np.ravel(count)[0]) for name, count in known if count is not None}


def _beyond_measured_speed(optimiser: SizeOptimiser, chosen: Choice, experts: Sequence[int]) -> list[str]:
    """What of the models priced lies outside the measurement of the device's speed, where they are served."""
    service, device = optimiser.question.service, optimiser.pricing.device
    if device is None or chosen.served is None:
        return []
    sizes = optimiser.sizes(chosen.n_experts, chosen.n_active)
    priced = {"batch": float(chosen.served.batch), "context": service.mean_context}
    priced |= _widths(sizes)
    top_k = float(chosen.top_k or 0) if chosen.n_experts > 1 else 0.0
    at_once = 1.0 if service.apart else max(1.0, priced["batch"] / service.generated)
    prompts = sorted({1.0, at_once})  # alone for the time to the first token, and beside what is decoded
    return not_covered(service.measured_range, experts, top_k, priced, device.dtype, prompts)


def no_answer(question: Question, experts: Sequence[int]) -> str:
    """What to say where no E can answer: what was to be met, within which limits."""
    if question.target_loss is not None:
        goal = f"loss {question.target_loss:g}"
    elif question.budget is not None:
        goal = f"the budget {question.budget:g} {'USD' if question.budget_unit == 'USD' else 'FLOPs'}"
        if question.reference_loss is not None:
            goal += f" and loss {question.reference_loss:g}"
    else:
        goal = f"the lifetime cost {question.lifetime_cost:g} {question.pricing.unit}"
    limits = {
        "GB": question.memory_gb,
        "tokens of data": question.data_tokens,
        "USD a million tokens": question.usd_per_million,
        "ms to the first token (`ttft_ms`)": _in_ms(question.service.ttft_s),
        "ms per further token (`tpot_ms`)": _in_ms(question.service.tpot_s),
    }
    within = "".join(f", {value:g} {name}" for name, value in limits.items() if value is not None)
    if question.target_loss is None:
        cause, remedy = "every size is too large for the limits given, or the budget too small", "allow more"
        if question.keeps_a_loss and (question.loss_asked or question.reference_model or question.reference_fit):
            cause, remedy = f"{cause} for the loss to keep", f"{remedy}, or keep a higher loss"
    else:
        cause = "the loss lies below the law's irreducible loss, or every size that reaches it exceeds the limits given"
        remedy = "ask for a higher loss or allow more"
    return f"no model with E = {listed(experts)} meets {goal}{within}: {cause}; {remedy}"


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
