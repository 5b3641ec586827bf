"""`scaling validate`: whether a law that was fitted to runs can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.bounds import MOST_RESAMPLES
from scaling.cli import options
from scaling.cli.output import deliver, save_figure
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit


def validate(
    runs: options.Runs,
    law: Annotated[
        str | None,
        typer.Option(help="One law alone; `scaling laws` lists them. Default: the mixture that `scaling fit` fits."),
    ] = None,
    laws: Annotated[
        str | None, typer.Option(metavar="LIST", help="Laws to compare it with, e.g. hoffmann,yun. Default: all.")
    ] = None,
    budget: options.Budget = None,
    resamples: Annotated[
        int,
        typer.Option("--bootstrap", metavar="N", min=2, max=MOST_RESAMPLES, help="Resamples behind every interval."),
    ] = 200,
    objective: options.ObjectiveOption = options.ObjectiveName.huber,
    residual: options.ResidualOption = options.ResidualName.log,
    delta: options.Delta = 1e-3,
    pin: options.Pins = None,
    keep_trunks: Annotated[
        bool, typer.Option("--keep-trunks", help="Roll-out also predicts trunks that were fitted below the cut.")
    ] = False,
    seed: options.Seed = 0,
    where: options.Where = None,
    maps: options.Maps = None,
    drop_highest_loss: options.DropHighest = 0,
    out: options.Document = None,
    figure: options.Figure = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Judge a fit by runs it has not seen: larger runs, expert counts held out, other laws, influential runs.

    Judged is what `scaling fit` fits, a mixture of laws, or one --law. A mixture is fitted anew to every part of the
    runs, weights and all, and compared with its members and the other laws.

    Without --budget, advice is compared at 10 times the compute of the largest run. Exits with 1 where the runs do not
    determine the parameters of the law.
    """
    import numpy as np

    from analysis.fitting.bootstrap import bootstrap
    from analysis.fitting.fit import fit
    from analysis.fitting.objective import Objective
    from analysis.fitting.roll_out import refusal
    from analysis.laws import LAWS, law_named
    from analysis.mixture.candidates import family_of_laws
    from analysis.mixture.fitted_mixture import fit_mixture
    from analysis.tables.runs import read_runs
    from analysis.validation.checks import validate_fit
    from scaling.cli.show.page import of_reading
    from scaling.cli.show.progress import progress
    from scaling.cli.show.validation import validation_page
    from scaling.progress import part

    judged, pins = None if law is None else law_named(law), options.number_pairs(pin, "--pin")
    if judged is None and pins:
        raise InputError("`pin` holds parameters of one law: name it with `law`")
    others = list(LAWS.values()) if laws is None else [law_named(name.strip()) for name in laws.split(",")]
    table = read_runs(runs, options.pairs(maps, "--map"), where, judged, drop_highest_loss)
    table = table if judged is not None else table.for_law(family_of_laws(table))
    rng, penalty = np.random.default_rng(seed), Objective(objective.value, residual.value, delta)
    with progress("validating") as report:
        watched = part(report, 0.0, 0.1)
        if judged is None:
            fitted: Fit = fit_mixture(table, objective=penalty, resamples=resamples, seed=seed, progress=watched)
        else:
            fitted = fit(table, judged, objective=penalty, pin=pins, seed=seed)
        if not fitted.params:
            raise WorkError(f"law {fitted.law} cannot be fitted: {refusal(fitted)}")
        if judged is not None:
            fitted = bootstrap(fitted, table, resamples, rng, progress=watched)
            others = [judged, *(other for other in others if other.name != law)]
        checks = validate_fit(
            fitted,
            table,
            others,
            rng=rng,
            resamples=resamples,
            keep_trunks=keep_trunks,
            objective=penalty,
            pin=pins,
            train_flops=budget,
            progress=part(report, 0.1, 1.0),
        )
    if figure is not None:
        from analysis.figures.sheets import validation_sheet

        save_figure(validation_sheet(fitted, table, **checks.frames()), figure)
    page = validation_page(checks, of_reading(table.dropped, table.notes))
    deliver(checks.to_json(), page, as_json=as_json, out=out, verbose=verbose)
