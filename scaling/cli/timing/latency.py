"""`scaling latency`: the latency law of measured times, with its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver, save_figure

if TYPE_CHECKING:
    from analysis.latency.fitted_engine import EngineTable

_WORST = 5


def latency(
    table: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|TABLE", help="A study folder, a file of `scaling bench --out`, or an engine's times."
        ),
    ],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The measured device. Default: the one that the rows name.")
    ] = None,
    configs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of an engine's times: the config.json of each model, as NAME.json."),
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
    out; --verbose adds the formula and the rows with the largest errors. A table of whole engines (model, device,
    concurrency, prompt and output tokens, devices, time per token) gives the speed of an engine, which starts from the
    published one.
    """
    import numpy as np

    from analysis.latency.fitted_engine import read_engine_table
    from analysis.latency.law import fit_latency, latency_document, modelled
    from analysis.latency.table import device_of, read_latency
    from scaling.cli.show.latency import PLACE, latency_page
    from scaling.cli.show.page import of_reading
    from scaling.cli.show.progress import progress
    from scaling.files import write_json

    renamed = options.pairs(maps, "--map")
    if (of_engine := read_engine_table(table, renamed, where)) is not None:
        _engine(of_engine, configs, device, out, figure, verbose=verbose, as_json=as_json)
        return
    measured = read_latency(table, renamed, where)
    with progress("resampling") as report:
        rng = np.random.default_rng(seed)
        fitted = fit_latency(measured, device_of(measured, device), rng, resamples, progress=report)
    law = replace(fitted, seed=seed)
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


def _engine(
    table: EngineTable,
    configs: Path | None,
    device: str | None,
    out: Path | None,
    figure: Path | None,
    *,
    verbose: bool,
    as_json: bool,
) -> None:
    """The speed of an engine from a table of end-to-end measurements."""
    from analysis.latency.fitted_engine import fit_engine_table
    from scaling.cli.show.engine import engine_page
    from scaling.files import write_json

    fitted = fit_engine_table(table, configs, device)
    rows = fitted.modelled()
    worst = rows.iloc[rows["error"].abs().argsort()[::-1][:_WORST]]
    document = fitted.document()
    if out is not None:
        write_json(out, document)
    if figure is not None:
        from analysis.figures.sheets import engine_sheet

        save_figure(engine_sheet(rows), figure)
    document |= {"worst": worst.to_dict("records")}
    deliver(document, engine_page(fitted, worst), as_json=as_json, verbose=verbose)
