"""`scaling sweep`: run, plan, status, pack and grids."""

from __future__ import annotations

import enum
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import Json, StudyFolder, Verbose, hours
from scaling.cli.output import deliver, print_json
from scaling.distribution import require_installed
from scaling.errors import InputError

GridArgument = Annotated[
    str,
    typer.Argument(
        metavar="GRID", help="A grid.yaml, or the name of one that comes with the package (see `sweep grids`)."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="The study's folder. Default: results/<study>.")]


class ExecutorName(enum.StrEnum):
    """Where cells train."""

    ray = "ray"
    inline = "inline"


class LoggerName(enum.StrEnum):
    """Who is told of cells while they train."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"


def run(
    grid: GridArgument,
    out: Out = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="Ray Tune, or one cell after another in this process.")
    ] = ExecutorName.ray,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster. Default: RAY_ADDRESS, else one of our own.")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Cells at a time. Default: what fits.")
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(
            metavar="H", parser=hours, help="Start no cell after this many hours; exit 0 with the rest pending."
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train again the cells that are not ok.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first cell that is not ok, with exit 1.")
    ] = False,
    log: Annotated[
        list[LoggerName] | None,
        typer.Option(
            "--log", help="Show curves and results there, too; give it again for another. See docs/watching.md."
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option(metavar="S", min=0, help="Seconds for checkpoints after SIGTERM or SIGHUP.")
    ] = 20.0,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Train the missing cells of a grid, then measure latency. Safe to call again: finished cells are kept.

    A failed cell is a row with a status, and the others continue: exit 0 as long as one cell of the grid is ok.
    """
    from scaling.cli.show.status import status_page
    from scaling.cli.show.sweep import SweepProgress
    from sweeps.execute import run_sweep
    from sweeps.grid import load_grid
    from sweeps.job import Options

    require_installed("training", "jax")
    options = Options(
        executor=executor.value,
        address=address,
        max_concurrent=max_concurrent,
        max_hours=max_hours,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        log=tuple(name.value for name in log or ()),
        grace_s=grace,
    )
    cells = load_grid(grid)
    with SweepProgress() as progress:
        summary = run_sweep(cells, out or Path("results") / cells.study, options, progress)
    deliver(asdict(summary), status_page(summary), as_json=as_json, verbose=verbose)


def plan(
    grid: GridArgument,
    out: Out = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the grid's GPUs are, for its time. Default: h100.")
    ] = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Price a grid before it starts: cells, FLOPs, memory and time, and what its design cannot identify."""
    from scaling.tasks import LANGUAGE_MODEL
    from sweeps.grid import load_grid
    from sweeps.status import known_parts

    cells = load_grid(grid)
    folder = out or Path("results") / cells.study
    parts = known_parts(folder, cells.cells)
    if cells.task != LANGUAGE_MODEL:
        from scaling.cli.show.sweep import task_plan_page
        from sweeps.plan.task import task_plan

        if device is not None:
            raise InputError(f"`device` {device} prices language models, and the task of this grid is {cells.task}")
        of_task = task_plan(cells, parts, folder.parent)
        deliver(of_task.to_json(), task_plan_page(of_task), as_json=as_json, verbose=verbose)
        return
    from scaling.cli.show.sweep import plan_page
    from sweeps.plan.language_model import plan

    priced = plan(cells, parts, device)
    deliver(priced.to_json(), plan_page(priced), as_json=as_json, verbose=verbose)


def status(
    folder: StudyFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every few seconds, until Ctrl-C.")] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Study progress: done, failed, pending; step, loss, speed and time left of each running cell."""
    from scaling.cli.show.status import status_page
    from sweeps.status import StudyWatch

    if watch and as_json:
        raise InputError("`watch` shows a page again and again, and --json prints one document: give one of them")
    study = StudyWatch(folder)
    if watch:
        from scaling.cli.show.status import watch as show_again

        show_again(study.look)
        return
    summary = study.look()
    deliver(asdict(summary), status_page(summary), as_json=as_json, verbose=verbose)


def pack(
    folder: StudyFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    as_json: Json = False,
) -> None:
    """Write a study as one file per table, to archive or ship; every command takes it as it takes the study."""
    from scaling.cli.show.page import Page
    from scaling.formatting import plural
    from sweeps.store import Store

    written = [str(path) for path in Store(folder).pack(out)]
    page = Page(f"{plural(len(written), 'table')} in {out}", notes=tuple(written))
    deliver({"written": written}, page, as_json=as_json)


def grids(as_json: Json = False) -> None:
    """List the grids that come with the package."""
    from scaling.cli.show.page import print_page
    from scaling.cli.show.sweep import grids_page
    from sweeps.grid import load_grid, named_grids

    shipped = {name: load_grid(path) for name, path in named_grids().items()}
    if as_json:
        print_json([{"name": name, "path": str(g.path), "cells": len(g.cells)} for name, g in shipped.items()])
        return
    print_page(grids_page(shipped), verbose=True)  # a list, of which nothing may be missing
