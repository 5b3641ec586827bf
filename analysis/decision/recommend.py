"""Recommendations: which expert count, size and token budget, at what cost, and how sure that is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.decision.assumptions import assumptions_of
from analysis.decision.built_shape import in_shape
from analysis.decision.law_advice import advice_of_laws
from analysis.decision.lifetime_cost import SECONDS_AN_HOUR, Pricing
from analysis.decision.lineage import as_built, shape_built
from analysis.decision.next_run import most_informative_run, run_towards
from analysis.decision.optima import Optima, SizeOptimiser, expected_regret, unanswered_share
from analysis.decision.published_models import as_models, assumed_lineage, doubts_of_origin, with_lineage
from analysis.decision.question import Question
from analysis.decision.recommendation import MOST_DRAWS, Choice, Cost, Interval, Recommendation, Served
from analysis.decision.reference import reference_of
from analysis.decision.value_of_information import choice_of_least_risk
from analysis.decision.verdict import (
    disagreement_of_draws,
    doubts_about_reference,
    limits_of_the_runs,
    no_answer,
    no_answer_though_found,
    sensitivity_to_speed,
    sensitivity_to_training_speed,
    warnings_about,
)
from analysis.fitting import bca
from analysis.fitting.fit import Fit
from analysis.latency.coverage import require_experts
from analysis.latency.speeds import Speeds
from analysis.laws.model_family import Sizes
from analysis.training_speed.coverage import require_priced
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError
from scaling.serving.replicas import Offer, fewest_devices, sustained
from scaling.serving.service import Layout

_USUAL_EXPERTS = (1, 2, 4, 8, 16, 32)


def recommend(fit: Fit, question: Question, speeds: Speeds | None = None) -> Recommendation:
    """Answer a question from a fit. Cost is 6 N_active D + 2 N_active (T + prompt tokens) FLOPs, or USD with a device.

    Every expert count is optimised over N_active and D, under the estimate and under every draw of the fit (at most
    1,000). `speeds` say how sure the device's speed is (`analysis.latency.law.LatencyLaw.speeds`): each draw of the fit
    meets one, as it does one of the training speed, and prices carry them all. `decided` means: expected regret
    (`Choice.regret`) at most 1 % of the cost, the E chosen best in at least 80 % of the draws and able to answer in at
    least 95 %, not at an edge of the E studied (E = 1 is no edge where it was studied: there is nothing below it), and
    within 30 times the compute of the largest run.
    The E is the best at the estimate or, of a fit whose estimate is no law (`Fit.chooses_by_risk`), that of least
    expected regret; its size and tokens are the best of that E at the estimate.
    At a training budget alone the cost is the same for all, and regret is the extra compute that would make up for the
    loss. Where the optimum is no answer though the formula gives it (`verdict.no_answer_though_found`), `refused` says
    why. Raises InputError where the fit predicts nothing or no expert count can answer.
    """
    return recommend_with_regrets(fit, question, speeds)[0]


def recommend_with_regrets(
    fit: Fit, question: Question, speeds: Speeds | None = None
) -> tuple[Recommendation, Array | None]:
    """`recommend`, and the regret of each of the `candidates` in every draw (`Optima.regrets`), None without draws."""
    fit.require_params()
    if not fit.definition.divides_compute:
        raise InputError(
            f"law {fit.law} predicts {fit.definition.target} from {', '.join(fit.definition.columns)}: it cannot "
            "divide a budget between size and tokens; `scaling predict` evaluates it"
        )
    asked, question = question, with_lineage(fit, question)
    fit = with_settings(fit, question)
    optimiser, experts = SizeOptimiser(fit, question), candidates(fit, question)
    if question.served:
        require_experts(question.service.measured_range, experts)
    if question.device is not None:
        require_priced(optimiser.pricing.training_speed, experts)
    solutions = _solve(optimiser, experts, None if speeds is None else speeds.some())
    possible = solutions.estimate.ranked()
    if not possible:
        raise InputError(no_answer(question, experts))
    draws = solutions.draws
    regrets = draws.regrets() if draws else None
    certainty = _certainty(draws, regrets) if draws and regrets is not None else {}
    choices = [replace(_choice(solutions, e), **certainty.get(e, {})) for e in possible]
    chosen = _of_least_risk(choices, draws, regrets) if fit.chooses_by_risk else choices[0]
    others = [choice for choice in choices if choice is not chosen]
    disagreement = disagreement_of_draws(chosen, others)
    refused = no_answer_though_found(optimiser, chosen)
    reference = reference_of(optimiser)
    doubts = [*refused, *disagreement, *limits_of_the_runs(fit, chosen, experts), *doubts_of_origin(fit)]
    doubts += doubts_about_reference(fit, reference)
    doubts += sensitivity_to_speed(optimiser, possible)
    doubts += sensitivity_to_training_speed(optimiser, choices)
    next_run = None
    if doubts and regrets is not None:
        lineage = optimiser.pricing.family
        if disagreement:
            next_run = most_informative_run(fit, experts, regrets, chosen.n_experts, lineage)
        else:
            next_run = run_towards(fit, chosen.n_experts, chosen.n_active, chosen.tokens, lineage)
    chances = draws.probability_best() if draws else None
    unreachable = tuple(e for e in experts if e not in possible)
    warnings = warnings_about(optimiser, chosen, experts, unreachable)
    if asked.family is None and question.family is not None:
        warnings.append(assumed_lineage())
    recommendation = Recommendation(
        question=question,
        mode=question.mode,
        recommendation=chosen,
        alternatives=tuple(others),
        probability_best=chances,
        best_experts=_likely_best(chances or {}),
        expected_regret=chosen.regret,
        decided=not doubts,
        undecided_because=tuple(doubts),
        next_run=next_run,
        front=optimiser.trade_off(possible, chosen.loss),
        warnings=tuple(warnings),
        assumptions=tuple(assumptions_of(optimiser, choices)),
        law=fit.law,
        fitted_to=fit.source,
        n_draws=min(fit.n_draws, MOST_DRAWS),
        unreachable=unreachable,
        refused=tuple(refused),
        laws=advice_of_laws(optimiser, experts, draws),
        reference=reference,
    )
    return recommendation, regrets


def with_settings(fit: Fit, question: Question) -> Fit:
    """The fit with the question's columns set, of models of the shape that it names (`built_shape.in_shape`). Raises
    InputError for a column that is searched over or not in the law, and for several shapes."""
    fit = in_shape(as_models(fit, question), question)
    law = fit.definition
    free = [name for name in law.columns if name not in (law.n_column, TOKENS, EXPERTS)]
    unknown = [name for name in question.settings if name not in free]
    if unknown:
        others = f"law {law.name} has {', '.join(free) or 'nothing'} to set"
        raise InputError(f"`set` {unknown[0]}: {others}; sizes, tokens and experts are searched over")
    return replace(fit, settings={**fit.settings, **question.settings})


def some_draws(fit: Fit, most: int = MOST_DRAWS) -> dict[str, Any]:
    """The draws of a fit that are used, at most `most`."""
    return {name: value[:most] if np.ndim(value) else value for name, value in fit.parameter_draws().items()}


def candidates(fit: Fit, question: Question) -> list[int]:
    """The expert counts to compare. Raises InputError where the law has none and others than those fitted are asked."""
    if fit.definition.uses_experts:
        return sorted(set(question.n_experts or fit.experts or _USUAL_EXPERTS))
    fit.require_experts(question.n_experts)
    return [fit.only_experts or 1]


@dataclass(frozen=True)
class _Solutions:
    """The optima of a question at the estimate, under draws of the fit, which meet `speeds`, and without each trunk."""

    optimiser: SizeOptimiser
    speeds: Speeds | None
    estimate: Optima
    draws: Optima | None
    jackknife: Optima | None


def _solve(optimiser: SizeOptimiser, experts: Sequence[int], speeds: Speeds | None) -> _Solutions:
    fit, draws, jackknife = optimiser.fit, None, None
    estimate = optimiser.estimate(experts)
    possible, n_draws = estimate.ranked(), min(fit.n_draws, MOST_DRAWS)
    if possible and n_draws:
        draws = _solve_draws(optimiser, experts, estimate, n_draws, speeds)
        if fit.strata:
            jackknife = optimiser.solve(possible, fit.parameter_jackknife(), len(fit.strata))
    return _Solutions(optimiser, speeds, estimate, draws, jackknife)


def _solve_draws(
    optimiser: SizeOptimiser, experts: Sequence[int], estimate: Optima, n_draws: int, speeds: Speeds | None
) -> Optima:
    """The optima under draws: on a device near those at the estimate, which saves most of the time, and anew over all
    sizes for an E of which a draw's optimum lies at the end of those."""
    params, near = some_draws(optimiser.fit), None
    if optimiser.pricing.device is not None and optimiser.pricing.demand is None:
        near = {e: float(estimate.by_experts[e].n_active[0]) for e in estimate.ranked()}
    draws = optimiser.solve(experts, params, n_draws, speeds, near=near, drawn=True)
    far = [e for e, size in (near or {}).items() if not optimiser.all_near(e, draws.by_experts[e], size)]
    if not far:
        return draws
    again = optimiser.solve(far, params, n_draws, speeds, drawn=True)
    return Optima(
        {e: again.by_experts.get(e, draws.by_experts[e]) for e in experts},
        {**draws.budget_slopes, **again.budget_slopes},
    )


