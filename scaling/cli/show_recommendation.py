"""A recommendation as a table for a person at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from scaling.serving.replicas import METRICS

if TYPE_CHECKING:
    from analysis.decision.recommendation import Choice, Recommendation


def show_recommendation(
    found: Recommendation, what_if: Mapping[str, Any] | None = None, rivals: Mapping[str, Any] | None = None
) -> None:
    """A recommendation beside its alternatives, how sure it is, and what would change it."""
    console = Console(highlight=False, soft_wrap=True)
    if rivals is not None:
        _show_rivals(
            console, rivals, "loss" if found.question.goal == "loss" else f"cost {found.recommendation.cost.unit}"
        )
    best = found.recommendation
    cost = best.cost
    console.print(f"{found.mode[0].upper()}{found.mode[1:]}:")
    console.print(
        f"E = {best.n_experts}, N_active {best.n_active:.4g}{_span(best.n_active_interval)}, "
        f"D {best.tokens:.4g}{_span(best.tokens_interval)}, loss {best.loss:.4f}{_span(best.loss_interval, '.4f')}",
        style="bold",
    )
    console.print(
        f"{best.train_flops:.4g} training FLOPs; cost {cost.train:.4g} to train + {cost.serve:.4g} to serve = "
        f"{cost.total:.4g} {cost.unit}{_span(best.cost_interval)}"
    )
    if best.run_interval is not None:
        console.print(
            f"One run of it is expected to measure a loss of {best.run_interval[0]:.4f} to {best.run_interval[1]:.4f}."
        )
    headings = ("E", "N_active", "N_total", "tokens", "loss", f"cost {cost.unit}", "best in", "regret", "unmet")
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))  # no lines: it fits 80 columns
    for choice in (best, *found.alternatives):
        table.add_row(*_row(choice))
    console.print(table, soft_wrap=False)
    if best.served is not None:
        _show_serving(console, found)
    if found.decided:
        console.print("Decided.")
    for doubt in found.undecided_because:
        console.print(f"Undecided: {doubt}.")
    if found.next_run is not None:
        run = found.next_run
        gain = (
            "" if run.regret_after is None else f" (expected regret {run.regret_before:.2%} -> {run.regret_after:.2%})"
        )
        console.print(
            f"The run that would help most: E = {run.n_experts}, N_active {run.n_active:.3g}, {run.tokens:.3g} tokens, "
            f"{run.train_flops:.3g} FLOPs: {run.reason}{gain}."
        )
    if what_if is not None:
        _show_what_if(console, what_if, best.n_experts)
    for assumption in found.assumptions:
        console.print(f"- {assumption}")


def _row(choice: Choice) -> list[str]:
    return [
        str(choice.n_experts),
        f"{choice.n_active:.3g}",
        "?" if choice.n_total is None else f"{choice.n_total:.3g}",
        f"{choice.tokens:.3g}",
        f"{choice.loss:.4f}",
        f"{choice.cost.total:.3g}",
        "?" if choice.probability_best is None else f"{choice.probability_best:.0%}",
        "?" if choice.regret is None else f"{choice.regret:.1%}",
        "?" if choice.unanswered is None else f"{choice.unanswered:.0%}",
    ]


def _show_serving(console: Console, found: Recommendation) -> None:
    """How each is served: the cheapest replica, its latency and its price."""
    headings = ("E", "devices", "batch", "ttft ms", "tpot ms", "tokens/s", "requests/s", "USD/M", "replicas")
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for choice in (found.recommendation, *found.alternatives):
        one = choice.served
        if one is None:
            continue
        split = " by expert" if one.experts_split else ""
        least = f" (fits {one.fewest_devices})" if one.fewest_devices < one.n_devices else ""
        table.add_row(
            str(choice.n_experts),
            f"{one.n_devices}{split}{least}",
            str(one.batch),
            f"{one.ttft_ms:.3g}",
            f"{one.tpot_ms:.3g}",
            f"{one.output_throughput:.3g}",
            f"{one.request_goodput:.3g}",
            f"{one.usd_per_million:.3g}",
            "-" if one.replicas is None else str(one.replicas),
        )
    console.print("Served by replicas, busy, without queueing (USD/M: a million generated tokens):")
    console.print(table, soft_wrap=False)
    _show_load(console, found.recommendation)
    for name in ("ttft", "tpot", "output_throughput", "request_goodput", "usd_per_token"):
        console.print(f"  {name}: {METRICS[name]}", style="dim")


def _show_load(console: Console, chosen: Choice) -> None:
    """How sure the speed is, and what a load makes of the replicas."""
    one = chosen.served
    if one is None:
        return
    if one.tpot_ms_interval is not None and one.usd_per_million_interval is not None:
        (low, high), (least, most) = one.tpot_ms_interval, one.usd_per_million_interval
        console.print(
            f"E = {chosen.n_experts}: tpot {low:.3g} to {high:.3g} ms, {least:.3g} to {most:.3g} USD/M (95 %)."
        )
    if one.load_batch is not None:
        console.print(
            f"E = {chosen.n_experts} at this load: {one.load_batch:.3g} sequences in each replica, ttft "
            f"{one.load_ttft_ms:.3g} ms, tpot {one.load_tpot_ms:.3g} ms."
        )


def _show_rivals(console: Console, rivals: Mapping[str, Any], value: str) -> None:
    """What every fit offers at its best, the best first."""
    headings = ("fit", "k", "E", "N_active", "tokens", value, "best in", "regret")
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for one in rivals["rivals"]:
        table.add_row(
            one["name"],
            "?" if one["top_k"] is None else str(one["top_k"]),
            str(one["n_experts"]),
            f"{one['n_active']:.3g}",
            f"{one['tokens']:.3g}",
            f"{one['value']:.4g}",
            "?" if one["probability_best"] is None else f"{one['probability_best']:.0%}",
            "?" if one["regret"] is None else f"{one['regret']:.1%}",
        )
    console.print(f"Fits compared, the answer below is that of {rivals['rivals'][0]['name']}:")
    console.print(table, soft_wrap=False)


def _show_what_if(console: Console, what_if: Mapping[str, Any], best: int) -> None:
    """What changes the answer, and the volumes at which one E overtakes another."""
    changing = [case for case in what_if["cases"] if case["changes"]]
    for case in changing:
        then = "nothing can answer" if case["n_experts"] is None else f"E = {case['n_experts']} would be best"
        console.print(f"If {case['what']} were {case['value']}: {then}.")
    kept = sorted({case["what"] for case in what_if["cases"]} - {case["what"] for case in changing})
    if kept:
        console.print(f"E = {best} stays the best whatever was tried of {', '.join(kept)}.")
    for crossing in what_if["crossovers"]:
        console.print(
            f"At {crossing['volume']:.3g} tokens served E = {crossing['after']} overtakes E = {crossing['before']}."
        )


def _span(interval: tuple[float, float] | None, form: str = ".3g") -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
