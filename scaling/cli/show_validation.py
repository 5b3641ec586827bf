"""A validation as tables for a person at a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from analysis.fitting.roll_out import brief

if TYPE_CHECKING:
    from analysis.fitting.roll_out import HeldOutRuns
    from analysis.validation.influence import Exclusion, Sensitivity
    from analysis.validation.law_comparison import LawComparison


_MOST_TRUNKS = 5


def show_validation(verdict: Sequence[str], parts: Mapping[str, Any]) -> None:
    """The verdict, then the four parts briefly; parts that these runs do not allow are in the verdict alone."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # in a file or a pipe nothing needs to be narrow
        console.width = max(console.width, 140)
    for sentence in verdict:
        console.print(f"{sentence[0].upper()}{sentence[1:]}.", style="bold")
    if "roll_out" in parts:
        _show(console, "Roll-out", _held_out(parts["roll_out"].cuts))
        notes = dict.fromkeys(f"{cut.label}: {note}" for cut in parts["roll_out"].cuts for note in cut.notes)
        console.print("\n".join(f"- {note}" for note in notes), end="\n" if notes else "")
    if "experts_left_out" in parts:
        _show(console, "One expert count left out", _held_out(parts["experts_left_out"].parts))
    if "comparison" in parts:
        _laws(console, parts["comparison"])
    if "sensitivity" in parts:
        _sensitivity(console, parts["sensitivity"])


def _held_out(splits: Sequence[HeldOutRuns]) -> Table:
    table = _table("fitted", "runs", "predicted", "median error", "bias", "worst", "inside", "95 % of the share")
    for part in splits:
        name = part.label if part.kind == "roll-out" else f"without {part.label} ({part.kind})"
        if part.summary is None:
            table.add_row(name, str(part.n_fitted), part.reason)
            continue
        found = part.summary
        share = "-" if found.share_interval is None else " to ".join(f"{end:.0%}" for end in found.share_interval)
        table.add_row(
            name, str(part.n_fitted), str(found.n), f"{brief(found.median_error)} %", f"{brief(found.bias, '+')} %",
            f"{brief(found.worst, '+')} %", "-" if found.n_inside is None else f"{found.n_inside} of {found.n_judged}", share,
        )  # fmt: skip
    return table


def _laws(console: Console, found: LawComparison) -> None:
    table = _table(
        "law", "free", "elpd", "to the best", "weight", "stacking", "AICc", "rmse held out", "E", "N", "D", "loss"
    )
    for one in found.contenders:
        advice = one.advice
        table.add_row(
            one.law, str(one.n_free), f"{one.elpd:.1f}",
            "best" if one.difference == 0 else f"{one.difference:.1f} +- {one.difference_se:.1f}",
            f"{one.weight:.2f}", f"{one.stacking:.2f}", "-" if one.aicc is None else f"{one.aicc:.1f}",
            f"{one.rmse_held_out:.2%}",
            *(("-",) * 4 if advice is None else
              (str(advice.n_experts), f"{advice.n_active:.3g}", f"{advice.tokens:.3g}", f"{advice.loss:.4f}")),
        )  # fmt: skip
    _show(console, f"Laws, {found.n_folds} folds of {found.n_trunks} trunks; advice for {found.train_flops:.3g} FLOPs"
          if found.train_flops else f"Laws, {found.n_folds} folds of {found.n_trunks} trunks", table)  # fmt: skip
    for law, reason in found.skipped.items():
        console.print(f"- {law} not compared: {reason}")
    for one in found.contenders:
        if one.no_advice:
            console.print(f"- {one.law} advises nothing: {one.no_advice}")


def _sensitivity(console: Console, found: Sensitivity) -> None:
    names = list(found.quantities)
    table = _table("left out", "runs", *names)
    cells = [f"{q.estimate:.4g}" + ("" if q.standard_error is None else f" +- {q.standard_error:.2g}")
             for q in found.quantities.values()]  # fmt: skip
    table.add_row("nothing", "0", *cells)
    for one in (*found.trunks[:_MOST_TRUNKS], *found.groups):
        table.add_row(*_exclusion(one, names))
    _show(
        console, f"Sensitivity, changes in % (standard errors); {found.n_trunks_tried} trunks left out in turn", table
    )
    for note in found.notes:
        console.print(f"- {note}")


def _exclusion(one: Exclusion, names: Sequence[str]) -> list[str]:
    head = [f"trunk {one.label}" if one.kind == "trunk" else one.label, str(one.n_left_out)]
    if one.reason:
        return [*head, one.reason]
    changes = [one.changes[name] for name in names]
    return head + [brief(c.percent, "+") + ("" if c.in_se is None else f" ({c.in_se:+.1f})") for c in changes]


def _table(*headings: str) -> Table:
    return Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _show(console: Console, title: str, table: Table) -> None:
    console.print(f"\n{title}")
    console.print(table, soft_wrap=False)
