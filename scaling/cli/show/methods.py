"""Registered methods, and the comparison of a study's methods, as pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import listed, percent, plural, si

if TYPE_CHECKING:
    from analysis.methods.comparison import MethodComparison
    from scaling.table import Table


def registry_page(routers: Mapping[str, Mapping[str, Any]], experts: Mapping[str, Mapping[str, Any]]) -> Page:
    """What `router` and `experts` may be in a grid, and which fields each reads."""
    tables = [
        text_table(
            "",
            (heading, "arXiv", "reads"),
            [[name, method["arxiv"], ", ".join(method["reads"]) or "–"] for name, method in registered.items()],
            (heading, "arXiv", "reads"),
        )
        for heading, registered in (("router", routers), ("experts", experts))
    ]
    ahead = [name for name, router in routers.items() if not router["causal"]]
    return Page(
        f"{plural(len(routers), 'router')} and {plural(len(experts), 'form')} of experts",
        tables=tuple(tables),
        notes=(f"not causal (they see later tokens): {listed(ahead)}",),
    )


def comparison_page(comparisons: Sequence[MethodComparison]) -> Page:
    """The methods of the largest comparison by loss, with intervals, ranks and groups; what could not be ranked."""
    comparison = comparisons[0]
    cell, leaders = comparison.cell, comparison.leaders
    where = f"at d_model {cell['d_model']}, {si(cell['tokens'])} tokens"
    if not comparison.ranked:
        answer = f"{plural(len(comparison.rows), 'method')} {where}: not ranked"
    elif len(leaders) == 1:
        answer = f"Best of {len(comparison.rows)} methods {where}: {leaders[0]}"
    else:
        answer = f"Not decided {where}: {len(leaders)} of {len(comparison.rows)} methods may be best"
    why = []
    if comparison.ranked and len(leaders) > 1:
        why.append(f"May be best: {listed(leaders)}.")
    why.append(
        f"Differences in nats per token to {comparison.reference}, {plural(cell['n_layers'], 'layer')}, "
        f"corpus {cell['corpus']}."
    )
    notes = [f"not comparable: {row['method']}, loss {row['loss']:.4f}{_leak(row)}: {row['reason']}"
             for _, row in comparison.apart.iterrows()]  # fmt: skip
    notes += [f"failed: {row['cells']} of {row['method']} ({row['status']})" for _, row in comparison.failed.iterrows()]
    if len(comparisons) > 1:
        notes.append(f"{plural(len(comparisons) - 1, 'smaller comparison')} of this study: --json")
    details = _how_to_read(comparison) if comparison.ranked else ()
    if comparison.ranked:
        notes.insert(0, "methods that share a letter do not differ significantly (all pairs together, 95 %)")
    return Page(answer, tuple(why), (_ranking(comparison),), tuple(notes), (), tuple(comparison.warnings), details)


def _leak(row: Any) -> str:
    return "" if math.isnan(row["leak"]) else f", leak {row['leak']:.3f}"


def _ranking(comparison: MethodComparison) -> Table:
    headings = ["method", "seeds", "loss", "difference"]
    headings += ["95 % interval", "rank", "best in", "group"] if comparison.ranked else []
    rows = []
    for _, row in comparison.rows.iterrows():
        cells = [row["method"], str(row["seeds"]), f"{row['loss']:.4f}", f"{row['difference']:+.4f}"]
        if comparison.ranked:
            cells += [f"{row['low']:+.4f} to {row['high']:+.4f}", f"{row['rank_low']}-{row['rank_high']}"]
            cells += [percent(row["best"]), row["group"]]
        rows.append(cells)
    return text_table("", headings, rows, ("method", "group"))


def _how_to_read(comparison: MethodComparison) -> tuple[str, ...]:
    documents = f" and of {comparison.n_documents} documents" if comparison.n_documents else ""
    return (
        f"intervals carry the noise of seeds (SD {comparison.seed_sd:.2g}, pooled, {comparison.seed_df} degrees of "
        f"freedom){documents}",
        f"choosing the best of {len(comparison.rows)} flatters it by about {comparison.optimism:.2g} nats",
    )
