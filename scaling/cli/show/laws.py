"""The laws and the published fits: a page that lists them, and a text of reference."""

from __future__ import annotations

from analysis.fitting.published import PUBLISHED
from analysis.laws import LAWS
from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import listed


def laws_page() -> Page:
    """Every law with its formula, and the names of the published fits."""
    rows = [[law.name, law.formula] for law in LAWS.values()]
    names = listed(f"published:{name}" for name in PUBLISHED)
    table = text_table("", ("law", "formula"), rows, ("law", "formula"))
    together = "published:moe is an ensemble of those MoE laws that divide compute, for a plan without runs."
    return Page(
        _answer(), (f"{names}.", together), (table,), details=("",), more="parameters, columns, sources and domains"
    )


def _answer() -> str:
    return f"{len(LAWS)} laws, {len(PUBLISHED)} published fits"


def laws_text() -> str:
    """Every law with formula, parameters, source and domain, then the published fits: a page of reference."""
    from analysis.fitting.published_draws import with_draws

    parts = [f"{_answer()}\n"]
    for law in LAWS.values():
        size = f"N is {law.n_column}; " if law.n_column else ""
        parts.append(f"{law.name}: {law.formula}\n  {size}columns: {', '.join(law.columns)}; predicts {law.target}")
        parts += [f"  {p.name:8} {p.meaning}{f', {p.unit}' * bool(p.unit)}" for p in law.parameters]
        parts.append(f"  source  {law.source}\n  domain  {law.domain}\n")
    for name, fitted in ((name, with_draws(name)) for name in PUBLISHED):
        ends = {key: f" ({low:.4g} to {high:.4g})" for key, (low, high) in fitted.intervals.items()}
        params = ", ".join(f"{key} {value:.6g}{ends.get(key, '')}" for key, value in fitted.params.items())
        lines = "".join(f"\n  {line}" for line in (fitted.source, *fitted.warnings, *fitted.notes))
        parts.append(f"published:{name} ({fitted.law})\n  {params}{lines}\n")
    return "\n".join(parts).rstrip()
