"""`scaling import`, `laws`, `fit`, `predict` and `recommend`: tables to claims."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from scaling.errors import InputError, WorkError

Runs = Annotated[str, typer.Argument(metavar="RUNS", help="A study folder, or a CSV or Parquet file, one run a row.")]
FitArgument = Annotated[str, typer.Argument(metavar="FIT", help="A file that `fit --out` wrote, or published:NAME.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="COLUMN=EXPR",
        help="Our COLUMN (n_active, tokens, loss_val, ...) is EXPR: a column of the table, a number, or arithmetic on them, "
        "e.g. 'tokens=tokens_b*1e9', 'loss_val=log(ppl)', n_experts=1, 'n_active=`size (M)`*1e6'.",
    ),
]
Where = Annotated[
    str | None, typer.Option(metavar="EXPR", help="Keep rows where this holds, e.g. 'n_experts == 1 and loss_val < 4'.")
]
DropHighest = Annotated[
    int, typer.Option("--drop-highest-loss", metavar="N", help="Leave out the N runs of highest loss.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=VALUE", help="Any other column of the law, e.g. n_dense_nonembed=1.2B."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


class ObjectiveName(enum.StrEnum):
    """What is summed over residuals."""

    huber = "huber"
    lad = "lad"
    least_squares = "least-squares"
    asymmetric = "asymmetric"


class ResidualName(enum.StrEnum):
    """Prediction minus observation of what."""

    log = "log"
    raw = "raw"


def register(app: typer.Typer) -> None:
    """Add the analysis commands."""
    app.command("import")(import_table)
    for command in (laws, fit, predict, recommend):
        app.command()(command)


def import_table(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Somebody's runs: a CSV, TSV, JSON, JSON lines or Parquet file.")
    ],
    out: Annotated[Path, typer.Option(help="Study folder to write.")],
    maps: Maps = None,
    where: Where = None,
    drop_highest_loss: DropHighest = 0,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Leave out rows that repeat an earlier one in every cell.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a study folder of somebody else's table, so that every later command can read it.

    Keeps the columns that the run table knows. Where tokens are missing, D = C/(6 N); counts that follow from others are
    derived. What the counts are taken for, what was derived and what was left out is printed.
    """
    from analysis.imports import import_runs

    table_read, part, unknown = import_runs(
        table, out, _pairs(maps, "--map"), where, drop_highest_loss, drop_duplicates
    )
    told = {
        "study": str(out),
        "part": str(part),
        "n_runs": len(table_read),
        "dropped": table_read.dropped,
        "notes": table_read.notes,
        "ignored_columns": unknown,
    }
    _say_table(table_read.dropped, table_read.notes)
    if unknown:
        _note(f"columns left behind: {', '.join(unknown)}")
    _answer(told, as_json, f"{len(table_read)} runs in {part}")


def laws(as_json: Json = False) -> None:
    """List every law with formula, parameters, source and domain, and the published fits."""
    from analysis.laws import LAWS
    from analysis.published import PUBLISHED

    if as_json:
        _print_json(
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
    objective: Annotated[ObjectiveName, typer.Option(help="Penalty summed over residuals.")] = ObjectiveName.huber,
    residual: Annotated[
        ResidualName, typer.Option(help="Residuals of ln loss, or of the loss in nats.")
    ] = ResidualName.log,
    delta: Annotated[str, typer.Option(help="Corner of huber and asymmetric, in the residual's units.")] = "1e-3",
    bootstrap: Annotated[int, typer.Option(metavar="N", help="Resamples for the intervals; 0 means none.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of starts and resamples.")] = 0,
    starts: Annotated[int, typer.Option(min=1, help="Starts of the global search.")] = 64,
    pin: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Hold a parameter at a value.")] = None,
    auto_pin: Annotated[bool, typer.Option(help="Pin what the runs cannot identify to published values.")] = True,
    where: Where = None,
    maps: Maps = None,
    drop_highest_loss: DropHighest = 0,
    out: Annotated[Path | None, typer.Option(help="File for the fit, with its bootstrap draws.")] = None,
    as_json: Json = False,
) -> None:
    """Fit a law to runs: the global minimum of a summed robust objective, with bootstrap intervals by trunk.

    Exits with 1 where the runs determine no parameters; the document then says why.
    """
    import numpy as np

    from analysis import runs as runs_module
    from analysis import uncertainty
    from analysis.fit import fit as fit_law
    from analysis.laws import law as law_named
    from scaling.cli.printing import show_fit

    definition = law_named(law)
    table = runs_module.read(runs, _pairs(maps, "--map"), where, definition, drop_highest_loss)
    _say_table(table.dropped, table.notes)
    pins = {name: _number(value, f"--pin {name}") for name, value in _pairs(pin, "--pin").items()}
    fitted = fit_law(
        table,
        definition,
        objective=objective.value,
        residual=residual.value,
        delta=_number(delta, "--delta"),
        pin=pins,
        auto_pin=auto_pin,
        n_starts=starts,
        seed=seed,
    )
    fitted = uncertainty.bootstrap(fitted, table, bootstrap, np.random.default_rng(seed))
    document = fitted.to_json()
    if out is not None:
        _write(out, document)
    for warning in fitted.warnings:
        _note(f"warning: {warning}")
    if as_json:
        _print_json(document)
    else:
        show_fit(fitted)
    if not fitted.params:
        raise WorkError(f"the fit is {fitted.status}: {'; '.join(fitted.warnings) or 'no start converged'}")


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
    from analysis.fit import load
    from analysis.search import columns_of_model

    fitted = load(fit)
    fitted.require_params()
    given = _settings(settings)
    fitted.require_experts(() if n_experts is None else (n_experts,))
    experts = n_experts or fitted.only_experts or 1
    columns = columns_of_model(fitted, _optional(n_active, "--n-active"), _optional(tokens, "--tokens"), experts, given)
    loss = float(fitted.loss(columns))
    interval, of_run = (
        None if ends is None else [float(ends[0][0]), float(ends[1][0])]
        for ends in (fitted.loss_interval(columns), fitted.prediction_interval(columns))
    )
    warnings = [*fitted.warnings, *fitted.outside_domain(columns)]
    for warning in warnings:
        _note(f"warning: {warning}")
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
    _answer(document, as_json, f"{name} {loss:.4f}{unit} ({shown})")


