"""`scaling latency`: the latency law of measured times, with its errors."""

from __future__ import annotations

from typing import Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver, save_figure

_WORST = 5


def latency(
    table: Annotated[
        str, typer.Argument(metavar="STUDY|TABLE", help="A study folder, or a file of `scaling bench --out`.")
    ],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The measured device. Default: the one that the rows name.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(metavar="N", min=200, max=MOST_RESAMPLES, help="Bootstrap samples of the shapes.")
    ] = 400,
    seed: options.Seed = 0,
    maps: options.Maps = None,
    where: options.Where = None,
    out: options.Document = None,
    figure: options.Figure = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Fit to measured prefill and decode times what a device reaches of its data sheet, and its fixed costs.

    Prints the coefficients with 95 % intervals and the errors on levels of batch, context, width and E that were left
    out; --verbose adds the formula and the rows with the largest errors.
    """
    import numpy as np

    from analysis.latency.law import fit_latency, latency_document, modelled
    from analysis.latency.table import device_of, read_latency
    from scaling.cli.show.latency import PLACE, latency_page
    from scaling.cli.show.page import of_reading
    from scaling.cli.show.progress import progress
    from scaling.files import write_json

    measured = read_latency(table, options.pairs(maps, "--map"), where)
    with progress("resampling") as report:
        law = fit_latency(
            measured, device_of(measured, device), np.random.default_rng(seed), resamples, progress=report
        )
    rows = modelled(measured, law)
    worst = rows.iloc[rows["error"].abs().argsort()[::-1][:_WORST]]
    document = latency_document(law)
    if out is not None:
        write_json(out, document)
    if figure is not None:
        from analysis.figures.sheets import latency_sheet

        save_figure(latency_sheet(rows), figure)
    document |= {"worst": worst[[*PLACE, "time_ms", "modelled_ms", "error"]].to_dict("records")}
    page = latency_page(law, worst, of_reading(measured.dropped, ()))
    deliver(document, page, as_json=as_json, verbose=verbose)
