"""`scaling worth`: what experts, or a method, are worth in compute, time and money at equal loss."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.bounds import MOST_EXPERTS
from scaling.cli import options, serving_options
from scaling.cli.output import deliver, save_figure
from scaling.errors import InputError

if TYPE_CHECKING:
    from analysis.tables.runs import RunTable
    from analysis.worth.candidate import Against


class AgainstName(enum.StrEnum):
    """What a run is compared with: a baseline of its own tokens per parameter, or the best one of its loss."""

    own = "own"
    frontier = "frontier"


def _budgets(text: str) -> tuple[float, ...]:
    return tuple(options.number(part) for part in text.split(","))


_budgets.__name__ = "numbers"


def worth(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FIT|STUDY|RUNS",
            help="A fit's file or published:NAME; a study folder, whose fit and paired cells are asked; or a table of "
            "runs, for its paired cells alone.",
        ),
    ] = None,
    train_flops: Annotated[
        str | None,
        typer.Option(metavar="C[,C2,...]", help="Training budgets in FLOPs to compare at."),
    ] = None,
    n_experts: options.ExpertCounts = None,
    baseline_experts: Annotated[
        int, typer.Option(metavar="E", min=1, max=MOST_EXPERTS, help="The E that others are compared with.")
    ] = 1,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="FIT", help="Test the runs of --candidate against this fit: a file, or published:NAME."),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="RUNS", help="The runs of a method: a study folder or a table.")
    ] = None,
    against: Annotated[
        AgainstName,
        typer.Option(
            help="Compare a candidate with the baseline at the run's own tokens per parameter, or with the best "
            "baseline of its loss, of whatever size and tokens."
        ),
    ] = AgainstName.own,
    fit: Annotated[
        str | None, typer.Option(metavar="FIT", help="The fit of STUDY or RUNS. Default: the one under STUDY/fits.")
    ] = None,
    maps: options.Maps = None,
    where: options.Where = None,
    settings: options.Settings = None,
    serve_tokens: options.ServeTokens = None,
    device: serving_options.DeviceName = None,
    usd_per_hour: serving_options.UsdPerHour = None,
    training_speed: serving_options.TrainingSpeed = None,
    mfu: serving_options.Mfu = None,
    family: serving_options.Family = None,
    like: serving_options.Like = None,
    top_k: serving_options.TopK = None,
    figure: options.Figure = None,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Say what experts are worth: by which factor a dense model of equal loss takes more compute, time and money.

    C_base(L)/C at each budget for the best model of every E, with intervals, and whether that grows with the budget;
    of a study or table also from its cells, without a law. With --baseline and --candidate: whether a method's runs
    beat the baseline, with which probability, alone and extrapolated to --train-flops.
    """
    from analysis.fitting.fit_file import load_fit
    from analysis.tables.runs import read_runs
    from analysis.worth.asked import checked_budgets, question_of, read_source
    from analysis.worth.worth import with_pairs, worth_of_candidate, worth_of_fit, worth_of_runs
    from scaling.cli.show.worth import worth_page

    budgets = checked_budgets(() if train_flops is None else _budgets(train_flops))
    mapping = options.pairs(maps, "--map")
    speeds, service = None, dict[str, Any]()
    if device is not None:
        serving = serving_options.device_of(device, None, None, None, None, None, None, 512, 256)
        speeds, service = serving.speeds, {"service": serving.service}
    question = question_of(
        budgets,
        device=device,
        speed=training_speed,
        mfu=mfu,
        n_experts=options.whole_list(n_experts, "--n-experts"),
        reference_experts=baseline_experts,
        serve_tokens=serve_tokens or 0.0,
        usd_per_hour=usd_per_hour,
        settings=options.number_pairs(settings, "--set"),
        family=serving_options.family_of(family, like, top_k),
        **service,
    )
    if (baseline is None) != (candidate is None):
        raise InputError("--baseline and --candidate belong together: the fit of the one, the runs of the other")
    table: RunTable | None
    if baseline is not None and candidate is not None:
        if source is not None:
            raise InputError(f"give either {source} or --baseline and --candidate")
        table = read_runs(candidate, mapping, where)
        shape: Against = "own shape" if against is AgainstName.own else "frontier"
        found = worth_of_candidate(load_fit(baseline), table, question, budgets, against=shape, name=baseline)
    elif source is None:
        raise InputError("give a fit, a study folder or a table of runs; or --baseline FIT with --candidate RUNS")
    else:
        of = read_source(source, by_law=bool(budgets), fit=fit, mapping=mapping, where=where)
        table = of.table
        if of.fit is not None:
            found = with_pairs(worth_of_fit(of.fit, question, budgets, speeds, name=of.name), table)
        else:
            found = worth_of_runs(of.runs, baseline_experts)
    page = worth_page(found, table)
    if figure is not None:
        save_figure(found.plot(), figure)
    deliver(found.to_json(), page, as_json=as_json, out=out, verbose=verbose)
