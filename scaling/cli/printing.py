"""Answers as tables for a person at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from analysis.fit import Fit
    from analysis.methods import Comparison
    from analysis.profile import Profile
    from analysis.recommend import Choice, Recommendation


def show_fit(fitted: Fit, profiles: Sequence[Profile] = ()) -> None:
    """A fit's parameters with intervals, profile intervals where made, and what they rest on."""
    shapes = {one.name: one for one in profiles}
    table = Table(title=f"{fitted.law}: {fitted.definition.formula}", title_justify="left")
    for heading in ("parameter", "value", "95 % interval", *(["by profile"] if shapes else []), "meaning"):
        table.add_column(heading)
    for name in fitted.definition.names:
        if name in fitted.pinned:
            interval = f"pinned ({fitted.pinned[name].source})"
        else:
            interval = _within(fitted, name) if name in fitted.intervals else "-"
        value = f"{fitted.params[name]:.6g}" if name in fitted.params else "-"
        ends = [_open_ended(*shapes[name].interval) if name in shapes else "-"] if shapes else []
        table.add_row(name, value, interval, *ends, fitted.definition.parameter(name).meaning)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table, soft_wrap=False)
    if fitted.objective is not None:
        corner = "" if fitted.objective_kind in ("lad", "least-squares") else f"({fitted.delta:g})"
        console.print(
            f"sum of {fitted.objective_kind}{corner} over {fitted.residual} residuals {fitted.objective:.9g}; "
            f"rmse of ln loss {fitted.rmse_log:.3g}; {fitted.n_runs} runs in {fitted.n_trunks} trunks; "
            f"{fitted.n_starts_at_minimum} of {fitted.n_starts} starts at the minimum; "
            f"condition {fitted.condition:.0f}; {fitted.n_draws} resamples; status {fitted.status}",
        )


def _within(fitted: Fit, name: str) -> str:
    """An interval, an end at the parameter's bound told as such: the runs do not say how far it goes."""
    ends, bounds = fitted.intervals[name], fitted.definition.parameter(name).bounds
    near = [math.isclose(end, bound, rel_tol=1e-4, abs_tol=1e-9) for end, bound in zip(ends, bounds, strict=True)]
    return " to ".join(f"{end:.5g}{' (its bound)' if at else ''}" for end, at in zip(ends, near, strict=True))


def _open_ended(low: float | None, high: float | None) -> str:
    """An interval whose missing ends the runs do not bound."""
    return f"{'unbounded' if low is None else f'{low:.5g}'} to {'unbounded' if high is None else f'{high:.5g}'}"


def show_recommendation(found: Recommendation) -> None:
    """A recommendation beside its alternatives, and how sure it is."""
    console = Console(highlight=False, soft_wrap=True)
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
    headings = ("E", "N_active", "N_total", "tokens", "loss", f"cost {cost.unit}", "best in", "regret", "unmet")
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))  # no lines: it fits 80 columns
    for choice in (best, *found.alternatives):
        table.add_row(*_row(choice))
    console.print(table, soft_wrap=False)
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
    for assumption in found.assumptions:
        console.print(f"- {assumption}")


def show_registry(routers: Mapping[str, Mapping[str, Any]], experts: Mapping[str, Mapping[str, Any]]) -> None:
    """What may stand behind `router` and `experts` in a grid, and which fields each reads."""
    console = Console(highlight=False, soft_wrap=True)
    for heading, found in (("router", routers), ("experts", experts)):
        table = Table(heading, "arXiv", "causal", "reads", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, one in found.items():
            table.add_row(
                name, one["arxiv"], "yes" if one.get("causal", True) else "no", ", ".join(one["reads"]) or "-"
            )
        console.print(table, soft_wrap=False)
        console.print()


def show_comparison(made: Comparison) -> None:
    """The methods by loss, with intervals, ranks and groups; what is not ranked, and what cannot be said."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # in a file or a pipe nothing needs to be narrow
        console.width = max(console.width, 140)
    cell = made.cell
    console.print(
        f"{len(made.rows)} methods at d_model {cell['d_model']}, {cell['n_layers']} layers, {cell['tokens']:.3g} tokens of "
        f"{cell['corpus']}; differences to {made.reference}, nats per token"
    )
    headings = ["seeds", "loss", "difference"] + (["95 %", "rank", "best in", "group"] if made.ranked else [])
    table = Table("method", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for _, row in made.rows.iterrows():
        cells = [row["method"], str(row["seeds"]), f"{row['loss']:.4f}", f"{row['difference']:+.4f}"]
        if made.ranked:
            cells += [f"{row['low']:+.4f} to {row['high']:+.4f}", f"{row['rank_low']}-{row['rank_high']}"]
            cells += [f"{row['best']:.0%}", row["group"]]
        table.add_row(*cells)
    console.print(table, soft_wrap=False)
    if made.ranked:
        documents = f" and of {made.n_documents} documents" if made.n_documents else ""
        console.print(
            f"Intervals carry the noise of seeds (sd {made.seed_sd:.2g}, pooled, {made.seed_df} degrees of freedom)"
            f"{documents}; ranks and groups hold for all pairs together at 95 %. Who shares a letter is not told apart."
        )
        leaders = ", ".join(made.leaders)
        console.print(
            f"Best: {leaders}." if len(made.leaders) == 1 else f"Undecided; may be the best: {leaders}.", style="bold"
        )
        console.print(f"- choosing the best of {len(made.rows)} flatters it by about {made.optimism:.2g} nats")
    for warning in made.warnings:
        console.print(f"- {warning}")
    for _, row in made.apart.iterrows():
        leak = f", leak {row['leak']:.3f}" if not math.isnan(row["leak"]) else ""
        console.print(f"Not comparable: {row['method']}, loss {row['loss']:.4f}{leak}: {row['reason']}")
    for _, row in made.failed.iterrows():
        console.print(f"Failed: {row['cells']} of {row['method']} ({row['status']})")


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


def _span(interval: tuple[float, float] | None, form: str = ".3g") -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
