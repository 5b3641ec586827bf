"""Recommendations: which expert count, size and token budget, at what cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from analysis import intervals, next_run
from analysis.dual import Array
from analysis.families import Sizes
from analysis.fit import AS_ASKED, Fit
from analysis.laws import EXPERTS, TOKENS
from analysis.next_run import NextRun
from analysis.optima import MOST_REGRET, UNANSWERED_LIMIT, Optima, Task, TradeOff, expected_regret, unanswered
from analysis.pricing import Speeds, explained, memory_bytes, structure
from analysis.question import Question
from analysis.search import Optimum
from scaling import fleet
from scaling.errors import InputError
from scaling.serving import Layout
from scaling.work import ASSUMED

REGRET_LIMIT, PROBABILITY_NEEDED, EXTRAPOLATION_LIMIT = 0.01, 0.8, 30.0
MOST_DRAWS, DRAWS_NEEDED = 1_000, 100
_USUAL_EXPERTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Cost:
    """Lifetime cost: training, serving and both, in `unit` (FLOP or USD)."""

    train: float
    serve: float
    total: float
    unit: str


Interval = tuple[float, float]


@dataclass(frozen=True)
class Served:
    """How a model is served on the device: one replica, by the names and formulas of `scaling.fleet.METRICS`.

    `fewest_devices` would hold it at any price; `n_devices` is the cheapest. Without a load `replicas`, and what each of them
    is at under it (`load_batch`, `load_ttft_ms`, `load_tpot_ms`), are None. The intervals are 95 %, None where the device's
    speed was not measured.
    """

    n_devices: int
    fewest_devices: int
    experts_split: bool
    batch: int
    ttft_ms: float
    tpot_ms: float
    e2el_ms: float
    output_throughput: float
    request_goodput: float
    weight_gb: float
    usd_per_million: float
    replicas: int | None
    load_batch: float | None
    load_ttft_ms: float | None
    load_tpot_ms: float | None
    tpot_ms_interval: Interval | None
    usd_per_million_interval: Interval | None


@dataclass(frozen=True)
class Choice:
    """The best model of one expert count. Intervals are 95 %, from the fit's draws; None where it has none.

    `loss_interval` is the law's for this very model, `run_interval` that of one run of it, run-to-run noise in it; the
    intervals of N, D and cost say how the optimum of this E moves from draw to draw. `served` is None without a device.
    `probability_best` is the share of all draws in which this E is best. `regret` is what choosing this E costs beyond the
    best E of a draw, a share of the cost and at most tenfold: the mean over the draws in which this E can answer (None
    where it can in none). `unanswered` is the share of the draws in which it cannot, because no size of it meets the loss
    within the limits.
    """

    n_experts: int
    top_k: int | None
    n_active: float
    n_total: float | None
    tokens: float
    train_flops: float
    loss: float
    cost: Cost
    memory_bytes: float | None
    loss_interval: Interval | None
    run_interval: Interval | None
    served: Served | None
    n_active_interval: Interval | None
    tokens_interval: Interval | None
    cost_interval: Interval | None
    probability_best: float | None
    regret: float | None
    unanswered: float | None


@dataclass(frozen=True)
class Recommendation:
    """The answer: what to train, the best of every other E, how sure it is, and what would make it surer.

    `best_experts` is the 95 % set of the best E: the fewest E, by their share of the draws, that hold .95 of them (empty
    without draws). `front` lists, for every E, loss against lifetime cost (empty where only a training budget was asked
    about).
    """

    question: Question
    mode: str
    recommendation: Choice
    alternatives: tuple[Choice, ...]
    probability_best: Mapping[int, float] | None
    best_experts: tuple[int, ...]
    expected_regret: float | None
    decided: bool
    undecided_because: tuple[str, ...]
    next_run: NextRun | None
    front: tuple[TradeOff, ...]
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    law: str
    fitted_to: str
    n_draws: int
    unreachable: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys of `probability_best` are text."""
        chances = self.probability_best
        return asdict(self) | {"probability_best": None if chances is None else {str(e): p for e, p in chances.items()}}


def recommend(fit: Fit, question: Question, speeds: Speeds | None = None) -> Recommendation:
    """Answer a question from a fit. Cost is 6 N_active D + 2 N_active T FLOPs, or USD with a device.

    Every expert count is optimised over N_active and D, under the estimate and under every draw of the fit (at most
    1,000). `speeds` say how sure the device's speed is (`analysis.latency.LatencyLaw.speeds`): each draw of the fit meets
    one, and prices carry both.
    `decided` means: expected regret (`Choice.regret`) at most 1 % of the cost, the E chosen best in at least
    80 % of the draws and able to answer in at least 95 %, not at an edge of the E studied (E = 1 is no edge where it
    was studied: there is nothing below it), and within 30 times the compute of the largest run. At a training budget
    alone the cost is the same for all, and regret is the extra compute that would make up for the loss. Raises
    InputError where the fit predicts nothing or no expert count can answer.
    """
    return answer(fit, question, speeds)[0]


