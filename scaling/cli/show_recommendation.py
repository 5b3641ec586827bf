"""A recommendation as a table for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.cli.console import Terminal, shown
from scaling.serving.replicas import METRICS

if TYPE_CHECKING:
    from analysis.decision.answer import Answer
    from analysis.decision.recommendation import Choice, Recommendation
    from analysis.decision.what_if import WhatIf


def show_answer(found: Answer) -> None:
    """A recommendation beside its alternatives, how sure it is, and what would change it."""
    from analysis.decision.tables import choices_table, fits_table, replicas_table

    terminal, answer = Terminal(), found.recommendation
    best, cost = answer.recommendation, answer.recommendation.cost
    fits = fits_table(found)
    if fits is not None:
        terminal.print(f"{fits.title}; the answer below is that of {found.law_file}:")
        terminal.print(shown(fits))
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
    terminal.print(shown(choices_table(found)))
    replicas = replicas_table(found)
    if replicas is not None:
        terminal.print(f"{replicas.title}:")
        terminal.print(shown(replicas))
        _show_load(terminal, best)
        for name in ("ttft", "tpot", "output_throughput", "request_goodput", "usd_per_token"):
            terminal.print(f"  {name}: {METRICS[name]}", style="dim")
    _show_verdict(terminal, answer)
    if found.what_if is not None:
        _show_what_if(terminal, found.what_if, best.n_experts)
    for assumption in answer.assumptions:
        terminal.print(f"- {assumption}")


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


def _span(interval: tuple[float, float] | None, form: str = ".3g") -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