def _certainty(draws: Optima, regrets: Array) -> dict[int, dict[str, Any]]:
    """Of every E, by field of `Choice`: how it compares with the others draw by draw."""
    chances = draws.probability_best()
    return {
        e: {"probability_best": chances[e], "regret": None if np.isnan(regret) else regret, "unanswered": share}
        for e, regret, share in zip(
            draws.experts, expected_regret(regrets).tolist(), unanswered_share(regrets).tolist(), strict=True
        )
    }


def _of_least_risk(choices: Sequence[Choice], draws: Optima | None, regrets: Array | None) -> Choice:
    """The choice of least expected regret among those that can answer in nearly all draws, at its size and tokens at
    the estimate; without draws the first."""
    if draws is None or regrets is None:
        return choices[0]
    by_experts = {choice.n_experts: choice for choice in choices}
    columns = [column for column, e in enumerate(draws.experts) if e in by_experts]
    return by_experts[draws.experts[columns[choice_of_least_risk(regrets[:, columns])]]]


def _likely_best(chances: Mapping[int, float]) -> tuple[int, ...]:
    """The fewest E, by share, that hold .95 of the draws in which any E can answer."""
    ranked = sorted(chances, key=lambda e: -chances[e])
    shares_before = itertools.accumulate((chances[e] for e in ranked), initial=0.0)
    needed = 0.95 * sum(chances.values())
    return tuple(sorted(e for e, share in zip(ranked, shares_before, strict=False) if share < needed))


