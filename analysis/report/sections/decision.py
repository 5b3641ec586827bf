"""The decision: the front page and the tables behind it."""

from __future__ import annotations

from typing import Any

from analysis.decision.answer import Answer
from analysis.decision.optima import UNANSWERED_LIMIT
from analysis.decision.question import Question
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT, PROBABILITY_NEEDED, REGRET_LIMIT, Choice
from analysis.decision.reference import in_words, swing_in_words
from analysis.decision.tables import choices_table, fits_table, laws_table
from analysis.report import blocks
from analysis.report.blocks import Block, Tile, bullets, heading, picture, text
from analysis.report.measured import doubts_in_words, measured_decode
from analysis.report.question import question_sentence
from analysis.report.sections import what_if, worth
from analysis.report.sections.serving import ASSUMPTIONS
from analysis.report.sections.shapes import shapes_of_experts
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from scaling.columns import EXPERTS
from scaling.formatting import between, experts, flops, listed, loss, money, percent, plural, sentence, si, usd
from scaling.serving.service import Service
from scaling.serving.step_time import ASSUMED


def front_page(subject: Subject) -> dict[str, Any]:
    """The decision in words, and the numbers that go with it."""
    found, chosen = subject.decision.recommendation, subject.decision.best
    name = experts(chosen.n_experts)
    model = f"{si(chosen.n_active)} active parameters on {si(chosen.tokens)} tokens"
    if subject.decision.question.device is None and subject.decision.question.served:
        model = f"{model}, by FLOPs and not by money"
    if found.refused:
        others = [reason for reason in found.undecided_because if reason != found.refused[0]]
        given = f"the formula gives {name}, {model}: not to be used"
        because = " ".join(sentence(reason) for reason in (given, *others))
        headline, verdict = f"No answer: {found.refused[0]}", "No answer"
    elif found.decided:
        because = f"It is best in {percent(chosen.probability_best)} of {found.n_draws} draws"
        for second in found.alternatives[:1]:
            because += f"; {experts(second.n_experts)} is next with {percent(second.probability_best)}"
        headline, verdict = f"Train {name}: {model}", "Decided"
    else:
        because = " ".join(sentence(reason) for reason in found.undecided_because)
        headline, verdict = f"Not decided; {name} leads: {model}", "Not decided"
    return blocks.front_page(
        headline,
        sentence(because),
        verdict,
        decided=found.decided,
        tiles=_tiles(subject),
        summary=_summary(subject),
    )


def _tiles(subject: Subject) -> list[Tile]:
    """Label, value and note of the numbers under the decision."""
    found, chosen = subject.decision.recommendation, subject.decision.best
    cost = chosen.cost
    per_token = "dense" if chosen.n_experts == 1 else f"{chosen.top_k} per token" if chosen.top_k else "routed"
    best_in = f"of draws; 95% set: {listed(found.best_experts)}" if found.n_draws else "no draws"
    tiles = [
        ("Experts, E", str(chosen.n_experts), per_token),
        ("Active parameters", si(chosen.n_active), _spread(chosen.n_active_interval)),
        ("Total parameters", si(chosen.n_total) if chosen.n_total else "unknown", "held in memory"),
        ("Training tokens", si(chosen.tokens), _spread(chosen.tokens_interval)),
        ("Loss, nats/token", loss(chosen.loss), between(chosen.loss_interval, loss) if chosen.loss_interval else ""),
        (
            f"Lifetime cost{'' if cost.unit == 'USD' else ', FLOP'}",
            _cost(cost.total, cost.unit),
            "" if chosen.cost_interval is None else between(chosen.cost_interval, lambda v: _cost(v, cost.unit)),
        ),
        ("Best in", percent(chosen.probability_best), best_in),
    ]
    if not found.refused:
        return tiles
    return [(label, value, "by the formula alone") for label, value, _ in tiles]


