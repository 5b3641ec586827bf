"""A recommendation as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scaling.cli.show.page import Page
from scaling.formatting import between, flops, listed, money, percent, plural, si, usd
from scaling.serving.replicas import METRICS

if TYPE_CHECKING:
    from analysis.decision.answer import Answer
    from analysis.decision.question import Question
    from analysis.decision.recommendation import Choice
    from analysis.decision.what_if import WhatIf
    from scaling.serving.service import Service
    from scaling.table import Table

LINES = 32
_SHAPES = 8  # that are printed at once
_METRICS = ("ttft", "tpot", "output_throughput", "request_goodput", "usd_per_token")


def headline(found: Answer) -> str:
    """The model that is recommended, and whether that is decided; or that there is no answer, and why."""
    best, refused = found.best, found.recommendation.refused
    if refused:
        return f"no answer: {refused[0]}"
    total = "" if best.n_total is None else f" of {si(best.n_total)} total"
    decided = "decided" if found.recommendation.decided else "not decided"
    return (
        f"E = {best.n_experts}{_shape(found)}, {si(best.n_active)} active{total}, {si(best.tokens)} tokens: {decided}"
    )


def _shape(found: Answer) -> str:
    """k and the width of an expert, where several were compared."""
    best = found.best
    if found.shapes is None or best.n_experts == 1:
        return ""
    width = "" if best.d_expert is None else f", experts {best.d_expert:.0f} wide"
    return f", k = {best.top_k}{width}"


def recommendation_page(found: Answer) -> Page:
    """The decision, why it is or is not decided, its alternatives, and what would change it."""
    from analysis.decision.tables import (
        choices_table,
        fits_table,
        laws_table,
        reference_table,
        replicas_table,
        shapes_table,
    )

    answer, fits, replicas = found.recommendation, fits_table(found), replicas_table(found)
    choices, laws = choices_table(found), laws_table(found)
    details: list[Table | str] = [f"minimised: {answer.mode}", *choices.notes]
    if (references := reference_table(found)) is not None:
        details.append(references)
    shapes = shapes_table(found, _SHAPES)
    if shapes is not None and (every := shapes_table(found)) is not None and len(every.rows) > _SHAPES:
        details.append(every)
    if replicas is not None:
        details += [replicas, *(f"{name}: {METRICS[name]}" for name in _METRICS)]
    return Page(
        headline(found),
        why=(
            _why(found),
            *(() if fits is None else (f"The best of {len(fits.rows)} fits is {found.law_file}.",)),
            _cost(found),
        ),
        tables=(
            *(table for table in (fits, shapes) if table is not None),
            _without_notes(choices),
            *(() if laws is None else (laws,)),
        ),
        notes=(
            *_next_run(found),
            *_loss_kept(found),
            *_what_would_change(found),
            *_serving(found.best, found.question),
        ),
        warnings=answer.warnings,
        details=(*details, *answer.assumptions),
    )


def _without_notes(table: Table) -> Table:
    from dataclasses import replace

    return replace(table, title="", notes=())


def _why(found: Answer) -> str:
    """Why it is decided, or why not, in one sentence."""
    answer, best = found.recommendation, found.best
    if answer.refused:
        others = "; ".join(reason for reason in answer.undecided_because if reason != answer.refused[0])
        model = f"E = {best.n_experts}, {si(best.n_active)} active, {si(best.tokens)} tokens"
        gives = f"The formula gives {model}: not to be used."
        return f"{gives} Besides: {others}." if others else gives
    if not answer.decided:
        return f"Not decided: {'; '.join(answer.undecided_because)}."
    if best.probability_best is None or best.regret is None:
        return "Decided."
    return (
        f"Decided: E = {best.n_experts} is best in {percent(best.probability_best)} of draws, with an "
        f"expected regret of {best.regret:.1%}."
    )


def _cost(found: Answer) -> str:
    """Loss, training compute and cost of the recommended model."""
    best, cost = found.best, found.best.cost
    loss = f"Loss {best.loss:.4f}{_interval(best.loss_interval)}"
    if best.run_interval is not None:
        loss += f", of a single run {between(best.run_interval, _four)}"
    text = f"{loss}. Training {flops(best.train_flops)} FLOPs"
    if cost.unit == "USD":
        text += f", {usd(cost.train)}"
    if best.train_device_hours is not None and best.train_mfu is not None:
        text += f" ({si(best.train_device_hours)} device-hours at {percent(best.train_mfu)} MFU)"
    if cost.serve:
        text += f"; serving {money(cost.serve, cost.unit)}; lifetime cost {money(cost.total, cost.unit)}"
        text += "" if best.cost_interval is None else f" ({between(best.cost_interval, lambda v: money(v, cost.unit))})"
    return f"{text}."


def _four(value: float) -> str:
    return f"{value:.4f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" ({between(ends, _four)})"


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _serving(choice: Choice, question: Question) -> Iterator[str]:
    """How one replica of the recommended model serves, what its price assumes, and the load on each replica."""
    replica, service = choice.served, question.service
    if replica is None:
        return
    step = "" if replica.tpot_ms_interval is None else f" ({between(replica.tpot_ms_interval)})"
    price = "" if replica.usd_per_million_interval is None else f" ({between(replica.usd_per_million_interval, usd)})"
    layout = "" if replica.n_devices == 1 else f" {'expert' if replica.experts_split else 'tensor'}-parallel"
    yield (
        f"one replica at full load: {plural(replica.n_devices, 'device')}{layout}, batch {replica.batch}, TTFT "
        f"{_milliseconds(replica.ttft_ms)}, TPOT {_milliseconds(replica.tpot_ms)}{step}: "
        f"{si(1e3 / replica.tpot_ms)} tokens/s a user, {si(replica.output_throughput / replica.n_devices)} a device; "
        f"{_formats(service)}; speed {_speed(service)}"
    )
    paid_for = f"{service.utilisation:.0%} utilisation" if replica.replicas is None else "whole replicas at this load"
    yield (
        f"{usd(replica.usd_per_million)} per million output tokens{price}, paying for {paid_for}; a request is "
        f"{si(service.prompt)} prompt and {si(service.generated)} output tokens"
    )
    if replica.load_batch is not None:
        yield (
            f"under this load: {plural(replica.replicas or 0, 'replica')}, {replica.load_batch:.3g} sequences in each, "
            f"TTFT {_milliseconds(replica.load_ttft_ms or 0)}, TPOT {_milliseconds(replica.load_tpot_ms or 0)}"
        )


def _formats(service: Service) -> str:
    """Bits of weights and cache."""
    experts = "" if service.bytes_per_expert is None else f" ({8 * service.bytes_per_expert:g} in experts)"
    return f"{8 * service.bytes_per_weight:g}-bit weights{experts}, {8 * service.bytes_per_kv:g}-bit cache"


def _speed(service: Service) -> str:
    """What the speed rests on, with its error."""
    if service.engine is None:
        return service.efficiency.source.partition(",")[0]
    return f"{service.engine.name}, off by {service.engine.error:.0%} (median) on models left out of its fit"


def _loss_kept(found: Answer) -> Iterator[str]:
    """The model whose loss is kept, and what hangs on it."""
    from analysis.decision.reference import in_words, swing_in_words

    kept = found.recommendation.reference
    if kept is None:
        return
    cases = () if found.what_if is None else found.what_if.references
    yield f"loss kept: {in_words(kept)}"
    if swing := swing_in_words(cases, found.recommendation.best_at_estimate, found.best.cost.unit):
        yield swing


def _what_would_change(found: Answer) -> Iterator[str]:
    """The changes under which another E is best, those without effect, and the volumes where the best E changes."""
    what_if, best = found.what_if, found.recommendation.best_at_estimate
    if what_if is None:
        return
    if best != found.best.n_experts:
        yield f"at the estimate, a mean of the laws, E = {best} is best: what changes the answer is told from there"
    for experts, cases in _by_outcome(what_if).items():
        then = "no model qualifies" if experts is None else f"E = {experts} would be best"
        tried = "; ".join(f"{what} {' or '.join(values)}" for what, values in cases.items())
        yield f"{then} with {tried}"
    steady = sorted({case.what for case in what_if.cases} - {case.what for case in what_if.cases if case.changes})
    if steady:
        yield f"E = {best} remains best when varying {listed(steady)}"
    for crossing in what_if.crossovers:
        yield f"above {si(crossing.volume)} tokens served E = {crossing.after} is best, below it E = {crossing.before}"


def _by_outcome(what_if: WhatIf) -> dict[int | None, dict[str, list[str]]]:
    """The values of each quantity that make another E best, by that E."""
    outcomes: dict[int | None, dict[str, list[str]]] = {}
    for case in what_if.cases:
        if case.changes:
            outcomes.setdefault(case.n_experts, {}).setdefault(case.what, []).append(case.value)
    return outcomes


def _next_run(found: Answer) -> Iterator[str]:
    """The run that would help most to decide."""
    run = found.recommendation.next_run
    if run is not None:
        gain = ""
        if run.regret_before is not None and run.regret_after is not None:
            gain = f"; expected regret {run.regret_before:.2%} now, {run.regret_after:.2%} after it"
        yield (
            f"most informative next run: E = {run.n_experts}, {si(run.n_active)} active, {si(run.tokens)} tokens, "
            f"{flops(run.train_flops)} FLOPs ({run.reason}{gain})"
        )
