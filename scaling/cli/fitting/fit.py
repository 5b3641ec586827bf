"""`scaling laws`, `fit` and `predict`: what laws there are, and what runs say of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.bounds import MOST_EXPERTS, MOST_RESAMPLES, MOST_STARTS
from scaling.cli import options
from scaling.cli.options import number
from scaling.cli.output import deliver, print_json, save_figure
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.laws import Law
    from analysis.tables.runs import RunTable


def laws(verbose: options.Verbose = False, as_json: options.Json = False) -> None:
    """List every law with its formula, and the published fits; --verbose adds parameters, sources and domains."""
    from analysis.fitting.published import PUBLISHED
    from analysis.laws import LAWS

    if as_json:
        from analysis.fitting.published_draws import with_draws

        published = {
            f"published:{name}": {
                "law": fitted.law,
                "params": fitted.params,
                "intervals": fitted.intervals,
                "rmse_log": fitted.rmse_log,
                "n_runs": fitted.n_runs,
                "domain": fitted.domain,
                "source": fitted.source,
                "warnings": fitted.warnings,
            }
            for name, fitted in ((name, with_draws(name)) for name in PUBLISHED)
        }
        print_json({"laws": {law.name: _law_document(law) for law in LAWS.values()}, "published": published})
        return
    from scaling.cli.show.laws import laws_page, laws_text
    from scaling.cli.show.page import print_page

    if verbose:
        print(laws_text())
    else:
        print_page(laws_page())


def _law_document(law: Law) -> dict[str, Any]:
    return {
        "formula": law.formula,
        "n_column": law.n_column,
        "columns": law.columns,
        "source": law.source,
        "domain": law.domain,
        "target": law.target,
        "parameters": {p.name: {"meaning": p.meaning, "unit": p.unit} for p in law.parameters},
    }


def fit(
    runs: options.Runs,
    law: Annotated[
        str | None,
        typer.Option(help="One law alone; `scaling laws` lists them. Default: a mixture of those the runs can bear."),
    ] = None,
    objective: options.ObjectiveOption = options.ObjectiveName.huber,
    residual: options.ResidualOption = options.ResidualName.log,
    delta: options.Delta = 1e-3,
    resamples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            metavar="N",
            min=0,
            max=MOST_RESAMPLES,
            help="Resamples for the intervals; 0 means none. Default 400, of more than 50,000 rows none.",
        ),
    ] = None,
    seed: options.Seed = 0,
    starts: Annotated[int, typer.Option(min=1, max=MOST_STARTS, help="Starts of the global search.")] = 64,
    pin: options.Pins = None,
    auto_pin: Annotated[bool, typer.Option(help="Pin what the runs cannot identify to published values.")] = True,
    where: options.Where = None,
    maps: options.Maps = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="Fit this column instead of loss_val; a task's budget stands for tokens."),
    ] = None,
    drop_highest_loss: options.DropHighest = 0,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Profile interval of a parameter; all of them: 'all'.")
    ] = None,
    budget: options.Budget = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FIT",
            help="Recalibrate this fit, a file or published:NAME, by a few runs: its level and slopes, shrunk to it.",
        ),
    ] = None,
    figure: options.Figure = None,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Fit a mixture of laws to runs, or one law, with bootstrap intervals by trunk.

    The laws of the mixture are weighed by how well each predicts larger runs from smaller ones, and its intervals are
    meant to hold beyond the largest run; those of one --law hold if that law does. Each is the global minimum of a
    robust objective.

    With few runs, --from starts from a published law instead: the level of the loss is the runs', exponents and shares
    of terms stay near the published ones as far as the runs do not tell.

    --budget adds the optimal N, D, E and loss there; --figure draws the law, residuals, profiles and draws; --out keeps
    the draws too. To judge the fit, run `scaling validate`; docs/choosing-a-law.md says which law to choose. Exits with
    1 where the runs do not determine the parameters, and says why.
    """
    import numpy as np

    from analysis.decision.answer import answer
    from analysis.decision.question import Question
    from analysis.fitting.bootstrap import bootstrap, usual_count
    from analysis.fitting.fit import fit
    from analysis.fitting.fit_file import load_fit
    from analysis.fitting.fit_options import FitOptions
    from analysis.fitting.objective import Objective
    from analysis.fitting.recalibration import DRAWS, recalibrated
    from analysis.laws import law_named
    from analysis.mixture.alone import with_discrepancy
    from analysis.mixture.candidates import family_of_laws
    from analysis.mixture.fitted_mixture import fit_mixture
    from analysis.tables.runs import read_runs
    from analysis.tables.tasks import with_target
    from scaling.cli.show.fit import fit_page
    from scaling.cli.show.page import of_reading
    from scaling.cli.show.progress import progress
    from scaling.files import write_json
    from scaling.values import FIT, plain

    start = None if start_from is None else load_fit(start_from)
    definition = law_named(law) if law is not None else None if start is None else start.definition
    pins, of_one_law = options.number_pairs(pin, "--pin"), "of one law: name it with `law`"
    if definition is None and (pins or profile):
        raise InputError(f"`pin` holds parameters {of_one_law}" if pins else f"`profile` is {of_one_law}")
    if start is not None and (law is not None or pins or profile):
        contradicting = "law" if law is not None else "pin" if pins else "profile"
        raise InputError(f"`{contradicting}` contradicts `start_from`, whose law is fitted")
    mapping = with_target(runs, options.pairs(maps, "--map"), target)
    table = read_runs(runs, mapping, where, definition, drop_highest_loss)
    table = table if definition is not None else table.for_law(family_of_laws(table))
    read = list(of_reading(table.dropped, table.notes))
    if resamples is None and start is not None:
        resamples = DRAWS
    if resamples is None:
        resamples = usual_count(table)
        if not resamples:
            read.append(f"no intervals: {len(table):,} rows take long to resample; ask for some with --bootstrap 50")
    how: dict[str, Any] = {
        "objective": Objective(objective.value, residual.value, delta),
        "auto_pin": auto_pin,
        "n_starts": starts,
        "seed": seed,
    }
    with progress("resampling") as report:
        if start is not None:
            fitted: Fit = recalibrated(table, start, resamples, name=start_from or "", seed=seed)
        elif definition is None:
            fitted = fit_mixture(table, resamples=resamples, progress=report, **how)
        else:
            alone = fit(table, definition, pin=pins, **how)
            fitted = bootstrap(alone, table, resamples, np.random.default_rng(seed), progress=report)
            fitted = with_discrepancy(fitted, table, seed)
    made = FitOptions.of(table, resamples, seed=seed, starts=starts, auto_pin=auto_pin, start_from=start_from or "")
    fitted = replace(fitted, options=made)
    document = FIT.document(fitted)
    if out is not None:  # before profiles and figures, which may fail
        write_json(out, document)
    usable = bool(fitted.params)
    everything = figure is not None and definition is not None and start is None
    profiles = _profiles(fitted, table, profile or (), everything=everything) if usable else []
    optimum = None
    if usable and budget is not None:
        optimum = answer(fitted, Question(train_flops=budget), what_if=False, cost_curves=False)
    if figure is not None and usable:
        from analysis.figures.sheets import fit_sheet

        save_figure(fit_sheet(fitted, table, profiles), figure)
    document |= {"profiles": [asdict(shape) for shape in profiles]} if profiles else {}
    document |= {"optimum": plain(optimum.recommendation)} if optimum else {}
    deliver(document, fit_page(fitted, read, profiles, optimum), as_json=as_json, verbose=verbose)
    if not usable:
        raise WorkError(f"the fit is {fitted.status}: {'; '.join(fitted.warnings) or 'no start converged'}")


