"""Recommendations: which expert count, size and token budget, at what cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.decision import next_run
from analysis.decision.lifetime_cost import memory_bytes, structure
from analysis.decision.optima import Optima, SizeOptimiser, expected_regret, unanswered
from analysis.decision.question import Question
from analysis.decision.recommendation import MOST_DRAWS, Choice, Cost, Interval, Recommendation, Served
from analysis.decision.size_search import Optimum
from analysis.decision.verdict import (
    assumed_speed,
    assumptions_of,
    disagreement,
    limits_of_the_runs,
    no_answer,
    warnings_about,
)
from analysis.fitting import bca
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from analysis.laws.model_family import Sizes
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError
from scaling.serving import replicas as fleet
from scaling.serving.service import Layout

_USUAL_EXPERTS = (1, 2, 4, 8, 16, 32)


def recommend(fit: Fit, question: Question, speeds: Speeds | None = None) -> Recommendation:
    """Answer a question from a fit. Cost is 6 N_active D + 2 N_active T FLOPs, or USD with a device.

    Every expert count is optimised over N_active and D, under the estimate and under every draw of the fit (at most
    1,000). `speeds` say how sure the device's speed is (`analysis.latency.law.LatencyLaw.speeds`): each draw of the fit
    meets one, and prices carry both. `decided` means: expected regret (`Choice.regret`) at most 1 % of the cost, the E
    chosen best in at least 80 % of the draws and able to answer in at least 95 %, not at an edge of the E studied (E =
    1 is no edge where it was studied: there is nothing below it), and within 30 times the compute of the largest run.
    At a training budget alone the cost is the same for all, and regret is the extra compute that would make up for the
    loss. Raises InputError where the fit predicts nothing or no expert count can answer.
    """
    return answer(fit, question, speeds)[0]


def answer(fit: Fit, question: Question, speeds: Speeds | None = None) -> tuple[Recommendation, Array | None]:
    """`recommend`, and what each of the `candidates` costs beyond the best of a draw (`Optima.regrets`), None without
    draws."""
    fit.require_params()
    if not fit.definition.divides_compute:
        raise InputError(
            f"law {fit.law} predicts {fit.definition.target} from {', '.join(fit.definition.columns)}: it cannot "
            "divide a budget between size and tokens; `scaling predict` evaluates it"
        )
    fit = with_settings(fit, question)
    task = SizeOptimiser(fit, question)
    asked = candidates(fit, question)
    estimated = task.solve(asked, dict(fit.params), 1)
    possible = [e for e in asked if np.isfinite(estimated.value(e)[0])]
    if not possible:
        raise InputError(no_answer(question, asked))
    possible.sort(key=lambda e: float(estimated.value(e)[0]))
    best, n_draws = possible[0], min(fit.n_draws, MOST_DRAWS)
    met = None if speeds is None else speeds.some()
    drawn = task.solve(asked, some_draws(fit), n_draws, met) if n_draws else None
    left = task.solve(possible, fit.parameter_jackknife(), len(fit.strata)) if n_draws and fit.strata else None
    regrets = drawn.regrets() if drawn else None
    chances = drawn.probability_best() if drawn else None
    expected = dict(zip(asked, expected_regret(regrets).tolist(), strict=True)) if regrets is not None else {}
    missed = dict(zip(asked, unanswered(regrets).tolist(), strict=True)) if regrets is not None else {}
    choices = [
        replace(
            _choice(task, e, estimated, drawn, left, met),
            probability_best=None if chances is None else chances[e],
            regret=None if np.isnan(expected.get(e, np.nan)) else expected[e],
            unanswered=missed.get(e),
        )
        for e in possible
    ]
    unsure = disagreement(choices[0])
    doubts = [*unsure, *limits_of_the_runs(fit, choices[0], asked), *assumed_speed(task, possible, best)]
    unreachable = tuple(e for e in asked if e not in possible)
    found = Recommendation(
        question=question,
        mode=question.mode,
        recommendation=choices[0],
        alternatives=tuple(choices[1:]),
        probability_best=chances,
        best_experts=_likely_best(chances or {}),
        expected_regret=choices[0].regret,
        decided=not doubts,
        undecided_because=tuple(doubts),
        next_run=next_run.propose_next_run(fit, asked, best, choices[0].train_flops, regrets, bool(unsure))
        if doubts
        else None,
        front=task.trade_off(possible, choices[0].loss),
        warnings=tuple(warnings_about(task, question, choices[0], unreachable, asked)),
        assumptions=tuple(assumptions_of(task, choices[0])),
        law=fit.law,
        fitted_to=fit.source,
        n_draws=n_draws,
        unreachable=unreachable,
    )
    return found, regrets


def _likely_best(chances: Mapping[int, float]) -> tuple[int, ...]:
    """The fewest E, by share, that hold .95 of the draws in which any E can answer."""
    kept: list[int] = []
    held, wanted = 0.0, 0.95 * sum(chances.values())
    for e, share in sorted(chances.items(), key=lambda pair: -pair[1]):
        if held >= wanted:
            break
        kept.append(e)
        held += share
    return tuple(sorted(kept))


def with_settings(fit: Fit, question: Question) -> Fit:
    """The fit with the question's columns set. Raises InputError for one that the law lacks, or that is searched
    over."""
    law = fit.definition
    free = [name for name in law.columns if name not in (law.n_column, TOKENS, EXPERTS)]
    unknown = [name for name in question.settings if name not in free]
    if unknown:
        others = f"law {law.name} has {', '.join(free)} to set" if free else f"law {law.name} has nothing to set"
        raise InputError(f"--set {unknown[0]}: {others}; sizes, tokens and experts are searched over")
    return replace(fit, settings={**fit.settings, **question.settings})


def some_draws(fit: Fit) -> dict[str, Any]:
    """The draws of a fit that are used, at most `MOST_DRAWS`."""
    return {name: value[:MOST_DRAWS] if np.ndim(value) else value for name, value in fit.parameter_draws().items()}


def candidates(fit: Fit, question: Question) -> list[int]:
    """The expert counts to compare. Raises InputError where the law has none and others than those fitted are asked."""
    if fit.definition.uses_experts:
        return sorted(set(question.n_experts or fit.experts or _USUAL_EXPERTS))
    fit.require_experts(question.n_experts)
    return [fit.only_experts or 1]


def _choice(
    task: SizeOptimiser,
    n_experts: int,
    estimated: Optima,
    drawn: Optima | None,
    left: Optima | None,
    speeds: Speeds | None,
) -> Choice:
    """The optimum of one E, before it is compared with the others."""
    fit, pricing, optimum = task.fit, task.pricing, estimated.found[n_experts]
    space = task.space(n_experts, dict(fit.params))
    sizes, tokens = space.sizes(optimum.n_active), optimum.tokens
    columns = space.columns(sizes, tokens)
    train, serve = float(pricing.train(sizes, tokens)[0]), float(pricing.serve(sizes)[0])
    held = memory_bytes(sizes)
    ends, run = fit.loss_interval(columns), fit.prediction_interval(columns)
    moves = _moves(task, n_experts, optimum, drawn, left) if drawn else {}
    return Choice(
        n_experts=n_experts,
        top_k=sizes.top_k,
        n_active=float(optimum.n_active[0]),
        n_total=None if sizes.n_total is None else float(sizes.n_total[0]),
        tokens=float(tokens[0]),
        train_flops=float(6.0 * optimum.n_active[0] * tokens[0]),
        loss=float(fit.loss(columns)[0]),
        cost=Cost(train, serve, train + serve, pricing.unit),
        memory_bytes=None if held is None else float(held[0]),
        loss_interval=None if ends is None else (float(ends[0][0]), float(ends[1][0])),
        run_interval=None if run is None else (float(run[0][0]), float(run[1][0])),
        served=_served(task, sizes, speeds) if pricing.device is not None and pricing.serve_tokens else None,
        n_active_interval=moves.get("n_active"),
        tokens_interval=moves.get("tokens"),
        cost_interval=moves.get("cost"),
        probability_best=None,
        regret=None,
        unanswered=None,
    )


def _moves(
    task: SizeOptimiser, n_experts: int, optimum: Optimum, drawn: Optima, left: Optima | None
) -> dict[str, Interval]:
    """Intervals of the N, D and lifetime cost of the optimum of one E; empty where no draw has one."""
    told = [_told(task, n_experts, optimum, 1, None), _told(task, n_experts, drawn.found[n_experts], 2, drawn.speeds)]
    if np.isnan(told[1]).all():
        return {}
    jackknife = None if left is None else _told(task, n_experts, left.found[n_experts], 2, None)
    low, high = bca.interval(told[0][0], told[1], jackknife, task.fit.resampled)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(("n_active", "tokens", "cost"))}


def _told(task: SizeOptimiser, n_experts: int, best: Optimum, rows: int, speeds: Speeds | None) -> Array:
    """N, D and lifetime cost of every row (rows, 3); NaN where it has no optimum."""
    known = np.isfinite(best.value) & np.isfinite(best.tokens)
    totals = task.lifetime(n_experts, best.n_active, np.where(known, best.tokens, 1.0), rows, speeds)
    return np.where(known[:, None], np.stack([best.n_active, best.tokens, totals], axis=1), np.nan)


def _served(task: SizeOptimiser, sizes: Sizes, speeds: Speeds | None) -> Served:
    """What one replica of a model reaches on the device, and what the load takes."""
    pricing = task.pricing
    offer = pricing.offer(sizes)
    one = {name: float(np.ravel(value)[0]) for name, value in vars(offer.replica).items() if name != "terms"}
    fewest = fleet.fewest_devices(structure(sizes), pricing.rented, pricing.service)
    drawn = [] if speeds is None else [other.offer(sizes) for other in pricing.at(speeds, sizes.n_experts)]

    replicas, loaded = None, None
    if pricing.demand is not None:
        replicas = int(np.ravel(offer.replicas)[0])
        layout = Layout(one["n_devices"], bool(one["experts_split"]))
        loaded = fleet.sustained(
            structure(sizes).of(0), pricing.rented, pricing.service, layout, pricing.demand / max(replicas, 1)
        )

    def interval(values: list[float]) -> Interval | None:
        if not values:
            return None
        low, high = np.quantile(values, bca.ENDS)
        return float(low), float(high)

    return Served(
        n_devices=int(one["n_devices"]),
        fewest_devices=int(np.ravel(fewest)[0]),
        experts_split=bool(one["experts_split"]),
        batch=int(one["batch"]),
        ttft_ms=1e3 * one["ttft_s"],
        tpot_ms=1e3 * one["tpot_s"],
        e2el_ms=1e3 * one["e2el_s"],
        output_throughput=one["output_throughput"],
        request_goodput=one["request_goodput"],
        weight_gb=one["weight_bytes"] / 1e9,
        usd_per_million=1e6 * float(np.ravel(offer.usd_per_token)[0]),
        replicas=replicas,
        load_batch=None if loaded is None else float(loaded.batch),
        load_ttft_ms=None if loaded is None else 1e3 * float(loaded.ttft_s),
        load_tpot_ms=None if loaded is None else 1e3 * float(loaded.tpot_s),
        tpot_ms_interval=interval([1e3 * float(np.ravel(other.replica.tpot_s)[0]) for other in drawn]),
        usd_per_million_interval=interval([1e6 * float(np.ravel(other.usd_per_token)[0]) for other in drawn]),
    )
