"""`scaling sweep`: run, plan, suggest, status and grids."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sweeps.plan import Plan
    from sweeps.status import StudyStatus


GridArgument = Annotated[
    str, typer.Argument(metavar="GRID", help="A grid.yaml, or the name of one that ships (see `sweep grids`).")
]
Out = Annotated[Path | None, typer.Option("--out", help="The study's folder. Default: results/<study>.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


class ExecutorName(enum.StrEnum):
    """Where cells train."""

    ray = "ray"
    inline = "inline"


def run(
    grid: GridArgument,
    out: Out = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="Ray Tune, or one cell after another in this process.")
    ] = ExecutorName.ray,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster. Default: RAY_ADDRESS, else one of our own.")
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Cells at a time. Default: what fits.")] = None,
    max_hours: Annotated[
        float | None, typer.Option(help="Start no cell after this many hours; exit 0, the rest is left.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train again what is not ok.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first cell that is not ok, with exit 1.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train what a grid misses, then measure latency. Safe to call again: finished cells are kept.

    A failed cell is a row with a status, and the others go on: exit 0 as long as one cell of the grid is ok.
    """
    from importlib.util import find_spec

    from scaling.errors import InputError
    from sweeps import execute, job
    from sweeps.grid import load_grid
    from sweeps.progress import Progress

    if find_spec("jax") is None:
        raise InputError("training needs JAX: pip install 'scaling[train]'")
    options = job.Options(
        executor=executor.value, address=address, max_concurrent=max_concurrent,
        max_hours=max_hours, retry_failed=retry_failed, fail_fast=fail_fast,
    )  # fmt: skip
    cells = load_grid(grid)
    with Progress() as progress:
        summary = execute.run_sweep(cells, out or Path("results") / cells.study, options, progress)
    _say_summary(summary, as_json)


def plan(grid: GridArgument, out: Out = None, as_json: Json = False) -> None:
    """What a grid will cost before it starts: its cells, FLOPs, memory and time; and what its design cannot tell."""
    from sweeps import plan as planning
    from sweeps.grid import load_grid
    from sweeps.status import known_parts

    cells = load_grid(grid)
    priced = planning.plan(cells, known_parts(out or Path("results") / cells.study, cells.cells))
    if as_json:
        typer.echo(json.dumps(priced.to_json()))
    else:
        _show_plan(priced)


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")],
    as_json: Json = False,
) -> None:
    """What of a study is done, failed, left or owed, and who is at work in it."""
    from sweeps.status import opened, study_status
    from sweeps.store import Store

    grid, run_ids = opened(folder)
    store = Store(folder)
    _say_summary(study_status(store, grid, run_ids, driver=store.driver()), as_json, to=sys.stdout)


def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    as_json: Json = False,
) -> None:
    """A study as one file per table, for keeping and shipping; every command of the analysis reads either."""
    from sweeps.store import Store

    written = [str(path) for path in Store(folder).pack(out)]
    typer.echo(json.dumps({"written": written}) if as_json else "\n".join(written))


def grids(as_json: Json = False) -> None:
    """The grids that ship with the package."""
    from sweeps.grid import load_grid, named_grids

    known = {name: load_grid(path) for name, path in named_grids().items()}
    if as_json:
        typer.echo(
            json.dumps(
                [{"name": name, "path": str(grid.path), "cells": len(grid.cells)} for name, grid in known.items()]
            )
        )
        return
    for name, grid in known.items():
        first = grid.source.splitlines()[0].lstrip("# ")
        typer.echo(f"{name:<16}{len(grid.cells):>4} cells   {first}")


def _say_summary(summary: StudyStatus, as_json: bool, to: Any = None) -> None:
    """The state of a study: as JSON on standard output, else as lines (of `sweep run` on standard error)."""
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    stream = to or sys.stderr
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
        lines.append(
            f"  {failure['status']}: {failure['cell']} ({failure['run_id']}): {failure['error'].partition(chr(10))[0]}"
        )
    if failed:
        lines.append("  `scaling sweep run ... --retry-failed` trains them again")
    if summary.driver:
        lines.append(f"  at work: {summary.driver}")
    for line in lines:
        typer.echo(line, file=stream)


def _show_plan(plan: Plan) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from scaling.formatting import si
    from sweeps.progress import duration

    console = Console(width=None if sys.stdout.isatty() else 120)  # a file has room for whole names
    table = Table(title=f"study {plan.study}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("cell", "trunk", "tokens", "trained", "n_active", "n_total", "FLOP", "memory", "time", "status"):
        table.add_column(name, justify="left" if name in ("cell", "status") else "right", no_wrap=name != "cell")
    for cell in plan.cells:
        table.add_row(
            cell.label, str(cell.trunk), si(cell.tokens), si(cell.tokens_own), si(cell.n_active), si(cell.n_total),
            f"{cell.train_flops:.2e}", f"{cell.memory_bytes / 1e6:,.0f} MB", duration(cell.seconds), cell.status,
        )  # fmt: skip
    console.print(table)
    totals = plan.to_json()["totals"]
    duplicates = f" ({plan.duplicates} duplicates united)" if plan.duplicates else ""
    saved = 1 - totals["tokens_trained"] / totals["tokens"]
    console.print(
        f"{totals['cells']} cells{duplicates}, {totals['missing']} to train; {si(totals['tokens'])} tokens and "
        f"{totals['train_flops']:.2e} FLOP as if each trained alone, {si(totals['tokens_trained'])} tokens as branches "
        f"of {totals['trunks']} trunks ({saved:.0%} saved). About {duration(plan.seconds)} of training instead of "
        f"{duration(plan.alone_seconds)}, in {plan.calls} calls, {plan.workers} at a time",
        highlight=False,
    )
    console.print(f"time is {plan.speed.basis}; latency comes on top", highlight=False, markup=False)
    for section, values in plan.defaults.items():
        console.print(
            f"defaults, {section}: " + ", ".join(f"{k}={v}" for k, v in values.items()), highlight=False, markup=False
        )
    for line in plan.lint:
        console.print(f"lint: {line}", highlight=False, markup=False)
