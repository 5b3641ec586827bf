"""The state of a study as a page, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import click

from scaling.cli.options import printable
from scaling.cli.show.page import Page, page_lines
from scaling.formatting import first_line, listed, loss, number, plural, si
from scaling.table import Column, Table
from sweeps.progress import duration
from sweeps.running import DOES, how_far
from sweeps.status import StudyStatus

_TERMINAL_S, _LINES_S = 2.0, 5.0  # between two looks


def status_page(summary: StudyStatus) -> Page:
    """The state of a study: done, failed, pending, running; after a crash, what ran."""
    failed = listed(f"{count} {status}" for status, count in summary.failed.items()) if summary.failed else ""
    notes = []
    if summary.left:
        notes.append(f"{plural(summary.left, 'cell')} left to train")
    if summary.latency_owed:
        notes.append(f"latency still to be measured for {plural(summary.latency_owed, 'cell')}")
    if summary.of_older_grids:
        notes.append(
            f"{plural(len(summary.of_older_grids), 'cell')} of an older grid kept beside them; --json names them"
        )
    if failed:
        notes.append("`scaling sweep run ... --retry-failed` trains the failed cells again")
    if summary.driver:
        notes.append(f"running: {summary.driver}")
    elif summary.interrupted:
        notes.append("nothing runs now; `scaling sweep run` goes on from the last checkpoint of each trunk, if any")
    notes += [
        f"{failure['status']}: {failure['cell']} ({failure['run_id']}): {first_line(failure['error'])}"
        for failure in summary.failures
    ]
    answer = f"{summary.out}: {summary.ok} of {summary.cells} cells ok" + (f", {failed}" if failed else "")
    answer += f", {len(summary.running)} running" if summary.running else ""
    return Page(answer, tables=tuple(_tables(summary)), notes=tuple(notes), warnings=tuple(_warnings(summary)))


def _warnings(summary: StudyStatus) -> list[str]:
    warnings = []
    if silent := [cell for cell in summary.running if cell.silent]:
        names = listed((f"{cell.cell} on {cell.host} (process {cell.pid})" for cell in silent), most=3)
        longest = duration(max(cell.seen_s for cell in silent))
        warnings.append(f"nothing has been heard for {longest} of {names}: stopped, hung or out of reach")
    beating = [cell for cell in summary.interrupted if not (cell.silent or cell.gone or cell.phase == "stopped")]
    if beating and not summary.driver:
        names = listed((f"process {cell.pid} on {cell.host}" for cell in beating), most=3)
        warnings.append(f"the driver is gone, and a worker of it was heard of less than a minute ago: {names}")
    if len(summary.code_versions) > 1:
        versions = listed(f"{version} ({count})" for version, count in summary.code_versions.items())
        warnings.append(f"rows of different code versions: {versions}")
    if summary.unusable:
        reasons = listed(summary.unusable, most=3)
        warnings.append(f"not counted: {reasons}; the next `scaling sweep run` sets them aside and trains these cells")
    return [*warnings, *summary.notes]


def _tables(summary: StudyStatus) -> list[Table]:
    cells = (
        Column("cell", "running", text=True), Column("phase", "", lambda phase: DOES.get(phase, phase), text=True),
        Column("step", "step", si, ""), Column("steps", "of", si), Column("loss", "loss", loss),
        Column("grad_norm", "|g|", lambda norm: number(norm, ".2g")), Column("tokens_per_s", "tokens/s", si),
        Column("left_s", "left", lambda left: "–" if left is None else duration(left)),
        Column("host", "host", text=True), Column("seen_s", "seen", lambda age: f"{duration(age)} ago"),
    )  # fmt: skip
    tables = []
    if summary.running:
        tables.append(Table.of("", cells, summary.running))
    if summary.interrupted:
        was = Column("cell", "when last seen", text=True)
        when = Column("seen", "at", lambda at: time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at)), text=True)
        kept = [column for column in cells[1:] if column.field not in ("left_s", "tokens_per_s", "grad_norm", "seen_s")]
        tables.append(Table.of("", (was, *kept, when), summary.interrupted))
    return tables


def watch(read: Callable[[], StudyStatus]) -> None:
    """Show the state of a study until the user interrupts: a page that is drawn again on a terminal; elsewhere, after
    each change, a line for the study and one for each cell that runs."""
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty():
            _redraw(read, _TERMINAL_S)
        _print_changes(read, _LINES_S)


def _redraw(read: Callable[[], StudyStatus], every_s: float) -> NoReturn:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()

    def page() -> Text:
        now = time.strftime("%H:%M:%S")
        lines = page_lines(status_page(read()), console.width, max(8, console.height - 2))
        return Text("\n".join(map(printable, [*lines, f"{now}, Ctrl-C ends"])), no_wrap=True, overflow="crop")

    with Live(page(), console=console, auto_refresh=False) as shown:
        while True:
            time.sleep(every_s)
            shown.update(page(), refresh=True)


def _print_changes(read: Callable[[], StudyStatus], every_s: float) -> NoReturn:
    before: Sequence[str] = ()
    while True:
        summary = read()
        lines = [status_page(summary).answer, *(how_far(cell) for cell in summary.running)]
        if lines != before:
            stamp = time.strftime("%H:%M:%S")
            click.echo("\n".join(f"{stamp} {printable(line)}" for line in lines))
            before = lines
        time.sleep(every_s)
