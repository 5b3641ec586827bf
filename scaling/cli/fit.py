"""`scaling laws`, `fit` and `predict`: what laws there are, and what runs say of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli import options
from scaling.cli.options import number
from scaling.cli.output import note_table, print_answer, print_json, save_figure, warn
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.laws import Law
    from analysis.tables.runs import RunTable


def laws(as_json: options.Json = False) -> None:
    """List every law with formula, parameters, source and domain, and the published fits."""
    from analysis.fitting.published import PUBLISHED
    from analysis.laws import LAWS

    if as_json:
        published = {
            f"published:{name}": {"law": fitted.law, "params": fitted.params, "source": fitted.source}
            for name, fitted in PUBLISHED.items()
        }
        print_json({"laws": {law.name: _law_document(law) for law in LAWS.values()}, "published": published})
        return
    for law in LAWS.values():
        size = f"N is {law.n_column}; " if law.n_column else ""
        print(f"{law.name}: {law.formula}\n  {size}columns: {', '.join(law.columns)}; predicts {law.target}")
        print("\n".join(f"  {p.name:8} {p.meaning}{f', {p.unit}' * bool(p.unit)}" for p in law.parameters))
        print(f"  source  {law.source}\n  domain  {law.domain}\n")
    for name, fitted in PUBLISHED.items():
        params = ", ".join(f"{key} {value:.6g}" for key, value in fitted.params.items())
        print(f"published:{name} ({fitted.law})\n  {params}")
        print("".join(f"  {line}\n" for line in (fitted.source, *fitted.warnings, *fitted.notes)))


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
    law: options.LawName,
    objective: options.ObjectiveOption = options.ObjectiveName.huber,
    residual: options.ResidualOption = options.ResidualName.log,
    delta: options.Delta = 1e-3,
    resamples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            metavar="N",
            help="Resamples for the intervals; 0 means none. Default 400, of more than 50,000 rows none.",
        ),
    ] = None,
    seed: options.Seed = 0,
    starts: Annotated[int, typer.Option(min=1, help="Starts of the global search.")] = 64,
    pin: options.Pins = None,
    auto_pin: Annotated[bool, typer.Option(help="Pin what the runs cannot identify to published values.")] = True,
    where: options.Where = None,
    maps: options.Maps = None,
    drop_highest_loss: options.DropHighest = 0,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Profile interval of a parameter; all of them: 'all'.")
    ] = None,
    budget: options.Budget = None,
    figure: options.Figure = None,
    out: options.Document = None,
    as_json: options.Json = False,
) -> None:
    """Fit a law to runs: the global minimum of a summed robust objective, with bootstrap intervals by trunk.

    --budget adds the optimal N, D, E and loss there; --figure draws the law, residuals, profiles and draws; --out keeps
    the draws too. How far to believe it says `scaling validate`; which law to take, docs/choosing-a-law.md. Exits with
    1 where the runs determine no parameters; the document then says why.
    """
    import numpy as np

    from analysis.decision.answer import answer
    from analysis.decision.question import Question
    from analysis.fitting.bootstrap import bootstrap, usual_count
    from analysis.fitting.fit import fit
    from analysis.fitting.objective import Objective
    from analysis.laws import law_named
    from analysis.tables.runs import read_runs
    from scaling.cli.show_fit import show_fit
    from scaling.cli.show_recommendation import show_answer
    from scaling.values import FIT, plain

    definition = law_named(law)
    table = read_runs(runs, options.pairs(maps, "--map"), where, definition, drop_highest_loss)
    note_table(table.dropped, table.notes)
    fitted = fit(
        table,
        definition,
        objective=Objective(objective.value, residual.value, delta),
        pin=options.number_pairs(pin, "--pin"),
        auto_pin=auto_pin,
        n_starts=starts,
        seed=seed,
    )
    if resamples is None:
        resamples = usual_count(table)
        if not resamples:
            rows = f"{len(table):,} rows take long to resample"
            warn([f"no intervals, since {rows}; ask for some with --bootstrap 50"])
    fitted = bootstrap(fitted, table, resamples, np.random.default_rng(seed))
    if out is not None:
        from scaling.files import write_json

        write_json(out, FIT.document(fitted))
    warn(fitted.warnings)
    usable = bool(fitted.params)
    profiles = _profiles(fitted, table, profile or (), everything=figure is not None) if usable else []
    optimum = None
    if usable and budget is not None:
        optimum = answer(fitted, Question(train_flops=budget), what_if=False, cost_curves=False)
    if figure is not None and usable:
        from analysis.figures.sheets import fit_sheet

        save_figure(fit_sheet(fitted, table, profiles), figure)
    if as_json:
        document = FIT.document(fitted)
        document |= {"profiles": [asdict(shape) for shape in profiles]} if profiles else {}
        print_json(document | ({"optimum": plain(optimum.recommendation)} if optimum else {}))
    else:
        show_fit(fitted, profiles)
        if optimum is not None:
            show_answer(optimum)
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
        typer.Option(metavar="N", parser=number, help="Active parameters, embeddings and head in."),
    ] = None,
    tokens: Annotated[float | None, typer.Option(metavar="D", parser=number, help="Training tokens.")] = None,
    n_experts: Annotated[
        int | None,
        typer.Option(metavar="E", min=1, help="Experts per MoE layer; 1 is dense, and the default where a law has E."),
    ] = None,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Predict what the law predicts, the loss of one model in nats per token for most, with 95 % intervals.

    One interval is that of the law, from the fit's draws; the other that of a new run, with the noise of runs in it.
    """
    from analysis.decision.size_search import columns_of_model
    from analysis.fitting.fit_file import load_fit

    fitted = load_fit(fit)
    fitted.require_params()
    fitted.require_experts(() if n_experts is None else (n_experts,))
    experts = n_experts or fitted.only_experts or 1
    columns = columns_of_model(fitted, n_active, tokens, experts, options.number_pairs(settings, "--set"))
    loss = float(fitted.loss(columns))
    if not math.isfinite(loss):
        raise InputError(f"{fit}: law {fitted.law} with these parameters predicts no number there; look at its params")
    interval, of_run = (
        None if ends is None else [float(ends[0][0]), float(ends[1][0])]
        for ends in (fitted.loss_interval(columns), fitted.prediction_interval(columns))
    )
    warnings = [*fitted.warnings, *fitted.outside_domain(columns)]
    warn(warnings)
    target = fitted.definition.target
    name, unit = ("loss", " nats per token") if target == "loss_val" else (target, "")
    intervals = "no interval: the fit has no draws"
    if interval is not None:
        intervals = f"95 % interval of the law {interval[0]:.4f} to {interval[1]:.4f}"
    if of_run is not None:
        intervals += f", of a new run {of_run[0]:.4f} to {of_run[1]:.4f}"
    document = {
        "law": fitted.law,
        "columns": columns,
        name: loss,
        f"{name}_interval": interval,
        "prediction_interval": of_run,
        "warnings": warnings,
    }
    print_answer(document, as_json, f"{name} {loss:.4f}{unit} ({intervals})")