def _profiles(fitted: Fit, table: RunTable, names: Sequence[str], *, everything: bool) -> list[Profile]:
    """Profiles of the parameters named, or of all; of a fit without draws only those that were named."""
    from analysis.fitting.profile import profile

    if everything and not fitted.draws and not names:
        return []
    return [profile(fitted, table, name) for name in (fitted.free if everything or "all" in names else names)]


def predict(
    fit: options.FitArgument,
    n_active: Annotated[
        float | None,
        typer.Option(metavar="N", parser=number, help="Active parameters, with embeddings and head."),
    ] = None,
    tokens: Annotated[float | None, typer.Option(metavar="D", parser=number, help="Training tokens.")] = None,
    n_experts: Annotated[
        int | None,
        typer.Option(
            metavar="E",
            min=1,
            max=MOST_EXPERTS,
            help="Experts per MoE layer; 1 is dense, and the default where a law has E.",
        ),
    ] = None,
    settings: options.Settings = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Predict the loss of one model in nats per token (for `leverage` a ratio of compute), with 95 % intervals.

    One interval is that of the law, from the fit's draws; the other that of a new run, which adds run-to-run noise.
    Those of one law hold if it does; beside them stands one with what larger runs missed it by in roll-out.
    """
    from analysis.decision.size_search import columns_of_model
    from analysis.fitting.fit_file import load_fit
    from analysis.fitting.limits import refused_of_model
    from scaling.cli.show.fit import prediction_page

    fitted = load_fit(fit)
    fitted.require_params()
    fitted.require_experts(() if n_experts is None else (n_experts,))
    experts = n_experts or fitted.only_experts or 1
    columns = columns_of_model(fitted, n_active, tokens, experts, options.number_pairs(settings, "--set"))
    loss = float(fitted.loss(columns))
    if not math.isfinite(loss):
        raise InputError(f"{fit}: law {fitted.law} with these parameters predicts no number there; look at its params")
    ends = fitted.loss_interval(columns), fitted.prediction_interval(columns), fitted.interval_beyond(columns)
    interval, of_run, beyond = (None if each is None else [float(each[0][0]), float(each[1][0])] for each in ends)
    warnings = [*fitted.warnings, *fitted.outside_domain(columns)]
    refused = refused_of_model(fitted, columns)
    name = "loss" if fitted.definition.target == "loss_val" else fitted.definition.target
    document = {
        "law": fitted.law,
        "columns": columns,
        name: loss,
        f"{name}_interval": interval,
        "prediction_interval": of_run,
        "interval_beyond": beyond,
        "refused": refused,
        "warnings": warnings,
    }
    deliver(
        document,
        prediction_page(fitted, name, loss, (interval, of_run, beyond), refused, warnings),
        as_json=as_json,
        verbose=verbose,
    )
