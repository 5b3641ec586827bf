"""A recommendation as a table for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.cli.console import PlainTable, Terminal
from scaling.serving.replicas import METRICS

if TYPE_CHECKING:
    from analysis.decision.answer import Answer
    from analysis.decision.fit_comparison import FitAlternatives
    from analysis.decision.recommendation import Choice, Recommendation
    from analysis.decision.what_if import WhatIf


def show_answer(found: Answer) -> None:
    """A recommendation beside its alternatives, how sure it is, and what would change it."""
    terminal, answer = Terminal(), found.recommendation
    best, cost = answer.recommendation, answer.recommendation.cost
    if found.comparison is not None:
        _show_rivals(terminal, found.comparison, "loss" if answer.question.goal == "loss" else f"cost {cost.unit}")
    terminal.print(f"{answer.mode[0].upper()}{answer.mode[1:]}:")
    terminal.print(
        f"E = {best.n_experts}, N_active {best.n_active:.4g}{_span(best.n_active_interval)}, "
        f"D {best.tokens:.4g}{_span(best.tokens_interval)}, loss {best.loss:.4f}{_span(best.loss_interval, '.4f')}",
        style="bold",
    )
    terminal.print(
        f"{best.train_flops:.4g} training FLOPs; cost {cost.train:.4g} to train + {cost.serve:.4g} to serve = "
        f"{cost.total:.4g} {cost.unit}{_span(best.cost_interval)}"
    )
    if best.run_interval is not None:
        low, high = best.run_interval
        terminal.print(f"One run of it is expected to measure a loss of {low:.4f} to {high:.4f}.")
    table = PlainTable("E", "N_active", "N_total", "tokens", "loss", f"cost {cost.unit}", "best in", "regret", "unmet")
    for choice in (best, *answer.alternatives):
        table.add_row(*_row(choice))
    terminal.print(table)
    if best.served is not None:
        _show_serving(terminal, answer)
    _show_verdict(terminal, answer)
    if found.what_if is not None:
        _show_what_if(terminal, found.what_if, best.n_experts)
    for assumption in answer.assumptions:
        terminal.print(f"- {assumption}")


def _row(choice: Choice) -> list[str]:
    return [
        str(choice.n_experts),
        f"{choice.n_active:.3g}",
        _or_unknown(choice.n_total, ".3g"),
        f"{choice.tokens:.3g}",
        f"{choice.loss:.4f}",
        f"{choice.cost.total:.3g}",
        _or_unknown(choice.probability_best, ".0%"),
        _or_unknown(choice.regret, ".1%"),
        _or_unknown(choice.unanswered, ".0%"),
    ]


def _show_verdict(terminal: Terminal, answer: Recommendation) -> None:
    """Decided or why not, and the run that would help most."""
    if answer.decided:
        terminal.print("Decided.")
    for doubt in answer.undecided_because:
        terminal.print(f"Undecided: {doubt}.")
    if answer.next_run is not None:
        run = answer.next_run
        gain = (
            "" if run.regret_after is None else f" (expected regret {run.regret_before:.2%} -> {run.regret_after:.2%})"
        )
        terminal.print(
            f"The run that would help most: E = {run.n_experts}, N_active {run.n_active:.3g}, {run.tokens:.3g} tokens, "
            f"{run.train_flops:.3g} FLOPs: {run.reason}{gain}."
        )


def _show_serving(terminal: Terminal, answer: Recommendation) -> None:
    """How each is served: the cheapest replica, its latency and its price."""
    table = PlainTable("E", "devices", "batch", "ttft ms", "tpot ms", "tokens/s", "requests/s", "USD/M", "replicas")
    for choice in (answer.recommendation, *answer.alternatives):
        replica = choice.served
        if replica is None:
            continue
        split = " by expert" if replica.experts_split else ""
        least = f" (fits {replica.fewest_devices})" if replica.fewest_devices < replica.n_devices else ""
        table.add_row(
            str(choice.n_experts),
            f"{replica.n_devices}{split}{least}",
            str(replica.batch),
            f"{replica.ttft_ms:.3g}",
            f"{replica.tpot_ms:.3g}",
            f"{replica.output_throughput:.3g}",
            f"{replica.request_goodput:.3g}",
            f"{replica.usd_per_million:.3g}",
            "-" if replica.replicas is None else str(replica.replicas),
        )
    terminal.print("Served by replicas, busy, without queueing (USD/M: a million generated tokens):")
    terminal.print(table)
    _show_load(terminal, answer.recommendation)
    for name in ("ttft", "tpot", "output_throughput", "request_goodput", "usd_per_token"):
        terminal.print(f"  {name}: {METRICS[name]}", style="dim")


def _show_load(terminal: Terminal, choice: Choice) -> None:
    """How sure the speed is, and what a load makes of the replicas."""
    replica = choice.served
    if replica is None:
        return
    if replica.tpot_ms_interval is not None and replica.usd_per_million_interval is not None:
        (low, high), (least, most) = replica.tpot_ms_interval, replica.usd_per_million_interval
        terminal.print(
            f"E = {choice.n_experts}: tpot {low:.3g} to {high:.3g} ms, {least:.3g} to {most:.3g} USD/M (95 %)."
        )
    if replica.load_batch is not None:
        terminal.print(
            f"E = {choice.n_experts} at this load: {replica.load_batch:.3g} sequences in each replica, ttft "
            f"{replica.load_ttft_ms:.3g} ms, tpot {replica.load_tpot_ms:.3g} ms."
        )


def _show_rivals(terminal: Terminal, compared: FitAlternatives, value: str) -> None:
    """The best of every fit, the best first."""
    table = PlainTable("fit", "k", "E", "N_active", "tokens", value, "best in", "regret")
    for rival in compared.rivals:
        table.add_row(
            rival.name,
            _or_unknown(rival.top_k, ""),
            str(rival.n_experts),
            f"{rival.n_active:.3g}",
            f"{rival.tokens:.3g}",
            f"{rival.value:.4g}",
            _or_unknown(rival.probability_best, ".0%"),
            _or_unknown(rival.regret, ".1%"),
        )
    terminal.print(f"Fits compared, the answer below is that of {compared.rivals[0].name}:")
    terminal.print(table)


def _show_what_if(terminal: Terminal, what_if: WhatIf, best: int) -> None:
    """What changes the answer, and the volumes at which one E overtakes another."""
    changing = [case for case in what_if.cases if case.changes]
    for case in changing:
        then = "nothing can answer" if case.n_experts is None else f"E = {case.n_experts} would be best"
        terminal.print(f"If {case.what} were {case.value}: {then}.")
    without_effect = sorted({case.what for case in what_if.cases} - {case.what for case in changing})
    if without_effect:
        terminal.print(f"E = {best} stays the best whatever was tried of {', '.join(without_effect)}.")
    for crossing in what_if.crossovers:
        terminal.print(f"At {crossing.volume:.3g} tokens served E = {crossing.after} overtakes E = {crossing.before}.")


def _or_unknown(value: float | None, form: str) -> str:
    return "?" if value is None else f"{value:{form}}"


def _span(interval: tuple[float, float] | None, form: str = ".3g") -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
