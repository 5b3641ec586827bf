"""`scaling rates`: how fast a metric falls along an axis, by arms, and the best value of a setting along it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver, save_figure

if TYPE_CHECKING:
    from analysis.rates.rates import Rates
    from scaling.cli.show.page import Page


class AverageName(enum.StrEnum):
    """The average over replicates."""

    geometric = "geometric"
    arithmetic = "arithmetic"
    median = "median"


def rates(
    study: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="A study folder, or a table with one row a replicate."),
    ],
    metric: Annotated[str, typer.Option(metavar="NAME", help="The metric, such as squared_error.")],
    axis: Annotated[
        str, typer.Option(metavar="EXPR", help="A column, or arithmetic on columns: samples, 'log(samples)/samples'.")
    ],
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column that makes arms; may be given again. Default: what varies."),
    ] = None,
    optimum_over: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The slope of this setting's best value, such as n_experts, instead."),
    ] = None,
    average: Annotated[AverageName, typer.Option(help="Over replicates.")] = AverageName.geometric,
    window: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="The levels of the stated slope, such as 'samples >= 1e4'. Default: all."),
    ] = None,
    least_levels: Annotated[
        int, typer.Option(metavar="N", min=2, max=1000, help="The fewest levels of the other windows.")
    ] = 4,
    theory: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="The rate to compare with: -0.5, or an expression, '-2*(order+1)'."),
    ] = None,
    where: options.Where = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", min=0, max=MOST_RESAMPLES, help="Resamples of the replicates; 0: no intervals.")
    ] = 2_000,
    seed: options.Seed = 0,
    figure: options.Figure = None,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Regress the logarithm of a metric on that of an axis, for each arm of a study, with intervals.

    The slope depends on the levels where a model is over-fitted: the range over other windows stands beside it. A study
    keeps the answers of `--out STUDY/rates/NAME.json`, which `scaling report STUDY` shows.
    """
    from analysis.rates.face import rates as estimated

    found = estimated(
        study,
        metric=metric,
        axis=axis,
        by=by,
        optimum_over=optimum_over,
        average=average.value,
        window=window,
        least_levels=least_levels,
        theory=theory,
        where=where,
        bootstrap=bootstrap,
        seed=seed,
    )
    if figure is not None:
        save_figure(found.plot(), figure)
    deliver(found.to_json(), _page(found), as_json=as_json, out=out, verbose=verbose)


def _page(found: Rates) -> Page:
    """The slopes by arm; every window and level with --verbose."""
    from dataclasses import replace

    from analysis.rates.tables import local_table, points_table, slopes_table, windows_table
    from scaling.cli.show.page import Page

    table = slopes_table(found)
    return Page(
        found.headline,
        tables=(replace(table, notes=()),),
        notes=(*table.notes, *found.notes),
        warnings=found.warnings,
        details=(points_table(found), local_table(found), windows_table(found)),
        more="levels, local slopes and windows",
    )
