"""`scaling sweep`: run, plan, status, pack and grids."""

from __future__ import annotations

import enum
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import Json, StudyFolder
from scaling.cli.output import print_answer, print_json
from scaling.errors import InputError

GridArgument = Annotated[
    str, typer.Argument(metavar="GRID", help="A grid.yaml, or the name of one that ships (see `sweep grids`).")
]
Out = Annotated[Path | None, typer.Option("--out", help="The study's folder. Default: results/<study>.")]


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

    from scaling.cli.show_sweep import SweepProgress, summary_lines
    from sweeps.execute import run_sweep
    from sweeps.grid import load_grid
    from sweeps.job import Options

    if find_spec("jax") is None:
        raise InputError("training needs JAX: pip install 'moe-scaling[train]'")
    options = Options(
        executor=executor.value,
        address=address,
        max_concurrent=max_concurrent,
        max_hours=max_hours,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
    )
    cells = load_grid(grid)
    with SweepProgress() as progress:
        summary = run_sweep(cells, out or Path("results") / cells.study, options, progress)
    if as_json:
        print_json(asdict(summary))
    else:
        print("\n".join(summary_lines(summary)), file=sys.stderr)


def plan(grid: GridArgument, out: Out = None, as_json: Json = False) -> None:
    """What a grid will cost before it starts: its cells, FLOPs, memory and time; and what its design cannot tell."""
    from scaling.cli.show_sweep import show_plan
    from sweeps.grid import load_grid
    from sweeps.plan import plan
    from sweeps.status import known_parts

    cells = load_grid(grid)
    priced = plan(cells, known_parts(out or Path("results") / cells.study, cells.cells))
    if as_json:
        print_json(priced.to_json())
    else:
        show_plan(priced)


def status(folder: StudyFolder, as_json: Json = False) -> None:
    """What of a study is done, failed, left or owed, and who is at work in it."""
    from scaling.cli.show_sweep import summary_lines
    from sweeps.status import opened, study_status
    from sweeps.store import Store

    grid, run_ids = opened(folder)
    store = Store(folder)
    summary = study_status(store, grid, run_ids, driver=store.driver())
    print_answer(asdict(summary), as_json, "\n".join(summary_lines(summary)))


def pack(
    folder: StudyFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    as_json: Json = False,
) -> None:
    """A study as one file per table, for keeping and shipping; every command of the analysis reads either."""
    from sweeps.store import Store

    written = [str(path) for path in Store(folder).pack(out)]
    print_answer({"written": written}, as_json, "\n".join(written))


def grids(as_json: Json = False) -> None:
    """The grids that ship with the package."""
    from sweeps.grid import load_grid, named_grids

    shipped = {name: load_grid(path) for name, path in named_grids().items()}
    if as_json:
        print_json([{"name": name, "path": str(g.path), "cells": len(g.cells)} for name, g in shipped.items()])
        return
    for name, grid in shipped.items():
        print(f"{name:<16}{len(grid.cells):>4} cells   {grid.source.splitlines()[0].lstrip('# ')}")
