"""Registered methods, and the ranking of a study's, as tables for a person at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scaling.cli.console import PlainTable, Terminal

if TYPE_CHECKING:
    from analysis.methods.comparison import MethodComparison


def show_registry(routers: Mapping[str, Mapping[str, Any]], experts: Mapping[str, Mapping[str, Any]]) -> None:
    """What may stand behind `router` and `experts` in a grid, and which fields each reads."""
    terminal = Terminal()
    for heading, registered in (("router", routers), ("experts", experts)):
        table = PlainTable(heading, "arXiv", "causal", "reads")
        for name, method in registered.items():
            causal = "yes" if method.get("causal", True) else "no"
            table.add_row(name, method["arxiv"], causal, ", ".join(method["reads"]) or "-")
        terminal.print(table)
        terminal.print()


def show_comparison(comparison: MethodComparison) -> None:
    """The methods by loss, with intervals, ranks and groups; what is not ranked, and what cannot be judged."""
    terminal = Terminal(width_in_file=140)
    cell = comparison.cell
    terminal.print(
        f"{len(comparison.rows)} methods at d_model {cell['d_model']}, {cell['n_layers']} layers, {cell['tokens']:.3g} "
        f"tokens of {cell['corpus']}; differences to {comparison.reference}, nats per token"
    )
    _show_ranking(terminal, comparison)
    for warning in comparison.warnings:
        terminal.print(f"- {warning}")
    for _, row in comparison.apart.iterrows():
        leak = f", leak {row['leak']:.3f}" if not math.isnan(row["leak"]) else ""
        terminal.print(f"Not comparable: {row['method']}, loss {row['loss']:.4f}{leak}: {row['reason']}")
    for _, row in comparison.failed.iterrows():
        terminal.print(f"Failed: {row['cells']} of {row['method']} ({row['status']})")


def _show_ranking(terminal: Terminal, comparison: MethodComparison) -> None:
    ranked = comparison.ranked
    table = PlainTable("method")
    for heading in ["seeds", "loss", "difference"] + (["95 %", "rank", "best in", "group"] if ranked else []):
        table.add_column(heading, no_wrap=True)
    for _, row in comparison.rows.iterrows():
        cells = [row["method"], str(row["seeds"]), f"{row['loss']:.4f}", f"{row['difference']:+.4f}"]
        if ranked:
            cells += [f"{row['low']:+.4f} to {row['high']:+.4f}", f"{row['rank_low']}-{row['rank_high']}"]
            cells += [f"{row['best']:.0%}", row["group"]]
        table.add_row(*cells)
    terminal.print(table)
    if not ranked:
        return
    documents = f" and of {comparison.n_documents} documents" if comparison.n_documents else ""
    terminal.print(
        f"Intervals carry the noise of seeds (sd {comparison.seed_sd:.2g}, pooled, {comparison.seed_df} degrees of "
        f"freedom){documents}; ranks and groups hold for all pairs together at 95 %. Methods that share a letter "
        "cannot be distinguished."
    )
    leaders = ", ".join(comparison.leaders)
    terminal.print(
        f"Best: {leaders}." if len(comparison.leaders) == 1 else f"Undecided; may be the best: {leaders}.", style="bold"
    )
    terminal.print(f"- choosing the best of {len(comparison.rows)} flatters it by about {comparison.optimism:.2g} nats")
