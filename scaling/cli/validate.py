"""`scaling validate`: how far a law that was fitted to runs may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import (
    PICTURES,
    Delta,
    DropHighest,
    Json,
    Maps,
    ObjectiveName,
    ObjectiveOption,
    Pins,
    ResidualName,
    ResidualOption,
    Runs,
    Where,
    number,
    optional,
    pairs,
    pins_of,
)
from scaling.cli.output import note, note_table, print_json, write_json
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.tables.runs import RunTable
    from analysis.validation.residuals import Diagnostics


def validate(
    runs: Runs,
    law: Annotated[str, typer.Option(help="Name of the law; `scaling laws` lists them.")],
    laws: Annotated[
        str | None, typer.Option(metavar="LIST", help="Laws to compare it with, e.g. hoffmann,yun. Default: all.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="C", help="FLOPs that advice is for. Default: 10 times the largest run's.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(metavar="N", min=2, help="Resamples behind every interval.")] = 200,
    objective: ObjectiveOption = ObjectiveName.huber,
    residual: ResidualOption = ResidualName.log,
    delta: Delta = "1e-3",
    pin: Pins = None,
    keep_trunks: Annotated[
        bool, typer.Option("--keep-trunks", help="Roll-out also predicts trunks that were fitted below the cut.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of starts, resamples and folds.")] = 0,
    where: Where = None,
    maps: Maps = None,
    drop_highest_loss: DropHighest = 0,
    out: Annotated[Path | None, typer.Option(help="File for the whole account, as JSON.")] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Figures on one page: .png, .svg or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a law by runs it has not seen: dearer ones, expert counts left out, other laws, runs left out.

    Exits with 1 where the runs determine no parameters of the law.
    """
    import numpy as np

    from analysis.fitting import bootstrap as uncertainty
    from analysis.fitting.fit import fit as fit_law
    from analysis.fitting.objective import Objective
    from analysis.fitting.roll_out import refusal, roll_out
    from analysis.laws import LAWS, law_named
    from analysis.tables import runs as runs_module
    from analysis.validation.held_out import leave_one_expert_count_out
    from analysis.validation.influence import sensitivity
    from analysis.validation.law_comparison import compare_laws
    from analysis.validation.residuals import diagnose
    from scaling.cli.show_validation import show_validation

    if figure is not None and figure.suffix not in PICTURES:
        raise InputError(f"--figure {figure}: expected a name that ends in {', '.join(PICTURES)}")
    definition, flops = law_named(law), optional(budget, "--budget")
    others = list(LAWS.values()) if laws is None else [law_named(name.strip()) for name in laws.split(",")]
    compared = [definition, *(one for one in others if one.name != definition.name)]
    table = runs_module.read_runs(runs, pairs(maps, "--map"), where, definition, drop_highest_loss)
    note_table(table.dropped, table.notes)
    rng = np.random.default_rng(seed)
    goal, pins = Objective(objective.value, residual.value, number(delta, "--delta")), pins_of(pin)
    found = fit_law(table, definition, objective=goal, pin=pins, seed=seed)
    fitted = uncertainty.bootstrap(found, table, bootstrap, rng)
    for warning in fitted.warnings:
        note(f"warning: {warning}")
    if not fitted.params:
        raise WorkError(f"law {law} cannot be fitted: {refusal(fitted)}")
    parts: dict[str, Any] = {}
    told: list[str] = []
    for name, title, work in (
        ("roll_out", "roll-out", lambda: roll_out(
            table, definition, rng=rng, resamples=bootstrap, keep_trunks=keep_trunks, objective=goal, pin=pins)),
        ("experts_left_out", "one expert count left out",
         lambda: leave_one_expert_count_out(
             table, definition, rng=rng, resamples=bootstrap, objective=goal, pin=pins)),
        ("comparison", "laws", lambda: compare_laws(table, compared, rng=rng, train_flops=flops, objective=goal)),
        ("sensitivity", "sensitivity", lambda: sensitivity(fitted, table, rng, train_flops=flops)),
        ("residuals", "residuals", lambda: diagnose(fitted, table)),
    ):  # fmt: skip
        try:
            parts[name] = work()
            told.append(_faults(parts[name]) if name == "residuals" else parts[name].verdict())
        except InputError as error:  # a part that these runs do not allow does not keep the others from being said
            told.append(f"{title}: {error}")
    document = {
        "law": law,
        "n_runs": fitted.n_runs,
        "n_trunks": fitted.n_trunks,
        "verdict": told,
        **{name: asdict(part) if name == "residuals" else part.to_json() for name, part in parts.items()},
        "warnings": list(fitted.warnings),
    }
    if out is not None:
        write_json(out, document)
    if figure is not None:
        _draw(figure, fitted, table, parts)
    if as_json:
        print_json(document)
    else:
        show_validation(told, parts)


def _faults(found: Diagnostics) -> str:
    faults = [fault.sentence for fault in found.faults]
    return f"residuals: {'; '.join(faults) or 'no trend, unequal spread, heavy tails or outlier stands out'}"


def _draw(path: Path, fitted: Fit, table: RunTable, parts: Mapping[str, Any]) -> None:
    """One page: roll-out beside evidence, residuals against each column, influence."""
    from functools import partial

    import numpy as np
    import pandas as pd

    from analysis import figures
    from scaling.columns import COMPUTE, EXPERTS

    law = fitted.definition
    experts = np.nan_to_num(table.column(EXPERTS), nan=1.0) if EXPERTS in table.frame else np.ones(len(table))
    palette = figures.colours(experts.astype(int))
    palette = {e: colour for e, colour in palette.items() if e in experts}
    rolled = parts["roll_out"].frame() if "roll_out" in parts else pd.DataFrame()
    contenders = parts["comparison"].contenders if "comparison" in parts else ()
    moved = parts["sensitivity"].frame() if "sensitivity" in parts else pd.DataFrame()
    top = [figures.titled(partial(figures.roll_out_errors, rolled, palette), "Roll-out")] if len(rolled) else []
    if len(contenders) > 1:
        weights = pd.DataFrame([asdict(one) for one in contenders])
        top.append(figures.titled(partial(figures.evidence, weights), "Laws"))
    residuals = np.log(table.column(law.target)) - np.log(fitted.loss(table.columns(law.columns)))
    labels = {
        law.n_column: "N",
        "tokens": "training tokens D",
        EXPERTS: "experts per layer E",
        COMPUTE: "training FLOPs C",
    }
    shown = {name: table.column(name) for name in labels if name in table.frame}
    middle = [
        partial(
            figures.residuals_against, values, residuals, experts, palette, label=labels[name], flops=name == COMPUTE
        )
        for name, values in shown.items()
        if (np.isfinite(values) & (values > 0)).all() and np.ptp(values) > 0
    ]
    bottom = [figures.titled(partial(figures.influence, moved), "Influence of runs left out")] if len(moved) else []
    rows = [(panels, height) for panels, height in ((top, 2.5), (middle, 1.9), (bottom, 2.9)) if panels]
    path.parent.mkdir(parents=True, exist_ok=True)
    page = figures.pages(*(panels for panels, _ in rows), heights=[height for _, height in rows], legend=palette)
    figures.save(page, path)