def _choice(solutions: _Solutions, n_experts: int) -> Choice:
    """The optimum of one E, before it is compared with the others."""
    optimiser, optimum = solutions.optimiser, solutions.estimate.by_experts[n_experts]
    fit, pricing, space = optimiser.fit, optimiser.pricing, optimiser.space(n_experts)
    sizes, tokens = space.sizes(optimum.n_active), optimum.tokens
    columns = space.columns(sizes, tokens)
    train, serve = float(pricing.train(sizes, tokens)[0]), float(pricing.serve(sizes)[0])
    memory, n_total = pricing.memory_bytes(sizes), pricing.n_total(sizes)
    is_served = pricing.device is not None and pricing.serve_tokens > 0
    hours = mfu = None
    if pricing.device is not None:
        hours = float((pricing.train_seconds(sizes) * tokens)[0]) / SECONDS_AN_HOUR
        mfu = float(pricing.train_mfu(sizes)[0])
    return Choice(
        n_experts=n_experts,
        top_k=pricing.top_k(sizes),
        n_active=float(optimum.n_active[0]),
        n_total=None if n_total is None else float(n_total[0]),
        tokens=float(tokens[0]),
        train_flops=float(6.0 * sizes.n_computed[0] * tokens[0]),
        loss=float(fit.loss(columns)[0]),
        cost=Cost(train, serve, train + serve, pricing.unit),
        memory_bytes=None if memory is None else float(memory[0]),
        loss_interval=_first(fit.loss_interval(columns)),
        run_interval=_first(fit.prediction_interval(columns)),
        served=_served(pricing, sizes, solutions.speeds) if is_served else None,
        **shape_built(as_built(pricing.family, sizes)),
        train_device_hours=hours,
        train_mfu=mfu,
        **_optimum_intervals(solutions, n_experts),
    )


