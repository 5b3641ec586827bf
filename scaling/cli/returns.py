"""`scaling returns`: arms of a study compared by their returns, or by another metric that is better when higher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver, save_figure

if TYPE_CHECKING:
    from analysis.returns.comparison import ReturnsComparison
    from scaling.cli.show.page import Page


def returns(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study folder, or a table with one row a run.")],
    baseline: Annotated[str, typer.Option(metavar="ARM", help="The arm to compare with, such as 'dense 1'.")],
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The score of a run; 'return_*': one for each game. Default: the task's primary metric.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column that makes arms; may be given again. Default: what varies."),
    ] = None,
    strata: Annotated[
        str | None,
        typer.Option("--strata", "--game", metavar="COLUMN", help="The column of a run's game. Default: game, if any."),
    ] = None,
    normalise: Annotated[
        bool | None,
        typer.Option(help="Random actions are 0 and the reference is 1 in each game. Default: where that is known."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="ARM", help="The arm whose mean score is 1. Default: the baseline.")
    ] = None,
    random: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The score of random actions. Default: random_return.")
    ] = None,
    replicates: Annotated[
        bool, typer.Option("--replicates", help="A run's replicates were trained apart: each counts as a run.")
    ] = False,
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A pair to compare too, 'experts: soft 4 - soft-one-wide 4 within .1'; may be given again. The first "
            "arm may be 'best of ARM, ARM'.",
        ),
    ] = None,
    where: options.Where = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", min=100, max=MOST_RESAMPLES, help="Resamples of the runs within games.")
    ] = 50_000,
    seed: options.Seed = 0,
    figure: options.Figure = None,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Compare the arms of a study by a metric that is better when higher, with 95 % intervals over runs.

    Interquartile means of scores that are normalised in each game, differences to the baseline, and the probability
    that a run scores more than one of the baseline (arXiv 2108.13264). A study keeps the answers of `--out
    STUDY/returns/NAME.json`, which `scaling report STUDY` shows.
    """
    from analysis.returns.face import returns as compared

    found = compared(
        study,
        baseline=baseline,
        metric=metric,
        by=by,
        strata=strata,
        normalise=normalise,
        reference=reference,
        random=random,
        replicates=replicates,
        contrasts=contrast or (),
        where=where,
        bootstrap=bootstrap,
        seed=seed,
    )
    if figure is not None:
        save_figure(found.plot(), figure)
    deliver(found.to_json(), _page(found), as_json=as_json, out=out, verbose=verbose)


def _page(found: ReturnsComparison) -> Page:
    """The pairs that were asked for, the arms, and the scores by game; in tables that a terminal has room for."""
    from dataclasses import replace

    from analysis.returns.tables import arms_table, by_game_table, contrasts_table, costs_table, games_table
    from scaling.cli.show.page import Page

    arms, pairs = arms_table(found), contrasts_table(found)
    notes, arms = arms.notes, replace(arms, notes=())
    shown, details = (
        [arms.without("gap", "improvement"), games_table(found)],
        [arms.without("runs", "iqm", "difference")],
    )
    if found.contrasts:
        shown.insert(0, pairs.without("pair", "improvement"))
        details.append(pairs.without("difference", "verdict"))
    if (by_game := by_game_table(found)).rows:
        details.append(by_game)
    if any(arm.measures for arm in found.arms):
        details.append(costs_table(found))
    return Page(
        found.headline,
        why=(found.told_apart,) if found.contrasts else (),
        tables=tuple(shown),
        notes=(*notes, *found.notes),
        warnings=found.warnings,
        details=tuple(details),
        more="P(better), gaps, games alone and costs",
    )
