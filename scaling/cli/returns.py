"""`scaling returns`: arms of a study compared by their returns."""

from __future__ import annotations

from typing import Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver


def returns(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study folder, or a table with one row a run.")],
    baseline: Annotated[str, typer.Option(metavar="ARM", help="The arm to compare with, such as 'dense 1'.")],
    metric: Annotated[str, typer.Option(metavar="NAME", help="The score of a run.")] = "episode_return",
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column that makes arms; may be given again. Default: arm, n_experts."),
    ] = None,
    game: Annotated[str, typer.Option(metavar="COLUMN", help="The column that names a run's game.")] = "game",
    reference: Annotated[
        str | None, typer.Option(metavar="ARM", help="The arm whose mean score is 1. Default: the baseline.")
    ] = None,
    random: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column with the score of random actions, which is 0.")
    ] = "random_return",
    where: options.Where = None,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", min=100, max=MOST_RESAMPLES, help="Resamples of the runs within games.")
    ] = 50_000,
    seed: options.Seed = 0,
    out: options.Document = None,
    as_json: options.Json = False,
) -> None:
    """Compare the arms of a study by their returns, with 95 % intervals over runs.

    Interquartile means of scores that are normalised in each game, differences to the baseline, and the probability
    that a run scores more than one of the baseline (arXiv 2108.13264).
    """
    from dataclasses import replace

    from analysis.returns.face import returns as compared
    from scaling.cli.show.page import Page

    found = compared(
        study,
        baseline=baseline,
        metric=metric,
        by=by or ("arm", "n_experts"),
        game=game,
        reference=reference,
        random=random,
        where=where,
        bootstrap=bootstrap,
        seed=seed,
    )
    table = found.summary()
    page = Page(found.headline, tables=(replace(table, notes=()),), notes=found.notes)
    deliver(found.to_json(), page, as_json=as_json, out=out)
