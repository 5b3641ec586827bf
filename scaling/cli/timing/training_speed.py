"""`scaling training-speed`: the law of measured training speed, with its errors."""

from __future__ import annotations

from typing import Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver

_WORST = 5


def training_speed(
    runs: Annotated[
        str, typer.Argument(metavar="RUNS", help="A study folder, or a table of runs with a measured speed.")
    ],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The device that trained. Default: the one that the rows name.")
    ] = None,
    resamples: Annotated[
        int,
        typer.Option("--bootstrap", metavar="N", min=0, max=MOST_RESAMPLES, help="Bootstrap samples of the rows."),
    ] = 400,
    seed: options.Seed = 0,
    maps: options.Maps = None,
    where: options.Where = None,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Fit to measured training speeds what a training token costs: a sum of terms, with draws.

    A row says its model (n_active, n_experts, and n_total, top_k where routed; n_layers, d_model, batch_tokens,
    seq_len) and its speed: tokens_per_s, step_time_ms, train_s, gpu_hours or mfu (--map renames). Prints how well
    widths and E that were left out are predicted, and the share of the peak by E; --verbose adds the formula, the
    coefficients and the rows with the largest errors. `scaling recommend --training-speed FILE` prices training by it.
    """
    import numpy as np

    from analysis.training_speed.law import fit_training_speed, modelled
    from analysis.training_speed.table import read_training
    from scaling.cli.show.page import of_reading
    from scaling.cli.show.progress import progress
    from scaling.cli.show.training_speed import PLACE, training_speed_page

    table = read_training(runs, options.pairs(maps, "--map"), where, device)
    with progress("resampling") as report:
        fitted = fit_training_speed(table, np.random.default_rng(seed), resamples, progress=report)
    rows = modelled(table, fitted.law)
    worst = rows.iloc[rows["error"].abs().argsort()[::-1][:_WORST]]
    shown = [*PLACE, "seconds", "modelled_seconds", "error"]
    document = fitted.document() | {
        "worst": worst[shown].astype(object).where(worst[shown].notna(), None).to_dict("records")
    }
    page = training_speed_page(fitted, rows, worst, of_reading(table.dropped, table.notes))
    deliver(document, page, as_json=as_json, out=out, verbose=verbose)
