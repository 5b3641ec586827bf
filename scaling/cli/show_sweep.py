"""Progress, plan and state of a study for a person at a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scaling.cli.console import Terminal
from scaling.cli.output import with_options
from scaling.formatting import first_line, si
from sweeps.plan import Plan
from sweeps.progress import Progress, duration
from sweeps.status import StudyStatus


class SweepProgress(Progress):
    """Progress whose messages name the options of the command."""

    def note(self, text: str) -> None:
        """A message that stays."""
        super().note(with_options(text))


def summary_lines(summary: StudyStatus) -> list[str]:
    """The state of a study, a fact a line."""
    failed = ", ".join(f"{count} {status}" for status, count in summary.failed.items())
    lines = [f"{summary.out}: {summary.ok} of {summary.cells} cells ok" + (f", {failed}" if failed else "")]
    if summary.left:
        lines.append(f"  {summary.left} cells left to train")
    if summary.latency_owed:
        lines.append(f"  latency owed for {summary.latency_owed} cells")
    if summary.of_older_grids:
        lines.append(f"  {len(summary.of_older_grids)} cells of an older grid are kept beside them (--json names them)")
    if len(summary.code_versions) > 1:
        versions = ", ".join(f"{version} ({count})" for version, count in summary.code_versions.items())
        lines.append(f"  warning: rows of different code versions: {versions}")
    for failure in summary.failures:
        lines.append(f"  {failure['status']}: {failure['cell']} ({failure['run_id']}): {first_line(failure['error'])}")
    if failed:
        lines.append("  `scaling sweep run ... --retry-failed` trains them again")
    if summary.driver:
        lines.append(f"  at work: {summary.driver}")
    return lines


def show_plan(plan: Plan) -> None:
    """The cells with what each costs, totals, defaults and the lint."""
    terminal = Terminal(width_in_file=120, soft_wrap=False)  # a file has room for whole names
    table = Table(title=f"study {plan.study}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("cell", "trunk", "tokens", "trained", "n_active", "n_total", "FLOP", "memory", "time", "status"):
        table.add_column(name, justify="left" if name in ("cell", "status") else "right", no_wrap=name != "cell")
    for cell in plan.cells:
        counts = (si(count) for count in (cell.tokens, cell.tokens_own, cell.n_active, cell.n_total))
        costs = (f"{cell.train_flops:.2e}", f"{cell.memory_bytes / 1e6:,.0f} MB", duration(cell.seconds))
        table.add_row(cell.label, str(cell.trunk), *counts, *costs, cell.status)
    terminal.print(table)
    totals = plan.to_json()["totals"]
    duplicates = f" ({plan.duplicates} duplicates united)" if plan.duplicates else ""
    saved = 1 - totals["tokens_trained"] / totals["tokens"]
    terminal.print(
        f"{totals['cells']} cells{duplicates}, {totals['missing']} to train; {si(totals['tokens'])} tokens and "
        f"{totals['train_flops']:.2e} FLOP as if each trained alone, {si(totals['tokens_trained'])} tokens as branches "
        f"of {totals['trunks']} trunks ({saved:.0%} saved). About {duration(plan.seconds)} of training instead of "
        f"{duration(plan.alone_seconds)}, in {plan.calls} calls, {plan.workers} at a time"
    )
    terminal.print(f"time is {plan.speed.basis}; latency comes on top")
    for section, values in plan.defaults.items():
        terminal.print(f"defaults, {section}: " + ", ".join(f"{name}={value}" for name, value in values.items()))
    for line in plan.lint:
        terminal.print(f"lint: {line}")
