"""Progress, plan and next cells of a study as pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scaling.cli.options import with_options
from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import flops, percent, plural, si
from scaling.table import Table
from sweeps.grid import Grid, axis_value
from sweeps.progress import Progress, duration

if TYPE_CHECKING:  # it loads pandas, scipy and statsmodels, which a sweep does without
    from sweeps.plan.language_model import CellPlan, Plan
    from sweeps.plan.task import TaskCellPlan, TaskPlan


class SweepProgress(Progress):
    """Progress whose messages name the options of the command."""

    def note(self, text: str) -> None:
        """A message that stays."""
        super().note(with_options(text))


def plan_page(plan: Plan) -> Page:
    """What a grid costs in all, its cells, and what its design cannot show."""
    totals = plan.to_json()["totals"]
    saved = 1 - totals["tokens_trained"] / totals["tokens"]
    duplicates = (f"{plan.duplicates} duplicates were merged",) if plan.duplicates else ()
    left_out = (f"left out: {one}" for one in plan.left_out)
    defaults = (
        f"defaults, {section}: " + ", ".join(f"{name}={value}" for name, value in values.items())
        for section, values in plan.defaults.items()
    )
    return Page(
        f"{plan.study}: {totals['cells']} cells, {totals['missing']} to train, about {duration(plan.seconds)}",
        why=(
            f"{si(totals['tokens_trained'])} tokens as branches of {plural(totals['trunks'], 'trunk')}, "
            f"{percent(saved)} less than the {si(totals['tokens'])} tokens ({flops(totals['train_flops'])} FLOPs) of "
            f"cells trained alone; {plan.workers} at a time.",
        ),
        tables=(_cells(plan.cells),),
        notes=(
            *left_out,
            f"time is {plan.speed.basis}; latency is measured after that",
            *duplicates,
            *plan.notes,
        ),
        warnings=plan.lint,
        details=(_resolved(plan), *defaults),
        more="what each cell resolves to, and the defaults",
    )


def task_plan_page(plan: TaskPlan) -> Page:
    """What a grid of another task costs, what it measures, and what its design cannot show."""
    totals, task = plan.to_json()["totals"], plan.task
    duplicates = (f"{plan.duplicates} duplicates were merged",) if plan.duplicates else ()
    defaults = (
        f"defaults, {section}: " + ", ".join(f"{name}={value}" for name, value in values.items())
        for section, values in plan.defaults.items()
    )
    first, *others = task.metrics
    more = f", and {plural(len(others), 'more metric')}" if others else ""
    return Page(
        f"{plan.study}: {totals['cells']} cells, {totals['missing']} to train, about {duration(plan.seconds)}",
        why=(
            f"Task {task.name}: {task.title}" + (f" ({task.source})." if task.source else "."),
            f"It measures {first.name}, where {first.better} is better{more}. {flops(totals['train_flops'])} FLOPs, "
            f"{task.flops_are}; {plan.workers} at a time.",
        ),
        tables=(_task_cells(plan),),
        notes=(*(f"left out: {one}" for one in plan.left_out), f"time is {plan.basis}", *duplicates),
        warnings=plan.lint,
        details=(_metrics(plan), _resolved(plan), *defaults),
        more="the metrics, what each cell resolves to, and the defaults",
    )


def _metrics(plan: TaskPlan) -> Table:
    """What the task measures, in which units and which way is better."""
    rows = [[one.name, one.unit or "–", one.better, one.meaning] for one in plan.task.metrics]
    return text_table("Metrics", ("metric", "unit", "better", "meaning"), rows, ("metric", "unit", "better", "meaning"))


def _task_cells(plan: TaskPlan) -> Table:
    """What each cell costs, those that take most compute first."""
    rows = [
        [cell.label, si(cell.budget), flops(cell.train_flops), duration(cell.seconds), cell.status]
        for cell in sorted(plan.cells, key=lambda cell: -cell.train_flops)
    ]
    table = text_table("", ("cell", plan.task.budget.name, "FLOPs", "time", "status"), rows, ("cell", "status"))
    return table if len({cell.status for cell in plan.cells}) > 1 else table.without("status")


def _cells(cells: tuple[CellPlan, ...]) -> Table:
    """What each cell costs, those that take most compute first."""
    rows = [
        [
            cell.label, si(cell.tokens_own), si(cell.n_active), si(cell.n_total), flops(cell.train_flops),
            f"{cell.memory_bytes / 1e6:,.0f} MB", duration(cell.seconds), cell.status,
        ]
        for cell in sorted(cells, key=lambda cell: -cell.train_flops)
    ]  # fmt: skip
    headings = ("cell", "trained", "n_active", "n_total", "FLOPs", "memory", "time", "status")
    table = text_table("", headings, rows, ("cell", "status"))
    return table if len({cell.status for cell in cells}) > 1 else table.without("status")


def _resolved(plan: Plan | TaskPlan) -> Table:
    """The fields that axes, shorthands and formulas give, in the order of the grid."""
    cells: tuple[CellPlan | TaskCellPlan, ...] = plan.cells
    rows = [
        [str(number), cell.label, *(_shown(axis_value(cell.config, name)) for name in plan.fields)]
        for number, cell in enumerate(cells, start=1)
    ]
    return text_table("The cells as resolved", ("", "cell", *plan.fields), rows, ("cell",))


def _shown(value: object) -> str:
    return "by rule" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def grids_page(grids: Mapping[str, Grid]) -> Page:
    """The grids that ship, with the question of each, which is its first line."""
    rows = [[name, str(len(grid.cells)), grid.source.splitlines()[0].lstrip("# ")] for name, grid in grids.items()]
    table = text_table("", ("grid", "cells", "question"), rows, ("grid", "question"))
    return Page(f"{plural(len(grids), 'grid')} that come with the package", tables=(table,))


def suggestion_page(suggestion: Mapping[str, Any]) -> Page:
    """The cells that are proposed, and what they take off the expected regret."""
    cells = suggestion["cells"]
    answer = f"{plural(len(cells), 'cell')}, {flops(suggestion['train_flops'])} FLOPs"
    if suggestion["regret_before"] is not None:
        answer += f": expected regret {suggestion['regret_before']:.2%} now, {suggestion['regret_after']:.2%} after"
    rows = [
        [str(cell["n_experts"]), str(cell["d_model"]), si(cell["tokens"]), str(cell["seed"]), cell["reason"]]
        for cell in cells
    ]
    method = f"; method: {suggestion['method']}" if suggestion["regret_before"] is not None else ""
    if suggestion["unsettled"] is not None:
        method += f"; whether the E chosen can answer stays open after {suggestion['unsettled']:.0%} of the outcomes"
    reasons = "; ".join(suggestion["undecided_because"])
    return Page(
        answer,
        why=(f"Not decided: {reasons}.",) if reasons else ("The answer is decided already.",),
        tables=(text_table("", ("E", "d_model", "tokens", "seed", "reason"), rows, ("reason",)),),
        notes=(
            f"they take {suggestion['share_of_study']:.1%} of what the study cost, of at most "
            f"{flops(suggestion['budget'])} FLOPs ({suggestion['budget_because']}); chosen of "
            f"{plural(suggestion['n_candidates'], 'candidate')}{method}",
            f"written to {suggestion['grid']}, which `scaling sweep run` takes",
        ),
    )
