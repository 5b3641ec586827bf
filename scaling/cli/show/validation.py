"""A validation as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analysis.fitting.roll_out import brief
from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import flops, plural, si

if TYPE_CHECKING:
    from analysis.fitting.roll_out import HeldOutRuns
    from analysis.validation.checks import Checks
    from analysis.validation.influence import Exclusion, Sensitivity
    from analysis.validation.law_comparison import Contender, LawComparison
    from scaling.table import Table

_MOST_TRUNKS = 5


def validation_page(checks: Checks, read: Sequence[str]) -> Page:
    """How well larger runs and other expert counts are predicted, other laws, and what each check found."""
    splits = [*(checks.roll_out.cuts if checks.roll_out else ())]
    splits += checks.experts_left_out.parts if checks.experts_left_out else ()
    tables = [_held_out(splits)] if splits else []
    if checks.comparison is not None:
        tables.append(_laws(checks.comparison))
    findings = [checks.verdict_of(name) for name in ("comparison", "sensitivity", "residuals")]
    if checks.experts_left_out is None:
        findings.insert(0, checks.verdict_of("experts_left_out"))
    details: list[Table | str] = [*_reasons(checks, splits)]
    if checks.sensitivity is not None:
        details += [_sensitivity(checks.sensitivity), *checks.sensitivity.notes]
    return Page(
        f"{checks.fit.law} {_answer(checks)}",
        why=(f"Judged on {plural(checks.fit.n_runs, 'run')} of {plural(checks.fit.n_trunks, 'trunk')}.",),
        tables=tuple(tables),
        notes=tuple(findings),
        read=tuple(read),
        warnings=checks.fit.warnings,
        details=tuple(details),
    )


def _answer(checks: Checks) -> str:
    """How well larger runs are predicted, in a few words."""
    overall = None if checks.roll_out is None else checks.roll_out.overall
    if overall is None:
        return "has no prediction of larger runs that could be judged"
    inside = "" if overall.n_inside is None else f"; {overall.n_inside} of {overall.n_judged} inside 95 %"
    return f"predicts larger runs within {brief(overall.median_error)} % (median){inside}"


def _reasons(checks: Checks, splits: Sequence[HeldOutRuns]) -> Iterator[str]:
    """Why something could not be judged, and what was pinned to judge it."""
    if checks.roll_out is None or checks.roll_out.overall is None:
        yield checks.verdict_of("roll_out")
    yield from dict.fromkeys(f"{part.label}: {text}" for part in splits for text in (*part.notes, part.reason) if text)
    if checks.comparison is not None:
        yield from (f"{law} not compared: {reason}" for law, reason in checks.comparison.skipped.items())
        yield from (
            f"{one.law} gives no advice: {one.no_advice}" for one in checks.comparison.contenders if one.no_advice
        )


def _held_out(splits: Sequence[HeldOutRuns]) -> Table:
    rows = []
    for part in splits:
        name = part.label if part.kind == "roll-out" else f"without {part.label} ({part.kind})"
        errors = part.summary
        if errors is None:
            rows.append([name, str(part.n_fitted), *["–"] * 5])
            continue
        inside = "–" if errors.n_inside is None else f"{errors.n_inside} of {errors.n_judged}"
        rows.append([
            name, str(part.n_fitted), str(errors.n), f"{brief(errors.median_error)} %", f"{brief(errors.bias, '+')} %",
            f"{brief(errors.worst, '+')} %", inside,
        ])  # fmt: skip
    headings = ("fitted to", "runs", "held out", "median", "bias", "worst", "inside")
    return text_table("Errors on runs held out; inside: within the 95 % interval", headings, rows, ("fitted to",))


def _laws(comparison: LawComparison) -> Table:
    title = f"Laws, {comparison.n_folds} folds of {comparison.n_trunks} trunks"
    if comparison.train_flops:
        title += f"; E, N, D and loss advised at {flops(comparison.train_flops)} FLOPs"
    headings = ("law", "free", "Δ elpd", "weight", "rmse held out", "E", "N", "D", "loss")
    return text_table(title, headings, map(_contender, comparison.contenders), ("law",))


def _contender(contender: Contender) -> list[str]:
    advice = ["–"] * 4
    if contender.advice is not None:
        best = contender.advice
        advice = [str(best.n_experts), si(best.n_active), si(best.tokens), f"{best.loss:.4f}"]
    behind = "best" if contender.difference == 0 else f"{contender.difference:.1f} ± {contender.difference_se:.1f}"
    held_out = f"{contender.rmse_held_out:.2%}"
    return [contender.law, str(contender.n_free), behind, f"{contender.weight:.2f}", held_out, *advice]


def _sensitivity(sensitivity: Sensitivity) -> Table:
    names = list(sensitivity.quantities)
    estimates = (
        f"{si(quantity.estimate, 4)}"
        + ("" if quantity.standard_error is None else f" ± {si(quantity.standard_error, 2)}")
        for quantity in sensitivity.quantities.values()
    )
    rows = [["nothing", "0", *estimates]]
    rows += [_exclusion(one, names) for one in (*sensitivity.trunks[:_MOST_TRUNKS], *sensitivity.groups)]
    title = (
        f"Sensitivity: changes in % (in standard errors) without some runs; "
        f"{plural(sensitivity.n_trunks_tried, 'trunk')} left out in turn"
    )
    return text_table(title, ("left out", "runs", *names), rows, ("left out",))


def _exclusion(exclusion: Exclusion, names: Sequence[str]) -> list[str]:
    label = f"trunk {exclusion.label}" if exclusion.kind == "trunk" else exclusion.label
    if exclusion.reason:
        return [f"{label}: {exclusion.reason}", str(exclusion.n_left_out), *["–"] * len(names)]
    changes = [exclusion.changes[name] for name in names]
    moved = (brief(c.percent, "+") + ("" if c.in_se is None else f" ({c.in_se:+.1f})") for c in changes)
    return [label, str(exclusion.n_left_out), *moved]
