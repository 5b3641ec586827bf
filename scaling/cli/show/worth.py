"""What experts are worth, as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.worth.tables import pairs_table, tables_of
from scaling.cli.show.page import Page, of_reading
from scaling.formatting import flops, percent

if TYPE_CHECKING:
    from analysis.tables.runs import RunTable
    from analysis.worth.speedup import Growth
    from analysis.worth.worth import Worth


_TABLES = 2  # that a page has room for


def worth_page(found: Worth, table: RunTable | None = None) -> Page:
    """The finding, the speedups, whether they grow, and what to doubt."""
    tables = tables_of(found)
    first, details = tables, (pairs_table(found),) if found.pairs else ()
    if len(tables) > _TABLES:  # of a study: growth by E stands behind the speedups by law and by cells
        first, details = (tables[0], tables[-1]), (*tables[1:-1], *details)
    return Page(
        _capital(found.headline),
        why=tuple(_growth(one) for one in found.growth if one.n_experts is not None or len(found.growth) == 1)[-1:],
        tables=first,
        notes=found.assumptions,
        read=() if table is None else of_reading(table.dropped, table.notes),
        warnings=found.warnings,
        details=details,
        more="every pair",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _growth(growth: Growth) -> str:
    """Whether the advantage of the largest E grows."""
    name = "The advantage" if growth.n_experts is None else f"The advantage of E = {growth.n_experts}"
    between = f"between {flops(growth.from_flops)} and {flops(growth.to_flops)} FLOPs"
    if growth.compute_slope is None:
        return f"Whether {name.lower()} grows {between} is not known: the baseline does not reach every loss."
    verb = "grows" if growth.compute_slope > 0 else "shrinks"
    change = abs(10**growth.compute_slope - 1)
    text = f"{name} {verb} {between}: by {change:.1%} in compute for each factor 10"
    if growth.compute_grows is None:
        return f"{text}."
    return f"{text}; it grows in {percent(growth.compute_grows)} of the draws."