def recommend(
    fit: FitArgument,
    train_flops: Annotated[str | None, typer.Option(metavar="C", help="Training budget in FLOPs.")] = None,
    target_loss: Annotated[str | None, typer.Option(metavar="L", help="Loss to reach, nats per token.")] = None,
    serve_tokens: Annotated[str, typer.Option(metavar="T", help="Tokens served over the model's life.")] = "0",
    n_experts: Annotated[
        str | None, typer.Option(metavar="LIST", help="Expert counts to compare, e.g. 1,4,8. Default: those studied.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Count cost in USD on this device (h100, ...).")
    ] = None,
    usd_per_hour: Annotated[
        str | None, typer.Option(help="Rent of one device, USD per hour, instead of the table's.")
    ] = None,
    mfu: Annotated[
        str | None, typer.Option(help="Share of the device's peak that training reaches; without it .4.")
    ] = None,
    memory_gb: Annotated[
        str | None, typer.Option(metavar="M", help="Memory for weights and 16k cached tokens in bf16, GB = 1e9 bytes.")
    ] = None,
    reference_experts: Annotated[
        int, typer.Option(metavar="E", min=1, help="With a budget and a volume: keep the loss of this E's best model.")
    ] = 1,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="File for the recommendation.")] = None,
    as_json: Json = False,
) -> None:
    """Recommend an expert count, a size and a token budget, and say how sure that is.

    With --target-loss: least lifetime cost. With --train-flops: least loss; with --serve-tokens too: least lifetime
    cost among the models trained within the budget that are no worse than the best dense one.
    """
    from analysis.fit import load
    from analysis.recommend import Question
    from analysis.recommend import recommend as answer
    from scaling.cli.printing import show_recommendation

    question = Question(
        train_flops=_optional(train_flops, "--train-flops"),
        target_loss=_optional(target_loss, "--target-loss"),
        serve_tokens=_number(serve_tokens, "--serve-tokens"),
        n_experts=_whole_list(n_experts, "--n-experts"),
        memory_gb=_optional(memory_gb, "--memory-gb"),
        device=device,
        usd_per_hour=_optional(usd_per_hour, "--usd-per-hour"),
        mfu=_optional(mfu, "--mfu"),
        reference_experts=reference_experts,
        settings=_settings(settings),
    )
    found = answer(load(fit), question)
    if out is not None:
        _write(out, found.to_json())
    for warning in found.warnings:
        _note(f"warning: {warning}")
    if as_json:
        _print_json(found.to_json())
    else:
        show_recommendation(found)


def _pairs(items: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items or ():
        name, separator, value = item.partition("=")
        if not separator or not name.strip() or not value.strip():
            raise InputError(f"{option} takes NAME=VALUE, found {item!r}")
        if name.strip() in pairs:
            raise InputError(f"{option} names {name.strip()!r} twice")
        pairs[name.strip()] = value.strip()
    return pairs


def _settings(items: Sequence[str] | None) -> dict[str, float]:
    return {name: _number(value, f"--set {name}") for name, value in _pairs(items, "--set").items()}


def _number(text: str, option: str) -> float:
    from scaling.fields import parse_number

    try:
        return parse_number(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def _optional(text: str | None, option: str) -> float | None:
    return None if text is None else _number(text, option)


def _whole_list(text: str | None, option: str) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{option} takes whole numbers with commas between them, such as 1,4,8; found {text!r}"
        ) from error


def _say_table(dropped: Sequence[tuple[str, int]], notes: Sequence[str]) -> None:
    for reason, count in dropped:
        _note(f"left out: {count} rows ({reason})")
    for note in notes:
        _note(f"note: {note}")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _answer(document: Mapping[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        _print_json(document)
    else:
        print(text)


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, allow_nan=False))


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    from scaling.files import write_atomically

    write_atomically(path, json.dumps(document, allow_nan=False, indent=1).encode())
