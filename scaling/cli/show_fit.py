"""Answers as tables for a person at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.methods.comparison import MethodComparison


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


def show_comparison(made: MethodComparison) -> None:
    """The methods by loss, with intervals, ranks and groups; what is not ranked, and what cannot be said."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # in a file or a pipe nothing needs to be narrow
        console.width = max(console.width, 140)
    cell = made.cell
    console.print(
        f"{len(made.rows)} methods at d_model {cell['d_model']}, {cell['n_layers']} layers, {cell['tokens']:.3g} "
        f"tokens of {cell['corpus']}; differences to {made.reference}, nats per token"
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
