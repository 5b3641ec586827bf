"""`scaling isoflop`: valleys of equal compute, the frontier through their minima, and the envelope beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.tables.reading_log import CheckedTable


def isoflop(
    runs: options.Runs,
    maps: options.Maps = None,
    where: options.Where = None,
    drop_highest_loss: options.DropHighest = 0,
    n_column: Annotated[str, typer.Option(metavar="COLUMN", help="The column that is N.")] = "n_active",
    tolerance: Annotated[
        float, typer.Option(parser=options.quantity("a share of 1"), help="Half-width of a budget, as a share of it.")
    ] = 0.05,
    groups: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, max=10_000, help="Make this many budgets of the runs instead, however wide."),
    ] = None,
    budget_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The requested budget of each run. Default: `budget` where there is one."),
    ] = None,
    untrimmed: Annotated[
        bool, typer.Option("--untrimmed", help="Keep runs beyond what a parabola carries; the valley is flagged.")
    ] = False,
    optima: Annotated[
        bool, typer.Option("--optima", help="RUNS lists compute-optimal models instead: train_flops and N a row.")
    ] = False,
    log_loss: Annotated[bool, typer.Option("--log-loss", help="Parabolas of ln loss instead of the loss.")] = False,
    keep_flagged: Annotated[
        bool, typer.Option("--keep-flagged", help="Use flagged valleys in the regression too.")
    ] = False,
    budget: options.Budget = None,
    bias: Annotated[
        str | None,
        typer.Option(
            metavar="FIT",
            help="How far off the method is on this fit's surface, at --budget or the largest; or published:NAME.",
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Envelope of the study's training curves, not of its cells.")
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--bootstrap", metavar="N", min=0, max=MOST_RESAMPLES, help="Resamples for the envelope's interval."
        ),
    ] = 200,
    seed: options.Seed = 0,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Fit a parabola of loss in ln N at each compute budget, and power laws of compute through the minima.

    The minima give N*, D* and the loss of optimal models; --budget takes all three to a budget, with intervals.

    This is approach 2 of arXiv 2203.15556, with approach 1 (the envelope) beside it; E by E. Flagged valleys are
    listed and left out. A fit of the whole surface (`scaling fit`) uses the runs better. Exits with 1 where no E has
    three usable valleys.
    """
    from analysis.fitting.fit_file import load_fit
    from analysis.isoflop.answer import answer_of_optima, isoflop_answer
    from analysis.isoflop.optima_table import read_optima
    from analysis.isoflop.valleys import valleys
    from analysis.tables.runs import read_runs
    from scaling.cli.show.isoflop import isoflop_page
    from scaling.cli.show.page import of_reading

    mapping = options.pairs(maps, "--map")
    table: CheckedTable
    if optima:
        if where is not None or drop_highest_loss or bias is not None or curves:
            raise InputError(
                "--optima reads optimal models, not runs: leave out --where, --drop-highest-loss, --bias and --curves"
            )
        reported, table = read_optima(runs, mapping, n_column=n_column)
        answer = answer_of_optima(reported, table.source, n_column=n_column, train_flops=budget)
    else:
        surface = None if bias is None else load_fit(bias)
        table = read_runs(runs, mapping, where, drop_highest_loss=drop_highest_loss)
        found = valleys(
            table,
            n_column=n_column,
            tolerance=tolerance,
            n_budgets=groups,
            budget_column=budget_column,
            log_loss=log_loss,
            trim=not untrimmed,
        )
        answer = isoflop_answer(
            found,
            train_flops=budget,
            surface=surface,
            include_flagged=keep_flagged,
            curves_of=Path(runs) if curves else None,
            draws=resamples,
            seed=seed,
        )
    page = isoflop_page(answer, of_reading(table.dropped, table.notes))
    deliver(answer.to_json(), page, as_json=as_json, out=out, verbose=verbose)
    if not answer.frontiers:
        raise WorkError("no frontier: fewer than three usable minima; the flags say what to change")