def _first(interval: tuple[Array, Array] | None) -> Interval | None:
    return None if interval is None else (float(interval[0][0]), float(interval[1][0]))


def _optimum_intervals(solutions: _Solutions, n_experts: int) -> dict[str, Any]:
    """Intervals of N, D and lifetime cost of the optimum of one E, by field of `Choice`; none where no draw has one."""
    if solutions.draws is None:
        return {}
    optimiser, jackknife = solutions.optimiser, None
    estimate = _size_tokens_cost(optimiser, n_experts, solutions.estimate, exact=True)
    draws = _size_tokens_cost(optimiser, n_experts, solutions.draws, solutions.speeds, drawn=True)
    if np.isnan(draws).all():
        return {}
    if solutions.jackknife is not None:
        jackknife = _size_tokens_cost(optimiser, n_experts, solutions.jackknife)
    low, high = bca.interval(estimate[0], draws, jackknife, optimiser.fit.resampled)
    names = ("n_active_interval", "tokens_interval", "cost_interval")
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _size_tokens_cost(
    optimiser: SizeOptimiser,
    n_experts: int,
    optima: Optima,
    speeds: Speeds | None = None,
    *,
    exact: bool = False,
    drawn: bool = False,
) -> Array:
    """N, D and lifetime cost of the optimum of one E in every row (rows, 3); NaN where it has none."""
    optimum = optima.by_experts[n_experts]
    costs = optimiser.lifetime(n_experts, optimum, speeds, exact=exact, drawn=drawn)
    return np.where(np.isnan(costs)[:, None], np.nan, np.stack([optimum.n_active, optimum.tokens, costs], axis=1))


def _served(pricing: Pricing, sizes: Sizes, speeds: Speeds | None) -> Served:
    """What one replica of a model reaches on the device, and what the load takes."""
    offer = pricing.offer(sizes)
    replica = {name: _number(value) for name, value in vars(offer.replica).items() if name != "terms"}
    usd, steps = ([], []) if speeds is None else (drawn[:, 0].tolist() for drawn in pricing.at_speeds(sizes, speeds))
    return Served(
        n_devices=int(replica["n_devices"]),
        fewest_devices=int(_number(fewest_devices(pricing.structure(sizes), pricing.rented, pricing.service))),
        experts_split=bool(replica["experts_split"]),
        batch=int(replica["batch"]),
        ttft_ms=1e3 * replica["ttft_s"],
        tpot_ms=1e3 * replica["tpot_s"],
        e2el_ms=1e3 * replica["e2el_s"],
        output_throughput=replica["output_throughput"],
        request_goodput=replica["request_goodput"],
        weight_gb=replica["weight_bytes"] / 1e9,
        usd_per_million=1e6 * _number(offer.usd_per_token),
        tpot_ms_interval=_interval([1e3 * each for each in steps]),
        usd_per_million_interval=_interval([1e6 * each for each in usd]),
        **_under_load(pricing, sizes, offer),
    )


def _under_load(pricing: Pricing, sizes: Sizes, offer: Offer) -> dict[str, Any]:
    """Replicas that the load takes, with batch and latency of each, by field of `Served`; none without a load."""
    if pricing.demand is None:
        return {}
    replicas = int(_number(offer.replicas))
    layout = Layout(_number(offer.replica.n_devices), bool(_number(offer.replica.experts_split)))
    demand = pricing.demand / max(replicas, 1)
    replica = sustained(pricing.structure(sizes).of(0), pricing.rented, pricing.service, layout, demand)
    return {
        "replicas": replicas,
        "load_batch": float(replica.batch),
        "load_ttft_ms": 1e3 * float(replica.ttft_s),
        "load_tpot_ms": 1e3 * float(replica.tpot_s),
    }


def _number(value: Any) -> float:
    """The value of one model."""
    return float(np.ravel(value)[0])


def _interval(values: Sequence[float]) -> Interval | None:
    if not values:
        return None
    low, high = np.quantile(values, bca.ENDS)
    return float(low), float(high)