def answer(fit: Fit, question: Question, speeds: Speeds | None = None) -> tuple[Recommendation, Array | None]:
    """`recommend`, and what each of the `candidates` costs beyond the best of a draw (`Optima.regrets`), None without draws."""
    fit.require_params()
    if not fit.definition.divides_compute:
        raise InputError(
            f"law {fit.law} predicts {fit.definition.target} from {', '.join(fit.definition.columns)}: it cannot divide a "
            "budget between size and tokens; `scaling predict` evaluates it"
        )
    fit = with_settings(fit, question)
    task = Task(fit, question)
    asked = candidates(fit, question)
    estimated = task.solve(asked, dict(fit.params), 1)
    possible = [e for e in asked if np.isfinite(estimated.value(e)[0])]
    if not possible:
        raise InputError(_impossible(question, asked))
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
    unsure = _disagreement(choices[0])
    doubts = [*unsure, *_doubts(fit, choices[0], asked), *_assumed_speed(task, possible, best)]
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
        next_run=next_run.propose(fit, asked, best, choices[0].train_flops, regrets, bool(unsure)) if doubts else None,
        front=task.trade_off(possible, choices[0].loss),
        warnings=tuple(_warnings(task, question, choices[0], unreachable, asked)),
        assumptions=tuple(_assumptions(task, choices[0])),
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
    """The fit with the question's columns set. Raises InputError for one that the law lacks, or that is searched over."""
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
    task: Task, n_experts: int, estimated: Optima, drawn: Optima | None, left: Optima | None, speeds: Speeds | None
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


def _moves(task: Task, n_experts: int, optimum: Optimum, drawn: Optima, left: Optima | None) -> dict[str, Interval]:
    """Intervals of the N, D and lifetime cost of the optimum of one E; empty where no draw has one."""
    told = [_told(task, n_experts, optimum, 1, None), _told(task, n_experts, drawn.found[n_experts], 2, drawn.speeds)]
    if np.isnan(told[1]).all():
        return {}
    jackknife = None if left is None else _told(task, n_experts, left.found[n_experts], 2, None)
    low, high = intervals.interval(told[0][0], told[1], jackknife, task.fit.resampled)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(("n_active", "tokens", "cost"))}


def _told(task: Task, n_experts: int, best: Optimum, rows: int, speeds: Speeds | None) -> Array:
    """N, D and lifetime cost of every row (rows, 3); NaN where it has no optimum."""
    known = np.isfinite(best.value) & np.isfinite(best.tokens)
    totals = task.lifetime(n_experts, best.n_active, np.where(known, best.tokens, 1.0), rows, speeds)
    return np.where(known[:, None], np.stack([best.n_active, best.tokens, totals], axis=1), np.nan)


def _served(task: Task, sizes: Sizes, speeds: Speeds | None) -> Served:
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
        low, high = np.quantile(values, intervals.ENDS)
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


def _disagreement(chosen: Choice) -> list[str]:
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


def _doubts(fit: Fit, chosen: Choice, experts: Sequence[int]) -> list[str]:
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
            f"{', '.join(borrowed)} of the effect of experts are other people's values, taken as exact: these runs do not "
            "identify them"
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


def _assumed_speed(task: Task, experts: Sequence[int], best: int) -> list[str]:
    """Whether another E would be best if the device reached half as much, or half as much more, as was assumed unmeasured."""
    question, reached = task.question, task.question.service.efficiency
    if task.pricing.device is None or not task.pricing.serve_tokens or reached.source != ASSUMED.source:
        return []
    for name, what in (("bandwidth_share", "bandwidth"), ("flops_share", "peak FLOP/s in serving")):
        for factor in (0.5, 1.5):
            share = min(1.0, factor * getattr(reached, name))
            service = replace(question.service, efficiency=replace(reached, **{name: share}))
            other = Task(task.fit, replace(question, service=service)).solve(experts, dict(task.fit.params), 1)
            values = {e: float(other.value(e)[0]) for e in experts}
            leads = min(values, key=lambda e: values[e])
            if leads != best:
                return [
                    f"what the device reaches is assumed, not measured: at {share:.0%} of its {what} E = {leads} would be best "
                    "(--latency takes a measurement)"
                ]
    return []


def _of_experts(fit: Fit, name: str) -> bool:
    return fit.definition.parameter(name).role in ("expert", "saturation", "interaction")


def _warnings(
    task: Task, question: Question, chosen: Choice, unreachable: Sequence[int], asked: Sequence[int]
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


def _assumptions(task: Task, chosen: Choice) -> list[str]:
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


def _sizes(task: Task, chosen: Choice) -> Sizes:
    """The counts of the model that was chosen."""
    return task.space(chosen.n_experts, dict(task.fit.params)).sizes(np.array([chosen.n_active]))


def _impossible(question: Question, asked_experts: Sequence[int]) -> str:
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
        f"no model with E = {_listed(asked_experts)} meets {asked}{told}: below the law's irreducible loss, or too large for "
        "memory, price, data or latency; ask for a higher loss or allow more"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
