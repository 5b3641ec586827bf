"""`scaling isoflop`: valleys of equal compute, the frontier through their minima, and the envelope beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import DropHighest, Json, Maps, Runs, Where, number, optional, pairs
from scaling.cli.output import note, note_table, print_json, write_json
from scaling.errors import InputError, WorkError

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.isoflop.bias import Bias
    from analysis.isoflop.envelope import Envelope
    from analysis.isoflop.frontier import Frontier
    from analysis.isoflop.power_law import PowerLaw
    from analysis.isoflop.valleys import Valleys


def isoflop(
    runs: Runs,
    maps: Maps = None,
    where: Where = None,
    drop_highest_loss: DropHighest = 0,
    n_column: Annotated[str, typer.Option(metavar="COLUMN", help="What N is.")] = "n_active",
    tolerance: Annotated[str, typer.Option(help="Half-width of a budget, as a share of it.")] = "0.05",
    groups: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Make this many budgets of the runs instead, however wide.")
    ] = None,
    log_loss: Annotated[bool, typer.Option("--log-loss", help="Parabolas of ln loss instead of the loss.")] = False,
    keep_flagged: Annotated[
        bool, typer.Option("--keep-flagged", help="Use flagged valleys in the regression too.")
    ] = False,
    budget: Annotated[str | None, typer.Option(metavar="C", help="Training FLOPs to predict the optimum at.")] = None,
    bias: Annotated[
        str | None,
        typer.Option(
            metavar="FIT",
            help="How far off the method is on this fit's surface, at --budget or the largest; or published:NAME.",
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Envelope of the study's training curves, not of its cells.")
    ] = False,
    bootstrap: Annotated[int, typer.Option(metavar="N", min=0, help="Resamples for the envelope's interval.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File for the document.")] = None,
    as_json: Json = False,
) -> None:
    """Fit a parabola of loss in ln N at each compute budget, and a power law of compute through the minima.

    This is approach 2 of arXiv 2203.15556, with approach 1 (the envelope) beside it; E by E. Flagged valleys are
    listed and left out. A fit of the whole surface (`scaling fit`) uses the runs better. Exits with 1 where no E has
    three usable valleys.
    """
    from analysis.fitting.fit_file import load_fit
    from analysis.isoflop import bias as bias_module
    from analysis.isoflop import frontier, valleys
    from analysis.tables import runs as runs_module
    from scaling.cli.show_isoflop import show_isoflop

    at = optional(budget, "--budget")
    if at is not None and not 0.0 < at < float("inf"):
        raise InputError(f"--budget must be a positive number of FLOPs, found {budget}")
    surface = None if bias is None else load_fit(bias)
    table = runs_module.read_runs(runs, pairs(maps, "--map"), where, drop_highest_loss=drop_highest_loss)
    note_table(table.dropped, table.notes)
    found = valleys.valleys(
        table, n_column=n_column, tolerance=number(tolerance, "--tolerance"), n_budgets=groups, log_loss=log_loss
    )
    warnings = [f"{len(rows)} runs left out: {reason}" for reason, rows in found.left_out]
    lines, envelopes, biases = {}, {}, {}
    for e in found.experts:
        try:
            lines[e] = frontier.frontier(found, e, include_flagged=keep_flagged)
        except InputError as error:
            warnings.append(str(error))
        if e in lines and surface is not None:
            there = lines[e].used[-1].train_flops if at is None else at
            biases[e] = bias_module.bias(surface, found, there, e, include_flagged=keep_flagged)
        try:
            envelopes[e] = _envelope(Path(runs), found, e, bootstrap, seed, curves)
        except InputError as error:
            warnings.append(f"no envelope: {error}")
    document = _document(found, lines, envelopes, biases, at, surface, warnings)
    if out is not None:
        write_json(out, document)
    for warning in warnings:
        note(f"warning: {warning}")
    if as_json:
        print_json(document)
    else:
        show_isoflop(found, lines, envelopes, biases, at)
    if not lines:
        raise WorkError("no frontier: fewer than three usable valleys; the flags say what to change")


def _envelope(study: Path, found: Valleys, e: int, draws: int, seed: int, curves: bool) -> Envelope:
    import numpy as np

    from analysis.isoflop.envelope import envelope, training_curves

    table = training_curves(study, found.table) if curves else found.table
    rng = np.random.default_rng(seed) if draws else None
    return envelope(table, e, n_column=found.n_column, rng=rng, draws=draws)


def _document(
    found: Valleys, lines: dict[int, Frontier], envelopes: dict[int, Envelope], biases: dict[int, Bias],
    at: float | None, surface: Fit | None, warnings: list[str],
) -> dict[str, Any]:  # fmt: skip
    from dataclasses import asdict

    def one(e: int) -> dict[str, Any]:
        line, hull = lines.get(e), envelopes.get(e)
        prediction = None
        if line is not None and at is not None:
            size, tokens = line.at(at)
            prediction = {
                "train_flops": at, "n_opt": float(size.mean[0]), "n_interval": [float(size.low[0]), float(size.high[0])],
                "d_opt": float(tokens.mean[0]), "d_interval": [float(tokens.low[0]), float(tokens.high[0])],
            }  # fmt: skip
        return {
            "n_experts": e,
            "valleys": [_valley(valley) for valley in found.of(e).found],
            "n_exponent": None if line is None else _exponent(line.n_opt),
            "d_exponent": None if line is None else _exponent(line.d_opt),
            "prediction": prediction,
            "envelope": None
            if hull is None
            else {
                "n_exponent": hull.n_law.exponent,
                "n_interval": hull.exponent_interval,
                "d_exponent": hull.d_law.exponent,
                "n_models": hull.n_models,
                "edge_share": float(hull.edge.mean()),
            },
            "bias": asdict(biases[e]) if e in biases else None,
        }

    return {
        "n_column": found.n_column,
        "log_loss": found.log_loss,
        "surface": None if surface is None else {"law": surface.law, "params": dict(surface.params)},
        "frontiers": [one(e) for e in found.experts],
        "left_out": {reason: [int(row) for row in rows] for reason, rows in found.left_out},
        "warnings": warnings,
    }


def _exponent(law: PowerLaw) -> dict[str, Any]:
    return {"exponent": law.exponent, "interval": list(law.exponent_interval), "log_coefficient": law.log_coefficient}


def _valley(valley: Any) -> dict[str, Any]:
    """Plain values; a minimum that does not exist is null."""
    from math import isfinite

    names = (
        "train_flops",
        "n_opt",
        "n_interval",
        "d_opt",
        "d_interval",
        "loss",
        "loss_interval",
        "n_points",
        "n_range",
    )
    values = {name: getattr(valley, name) for name in names}
    kept = {name: None if isinstance(v, float) and not isfinite(v) else v for name, v in values.items()}
    return kept | {"width": valley.width, "flags": list(valley.flags)}
