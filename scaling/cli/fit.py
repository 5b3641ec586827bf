"""`scaling laws`, `fit` and `predict`: what laws there are, and what runs say of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import (
    PICTURES,
    Delta,
    DropHighest,
    FitArgument,
    Json,
    Maps,
    ObjectiveName,
    ObjectiveOption,
    Pins,
    ResidualName,
    ResidualOption,
    Runs,
    Settings,
    Where,
    number,
    optional,
    pairs,
    pins_of,
    settings_of,
)
from scaling.cli.output import note, note_table, print_answer, print_json, write_json
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.decision.recommendation import Recommendation
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.tables.runs import RunTable


_DRAWS, _MOST_ROWS = 400, 50_000  # resamples by default, and the rows up to which they are quick
_CLOUDS = 3  # pairs of parameters drawn against each other


def laws(as_json: Json = False) -> None:
    """List every law with formula, parameters, source and domain, and the published fits."""
    from analysis.fitting.published import PUBLISHED
    from analysis.laws import LAWS

    if as_json:
        print_json(
            {
                "laws": {
                    law.name: {
                        "formula": law.formula,
                        "n_column": law.n_column,
                        "columns": law.columns,
                        "source": law.source,
                        "domain": law.domain,
                        "target": law.target,
                        "parameters": {p.name: {"meaning": p.meaning, "unit": p.unit} for p in law.parameters},
                    }
                    for law in LAWS.values()
                },
                "published": {
                    f"published:{name}": {"law": fit.law, "params": fit.params, "source": fit.source}
                    for name, fit in PUBLISHED.items()
                },
            }
        )
        return
    for law in LAWS.values():
        size = f"N is {law.n_column}; " if law.n_column else ""
        print(f"{law.name}: {law.formula}\n  {size}columns: {', '.join(law.columns)}; predicts {law.target}")
        print("\n".join(f"  {p.name:8} {p.meaning}{f', {p.unit}' * bool(p.unit)}" for p in law.parameters))
        print(f"  source  {law.source}\n  domain  {law.domain}\n")
    for name, fit in PUBLISHED.items():
        print(
            f"published:{name} ({fit.law})\n  " + ", ".join(f"{key} {value:.6g}" for key, value in fit.params.items())
        )
        print("".join(f"  {line}\n" for line in (fit.source, *fit.warnings, *fit.notes)))


def fit(
    runs: Runs,
    law: Annotated[str, typer.Option(help="Name of the law; `scaling laws` lists them.")],
    objective: ObjectiveOption = ObjectiveName.huber,
    residual: ResidualOption = ResidualName.log,
    delta: Delta = "1e-3",
    bootstrap: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Resamples for the intervals; 0 means none. Default 400, of more than 50,000 rows none."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of starts and resamples.")] = 0,
    starts: Annotated[int, typer.Option(min=1, help="Starts of the global search.")] = 64,
    pin: Pins = None,
    auto_pin: Annotated[bool, typer.Option(help="Pin what the runs cannot identify to published values.")] = True,
    where: Where = None,
    maps: Maps = None,
    drop_highest_loss: DropHighest = 0,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Profile interval of a parameter; all of them: 'all'.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="C", help="Say the optimal N, D, E and loss at C training FLOPs, with intervals."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the fit: law, residuals, profiles, draws (.png, .svg).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the fit, with its bootstrap draws.")] = None,
    as_json: Json = False,
) -> None:
    """Fit a law to runs: the global minimum of a summed robust objective, with bootstrap intervals by trunk.

    How far to believe it says `scaling validate`; which law to take, docs/choosing-a-law.md. Exits with 1 where the
    runs determine no parameters; the document then says why.
    """
    import numpy as np

    from analysis.fitting import bootstrap as uncertainty
    from analysis.fitting.fit import fit as fit_law
    from analysis.fitting.objective import Objective
    from analysis.laws import law_named
    from analysis.tables import runs as runs_module
    from scaling.cli.show_fit import show_fit
    from scaling.cli.show_recommendation import show_recommendation

    if figure is not None and figure.suffix not in PICTURES:
        raise InputError(f"--figure {figure}: expected a name that ends in {', '.join(PICTURES)}")
    train_flops = optional(budget, "--budget")
    if train_flops is not None and not train_flops > 0:
        raise InputError(f"--budget must be a positive number of FLOPs, found {budget}")
    definition = law_named(law)
    table = runs_module.read_runs(runs, pairs(maps, "--map"), where, definition, drop_highest_loss)
    note_table(table.dropped, table.notes)
    pins = pins_of(pin)
    fitted = fit_law(
        table,
        definition,
        objective=Objective(objective.value, residual.value, number(delta, "--delta")),
        pin=pins,
        auto_pin=auto_pin,
        n_starts=starts,
        seed=seed,
    )
    if bootstrap is None:
        bootstrap = _DRAWS if len(table) <= _MOST_ROWS else 0
        if not bootstrap:
            note(
                f"warning: no intervals, since {len(table):,} rows take long to resample; ask for some with "
                "--bootstrap 50"
            )
    fitted = uncertainty.bootstrap(fitted, table, bootstrap, np.random.default_rng(seed))
    if out is not None:
        write_json(out, fitted.to_json())
    for warning in fitted.warnings:
        note(f"warning: {warning}")
    usable = bool(fitted.params)
    shapes = _profiled(fitted, table, profile or (), everything=figure is not None) if usable else []
    optimum = _optimum(fitted, train_flops) if usable and train_flops is not None else None
    if figure is not None and usable:
        _draw(fitted, table, shapes, figure)
    if as_json:
        told = {"profiles": [asdict(one) for one in shapes]} if shapes else {}
        print_json(fitted.to_json() | told | ({"optimum": optimum.to_json()} if optimum else {}))
    else:
        show_fit(fitted, shapes)
        if optimum is not None:
            show_recommendation(optimum)
    if not usable:
        raise WorkError(f"the fit is {fitted.status}: {'; '.join(fitted.warnings) or 'no start converged'}")


def _profiled(fitted: Fit, table: RunTable, names: Sequence[str], *, everything: bool) -> list[Profile]:
    from analysis.fitting.profile import profile

    wanted = fitted.free if everything or "all" in names else names
    return [profile(fitted, table, name) for name in wanted] if fitted.draws or names else []


def _optimum(fitted: Fit, train_flops: float) -> Recommendation:
    from analysis.decision.question import Question
    from analysis.decision.recommend import recommend

    return recommend(fitted, Question(train_flops=train_flops))


def _draw(fitted: Fit, table: RunTable, shapes: Sequence[Profile], path: Path) -> None:
    import numpy as np

    from analysis import figures

    draws = {name: np.array(values) for name, values in fitted.draws.items()}
    exponents = [name for name in fitted.free if fitted.definition.parameter(name).linear == "" and name in draws]
    pairs = [(a, b) for index, a in enumerate(exponents) for b in exponents[index + 1 :]][:_CLOUDS]
    figures.save(figures.sheet(fitted, table, shapes, {pair: (draws[pair[0]], draws[pair[1]]) for pair in pairs}), path)


def predict(
    fit: FitArgument,
    n_active: Annotated[
        str | None, typer.Option(metavar="N", help="Active parameters, embeddings and head in.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(metavar="D", help="Training tokens.")] = None,
    n_experts: Annotated[
        int | None,
        typer.Option(metavar="E", min=1, help="Experts per MoE layer; 1 is dense, and the default where a law has E."),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Predict what the law predicts, the loss of one model in nats per token for most, with 95 % intervals.

    One interval is that of the law, from the fit's draws; the other that of a new run, with the noise of runs in it.
    """
    from analysis.decision.size_search import columns_of_model
    from analysis.fitting.fit_file import load_fit

    source, fitted = fit, load_fit(fit)
    fitted.require_params()
    given = settings_of(settings)
    fitted.require_experts(() if n_experts is None else (n_experts,))
    experts = n_experts or fitted.only_experts or 1
    columns = columns_of_model(fitted, optional(n_active, "--n-active"), optional(tokens, "--tokens"), experts, given)
    loss = float(fitted.loss(columns))
    if not math.isfinite(loss):
        raise InputError(
            f"{source}: law {fitted.law} with these parameters predicts no number there; look at its params"
        )
    interval, of_run = (
        None if ends is None else [float(ends[0][0]), float(ends[1][0])]
        for ends in (fitted.loss_interval(columns), fitted.prediction_interval(columns))
    )
    warnings = [*fitted.warnings, *fitted.outside_domain(columns)]
    for warning in warnings:
        note(f"warning: {warning}")
    target = fitted.definition.target
    name, unit = ("loss", " nats per token") if target == "loss_val" else (target, "")
    shown = "no interval: the fit has no draws"
    if interval is not None:
        shown = f"95 % interval of the law {interval[0]:.4f} to {interval[1]:.4f}"
    if of_run is not None:
        shown += f", of a new run {of_run[0]:.4f} to {of_run[1]:.4f}"
    document = {
        "law": fitted.law,
        "columns": columns,
        name: loss,
        f"{name}_interval": interval,
        "prediction_interval": of_run,
        "warnings": warnings,
    }
    print_answer(document, as_json, f"{name} {loss:.4f}{unit} ({shown})")
