"""A validation as tables for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.fitting.roll_out import brief
from scaling.cli.console import PlainTable, Terminal

if TYPE_CHECKING:
    from analysis.fitting.roll_out import HeldOutRuns
    from analysis.validation.checks import Checks
    from analysis.validation.influence import Exclusion, Sensitivity
    from analysis.validation.law_comparison import Contender, LawComparison


_MOST_TRUNKS = 5


def show_validation(checks: Checks) -> None:
    """The verdict, then the four parts briefly; parts that these runs do not allow are in the verdict alone."""
    terminal = Terminal(width_in_file=140)
    for sentence in checks.verdict:
        terminal.print(f"{sentence[0].upper()}{sentence[1:]}.", style="bold")
    if checks.roll_out is not None:
        cuts = checks.roll_out.cuts
        _show(terminal, "Roll-out", _held_out(cuts))
        for note in dict.fromkeys(f"{cut.label}: {note}" for cut in cuts for note in cut.notes):
            terminal.print(f"- {note}")
    if checks.experts_left_out is not None:
        _show(terminal, "One expert count left out", _held_out(checks.experts_left_out.parts))
    if checks.comparison is not None:
        _show_laws(terminal, checks.comparison)
    if checks.sensitivity is not None:
        _show_sensitivity(terminal, checks.sensitivity)


def _held_out(splits: Sequence[HeldOutRuns]) -> PlainTable:
    table = PlainTable("fitted", "runs", "predicted", "median error", "bias", "worst", "inside", "95 % of the share")
    for part in splits:
        name = part.label if part.kind == "roll-out" else f"without {part.label} ({part.kind})"
        if part.summary is None:
            table.add_row(name, str(part.n_fitted), part.reason)
            continue
        errors = part.summary
        table.add_row(
            name,
            str(part.n_fitted),
            str(errors.n),
            f"{brief(errors.median_error)} %",
            f"{brief(errors.bias, '+')} %",
            f"{brief(errors.worst, '+')} %",
            "-" if errors.n_inside is None else f"{errors.n_inside} of {errors.n_judged}",
            "-" if errors.share_interval is None else " to ".join(f"{end:.0%}" for end in errors.share_interval),
        )
    return table


def _show_laws(terminal: Terminal, comparison: LawComparison) -> None:
    table = PlainTable(
        "law", "free", "elpd", "to the best", "weight", "stacking", "AICc", "rmse held out", "E", "N", "D", "loss"
    )
    for contender in comparison.contenders:
        table.add_row(*_contender(contender))
    title = f"Laws, {comparison.n_folds} folds of {comparison.n_trunks} trunks"
    budget = f"; advice for {comparison.train_flops:.3g} FLOPs" if comparison.train_flops else ""
    _show(terminal, title + budget, table)
    for law, reason in comparison.skipped.items():
        terminal.print(f"- {law} not compared: {reason}")
    for contender in comparison.contenders:
        if contender.no_advice:
            terminal.print(f"- {contender.law} advises nothing: {contender.no_advice}")


def _contender(contender: Contender) -> list[str]:
    advice = ["-"] * 4
    if contender.advice is not None:
        best = contender.advice
        advice = [str(best.n_experts), f"{best.n_active:.3g}", f"{best.tokens:.3g}", f"{best.loss:.4f}"]
    behind = "best" if contender.difference == 0 else f"{contender.difference:.1f} +- {contender.difference_se:.1f}"
    return [
        contender.law,
        str(contender.n_free),
        f"{contender.elpd:.1f}",
        behind,
        f"{contender.weight:.2f}",
        f"{contender.stacking:.2f}",
        "-" if contender.aicc is None else f"{contender.aicc:.1f}",
        f"{contender.rmse_held_out:.2%}",
        *advice,
    ]


def _show_sensitivity(terminal: Terminal, sensitivity: Sensitivity) -> None:
    names = list(sensitivity.quantities)
    table = PlainTable("left out", "runs", *names)
    estimates = (
        f"{quantity.estimate:.4g}" + ("" if quantity.standard_error is None else f" +- {quantity.standard_error:.2g}")
        for quantity in sensitivity.quantities.values()
    )
    table.add_row("nothing", "0", *estimates)
    for exclusion in (*sensitivity.trunks[:_MOST_TRUNKS], *sensitivity.groups):
        table.add_row(*_exclusion(exclusion, names))
    tried = f"{sensitivity.n_trunks_tried} trunks left out in turn"
    _show(terminal, f"Sensitivity, changes in % (standard errors); {tried}", table)
    for note in sensitivity.notes:
        terminal.print(f"- {note}")


def _exclusion(exclusion: Exclusion, names: Sequence[str]) -> list[str]:
    label = f"trunk {exclusion.label}" if exclusion.kind == "trunk" else exclusion.label
    if exclusion.reason:
        return [label, str(exclusion.n_left_out), exclusion.reason]
    changes = [exclusion.changes[name] for name in names]
    moved = (brief(c.percent, "+") + ("" if c.in_se is None else f" ({c.in_se:+.1f})") for c in changes)
    return [label, str(exclusion.n_left_out), *moved]


def _show(terminal: Terminal, title: str, table: PlainTable) -> None:
    terminal.print(f"\n{title}")
    terminal.print(table)