def _spread(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else between(interval)


def _cost(value: float, unit: str) -> str:
    return usd(value) if unit == "USD" else flops(value)


def _summary(subject: Subject) -> list[Block]:
    answer = subject.decision
    facts = [
        _parts_of_the_cost(answer.best, answer.question),
        *_serving(answer.best, answer.question),
        _loss(answer.best),
        *_loss_kept(answer),
        *_against_dense(subject),
        *worth.in_short(subject),
        *_runner_up(answer),
        _how_sure(subject),
        *what_if.in_short(answer),
        *_next_step(subject),
        _inputs(subject),
    ]
    draws = answer.recommendation.n_draws
    caption = "What every expert count offers by the fitted law, with the recommendation as a star" + (
        f", and the share of {draws} draws in which each is best." if draws else "."
    )
    return [
        text(question_sentence(answer.question)),
        bullets(facts),
        picture("hero", caption + (_measured(subject) if isinstance(subject, ReportStudy) else "")),
    ]


def _parts_of_the_cost(chosen: Choice, asked: Question) -> str:
    """What training and serving cost and, on a device, the hours that they take."""
    cost = chosen.cost

    train, hours = f"{money(cost.train, cost.unit)} to train", ""
    if chosen.train_device_hours is not None and chosen.train_mfu is not None:
        train += f" ({si(chosen.train_device_hours)} device-hours at {percent(chosen.train_mfu)} MFU)"
    if not asked.served:
        return f"cost: {train}; nothing is served"
    if cost.unit == "USD":
        hours = f" ({si(cost.serve / asked.pricing.rented.usd_per_hour)} device-hours)"
    per_million = ""
    if chosen.served is not None:
        whole = chosen.served.replicas is not None
        paid_for = "whole replicas at this load" if whole else f"{asked.service.utilisation:.0%} utilisation"
        per_million = f", {price(chosen)} per million output tokens at {paid_for}"
    if asked.device is None:
        per_million = ". No device was named: FLOPs charge nothing for memory and idle experts, which favours large E"
    return (
        f"cost: {money(cost.total, cost.unit)}, {train} and {money(cost.serve, cost.unit)} to serve {si(asked.served)} "
        f"tokens{hours}{per_million}"
    )


def price(chosen: Choice) -> str:
    """USD per million tokens, with its interval where the device's speed was measured."""
    if chosen.served is None:
        return "–"
    interval = chosen.served.usd_per_million_interval
    return usd(chosen.served.usd_per_million) + ("" if interval is None else f" ({between(interval, usd)})")


def _serving(chosen: Choice, asked: Question) -> list[str]:
    """The devices that serve it, and what a month costs where a load was given."""
    replica, lines = chosen.served, []
    if asked.requests_per_month is not None:
        monthly = f"a month: {money(chosen.cost.serve / asked.months, chosen.cost.unit)}"
        line = f"{monthly} for {si(asked.requests_per_month)} requests"
        if replica is not None and replica.replicas is not None:
            devices = plural(replica.replicas * replica.n_devices, "device")
            line += f", on {devices} ({plural(replica.replicas, 'replica')} of {replica.n_devices})"
        lines.append(line)
    if replica is not None:
        lines.append(
            f"serving: a replica takes {plural(replica.n_devices, 'device')} ({asked.pricing.rented.title}), decodes "
            f"{si(replica.output_throughput)} tokens a second at full load and takes {si(replica.tpot_ms)} ms per "
            f"output token; a request is {si(asked.service.prompt)} prompt and {si(asked.service.generated)} output "
            "tokens"
        )
    return lines


def _loss(chosen: Choice) -> str:
    """The intervals of the law and of one run, as far as the fit has them."""
    if chosen.loss_interval is None:
        return f"loss: {loss(chosen.loss)} nats per token, without an interval because the fit has no draws"
    line = f"loss: {between(chosen.loss_interval, loss)} by the law (95%)"
    if chosen.run_interval is not None:
        line += f"; a single run is expected to measure {between(chosen.run_interval, loss)}"
    return line


def _loss_kept(answer: Answer) -> list[str]:
    """Whose loss is kept, and between what the cost lies for others that could be; nothing where none is."""
    kept = answer.recommendation.reference
    if kept is None:
        return []
    cases = () if answer.what_if is None else answer.what_if.references
    swing = swing_in_words(cases, answer.recommendation.best_at_estimate, answer.best.cost.unit)
    return [f"loss kept: {in_words(kept)}" + (f"; {swing}" if swing else "")]


def _against_dense(subject: Subject) -> list[str]:
    """What the recommendation gains over the best dense model; nothing where neither cost nor loss differs."""
    chosen = subject.decision.best
    dense = next((c for c in subject.decision.recommendation.alternatives if c.n_experts == 1), None)
    if dense is None:
        return []
    saved, gained = 1 - chosen.cost.total / dense.cost.total, dense.loss - chosen.loss
    difference = f"a loss {abs(gained):.3f} nats {'lower' if gained > 0 else 'higher'}"
    less = f"{percent(abs(saved))} {'less' if saved > 0 else 'more'}"
    if abs(saved) < 0.005:
        same = f"it costs the same as the best dense model and has {difference}"
        return [] if abs(gained) < 5e-4 else [f"against dense: {same}"]
    at = "at the same expected loss" if abs(gained) < 5e-4 else f"with {difference}"
    return [f"against dense: over its life it costs {less} than the best dense model, {at}"]


def _how_sure(subject: Subject) -> str:
    found, best = subject.decision.recommendation, experts(subject.decision.best.n_experts)
    if found.expected_regret is None:
        return "how sure: not known, because the fit has no draws; only runs of one's own can tell"
    regret = f"{100 * found.expected_regret:.2g}%"
    return f"how sure: the expected regret of {best} is {regret} of the cost (limit {percent(REGRET_LIMIT)})"


def _runner_up(answer: Answer) -> list[str]:
    """How much more the next best expert count costs; nothing where one alone answers or all cost the same."""
    alternatives = answer.recommendation.alternatives
    if not alternatives or answer.best.cost.total <= 0:
        return []
    more = alternatives[0].cost.total / answer.best.cost.total - 1
    return [f"next best: {experts(alternatives[0].n_experts)} costs {100 * more:.2g}% more"] if more > 0 else []


def _next_step(subject: Subject) -> list[str]:
    """The run that would help most or, where none is proposed, how to decide; nothing where it is decided."""
    found = subject.decision.recommendation
    run = found.next_run
    if run is None:
        if found.decided:
            return []
        runs = (
            "train a small grid of your own (`scaling sweep run`) and fit it"
            if not found.n_draws
            else ("`scaling sweep suggest` proposes the runs that reduce the expected regret most")
        )
        return [f"next step: {runs}"]
    advice = (
        f"most informative next run: {experts(run.n_experts)}, {si(run.n_active)} active parameters, {si(run.tokens)} "
        f"tokens ({flops(run.train_flops)} FLOP); {run.reason}"
    )
    if run.regret_before is not None and run.regret_after is not None:
        advice += f"; expected regret {100 * run.regret_before:.2g}% now, {100 * run.regret_after:.2g}% after it"
    return [advice]


def _inputs(subject: Subject) -> str:
    """What the answer was made from."""
    answer = subject.decision
    fit = subject.law_fit
    runs = f"{plural(fit.n_runs, 'run')}" if fit.n_runs else answer.recommendation.fitted_to or fit.source
    name = answer.law_file or next(name for name, other in subject.fits.items() if other is fit)
    inputs = [f"law {fit.law} ({name}) of {runs}"]
    if answer.question.device is not None:
        on = answer.question.pricing.rented
        inputs.append(f"{on.title} at {usd(on.usd_per_hour)} an hour; price and speeds: section “{ASSUMPTIONS}”")
    if answer.made_from:
        inputs.append(f"hash {answer.made_from}")
    return f"inputs: {'; '.join(inputs)}"


def _measured(study: ReportStudy) -> str:
    """What the panel of measured times shows; nothing where nothing was measured."""
    rows = measured_decode(study.latency)
    if rows.empty:
        return ""
    first, asked = rows.iloc[0], study.decision.question
    dense = "; above the bars, the ratio to the dense model" if (rows[EXPERTS] == 1).any() else ""
    in_the_cost = "these times are not in the cost"
    if asked.pricing.device is not None and _speed(asked.service) != ASSUMED.source:
        in_the_cost = f"the device speed behind the cost is {_speed(asked.service)}"
    doubts = doubts_in_words(rows)
    return (
        f" Right: measured decode time on {first['device_kind']}, per token at batch {int(first['batch'])}, median and "
        f"quartiles, for models of {si(first['n_active'])} active parameters{dense}; {in_the_cost}."
        + (f" Hatched with a question mark: {doubts}; do not conclude from them which E is faster." if doubts else "")
    )


def decision(subject: Subject) -> list[Block]:
    """Every expert count at its best, and why the answer is as sure as it is."""
    parts = []
    for name, answer in subject.answers.items():
        if len(subject.answers) > 1:
            parts += [heading(f"Question “{name}”"), text(question_sentence(answer.question))]
        caption = "The best model of every expert count for this question; ★ is recommended"
        parts.append(blocks.values(choices_table(answer, detailed=True), caption, best=True))
        if unreachable := answer.recommendation.unreachable:
            parts.append(text(f"Unable to answer: E = {listed(unreachable)}."))
    answer, found = subject.decision, subject.decision.recommendation
    if (compared := fits_table(answer)) is not None and answer.comparison is not None:
        caption = "The best model of every fit that was compared; ★ is the one that answers"
        if answer.comparison.n_draws:
            caption += f". “best in” and “regret” are over {answer.comparison.n_draws} draws"
        parts.append(blocks.values(compared, caption, best=True))
    parts += shapes_of_experts(answer)
    if (laws := laws_table(answer)) is not None:
        parts.append(blocks.values(laws, "What each law of the ensemble advises, had it all the weight"))
    certain = []
    if found.best_experts:
        names = ", ".join(experts(e) for e in found.best_experts)
        meaning = "the only candidate at 95%" if len(found.best_experts) == 1 else "together best in 95% of the draws"
        certain = [f"95% set: {names} ({meaning})"]
    if not found.decided:  # page 1 has the reasons
        return [*parts, *(text(sentence(line)) for line in certain)]
    rule = (
        f"expected regret is at most {percent(REGRET_LIMIT)} of the cost, the chosen E is best in at least "
        f"{percent(PROBABILITY_NEEDED)} of the draws and cannot answer in at most {percent(UNANSWERED_LIMIT)}, it lies "
        f"inside the range of E studied, and training it takes at most {EXTRAPOLATION_LIMIT:g} times the compute of "
        "the largest run"
    )
    return [*parts, heading("Decided, and by which rule"), bullets([rule, *certain])]


def _speed(service: Service) -> str:
    """What the device's speed rests on."""
    engine = service.engine
    if engine is None:
        return service.efficiency.source
    return f"{engine.name}, whose time per token is off by {engine.error:.0%} (median) on models left out of its fit"
