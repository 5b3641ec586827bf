"""`scaling recommend`: which expert count, size and token budget."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Annotated

import typer

from scaling.bounds import MOST_EXPERTS
from scaling.cli import options, serving_options
from scaling.cli.options import number
from scaling.cli.output import deliver

_OF_LAWS = 6  # lines around the table of an ensemble's laws


class GoalName(enum.StrEnum):
    """The cost of training and serving, that of serving alone, or the loss."""

    lifetime = "lifetime"
    serving = "serving"
    loss = "loss"


def recommend(
    fit: options.FitArguments,
    train_flops: options.TrainFlops = None,
    train_usd: Annotated[
        float | None, typer.Option(metavar="USD", parser=number, help="Training budget in money.")
    ] = None,
    target_loss: options.TargetLoss = None,
    lifetime_cost: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            parser=number,
            help="Budget of training and serving together: FLOPs, or USD on a device.",
        ),
    ] = None,
    serve_tokens: options.ServeTokens = None,
    requests_per_month: Annotated[
        float | None,
        typer.Option(metavar="R", parser=number, help="The load instead of T, served by whole replicas."),
    ] = None,
    months: Annotated[
        float, typer.Option(parser=options.quantity("months"), help="Months of --requests-per-month.")
    ] = 12,
    minimise: Annotated[GoalName | None, typer.Option(help="What to minimise instead of the default below.")] = None,
    n_experts: options.ExpertCounts = None,
    memory_gb: options.MemoryGb = None,
    data_tokens: Annotated[
        float | None,
        typer.Option(metavar="D", parser=number, help="Unique training tokens available: an upper limit on D."),
    ] = None,
    usd_per_million: Annotated[
        float | None,
        typer.Option(metavar="USD", parser=number, help="Limit on the cost of a million output tokens."),
    ] = None,
    reference_experts: Annotated[
        int,
        typer.Option(
            metavar="E",
            min=1,
            max=MOST_EXPERTS,
            help="With a budget and a volume: match the loss of the best model with this E.",
        ),
    ] = 1,
    reference_fit: Annotated[
        str | None,
        typer.Option(metavar="FIT", help="Match instead the model that this fit makes of the budget, by FIT's loss."),
    ] = None,
    reference_model: Annotated[
        str | None, typer.Option(metavar="N,D", help="Match instead a model of N active parameters on D tokens.")
    ] = None,
    reference_loss: Annotated[
        float | None,
        typer.Option(
            metavar="L",
            parser=options.quantity("nats per token", "nats"),
            help="Match instead this loss: --target-loss, but within the budget.",
        ),
    ] = None,
    device: serving_options.DeviceName = None,
    devices: serving_options.Devices = None,
    usd_per_hour: serving_options.UsdPerHour = None,
    mfu: serving_options.Mfu = None,
    training_speed: serving_options.TrainingSpeed = None,
    latency: serving_options.Latency = None,
    throughput: serving_options.Throughput = None,
    bandwidth_share: serving_options.BandwidthShare = None,
    flops_share: serving_options.FlopsShare = None,
    speed: serving_options.Speed = None,
    family: serving_options.Family = None,
    like: serving_options.Like = None,
    top_k: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Experts of a token to compare, e.g. 1,2,4,8. Default: those the law knows."),
    ] = None,
    granularity: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Granularities G of experts to compare, as the law counts them."),
    ] = None,
    n_shared: Annotated[
        str | None,
        typer.Option("--shared", metavar="LIST", help="Shared experts to compare, e.g. 0,1,2."),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(metavar="FIT", help="Dense fit beside law leverage. Default: published:chinchilla-epoch."),
    ] = None,
    weights: serving_options.Weights = None,
    experts: serving_options.ExpertsIn = None,
    kv: serving_options.Kv = None,
    prompt: serving_options.Prompt = 512,
    generated: serving_options.Generated = 256,
    prefix_hit: serving_options.PrefixHit = None,
    drafted: serving_options.Drafted = None,
    accepted: serving_options.Accepted = None,
    apart: serving_options.Apart = False,
    utilisation: serving_options.Utilisation = 0.5,
    max_batch: serving_options.MaxBatch = None,
    max_devices: serving_options.MaxDevices = 64,
    max_fleet: serving_options.MaxFleet = None,
    ttft_s: serving_options.TtftLimit = None,
    tpot_s: serving_options.TpotLimit = None,
    skew: serving_options.Skew = None,
    reads_all: serving_options.ReadsAll = False,
    settings: options.Settings = None,
    rival: Annotated[
        list[str] | None,
        typer.Option(
            "--rival",
            metavar="FIT",
            help="A fit of another method, such as another router or kind of experts, to compare.",
        ),
    ] = None,
    weigh_by: Annotated[
        str | None,
        typer.Option(metavar="RUNS", help="Runs by which the laws of published:moe are weighed, each shifted to them."),
    ] = None,
    what_if: Annotated[
        bool, typer.Option("--what-if/--no-what-if", help="Also ask what would change the answer.")
    ] = True,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Recommend an expert count, a size and a token budget, with how certain that is.

    With --target-loss: least lifetime cost. With --train-flops: least loss; with --serve-tokens too: least lifetime
    cost among the models trained within the budget that are no worse than the best dense one, or another reference.
    With --lifetime-cost: least loss for that. With several FIT, or a law that reads the shape of experts: E, k and the
    width of an expert are chosen together. With --rival: the same of the best of several methods.

    published:moe is an ensemble of published MoE laws, for a plan without runs; --weigh-by weighs them by a few runs.
    """
    from analysis.decision.answer import answer, answer_document
    from analysis.decision.published_models import weighed_by
    from analysis.decision.question import Question
    from analysis.decision.reference import allocation_of
    from analysis.fitting.fit_file import load_fit, with_dense_beside
    from analysis.tables.runs import read_runs
    from analysis.training_speed import speeds
    from scaling.cli.show.progress import progress
    from scaling.cli.show.recommendation import LINES, recommendation_page

    names = with_dense_beside(fit, dense)
    fits = {name: load_fit(name) for name in (*names, *(rival or ()))}
    priced = serving_options.family_of(family, like, None)
    if weigh_by is not None:
        fits[names[0]] = weighed_by(fits[names[0]], read_runs(weigh_by), priced)
    serving = serving_options.device_of(
        device, devices, latency, throughput, bandwidth_share, flops_share, speed, prompt, generated
    )
    service = serving_options.served_as(serving, device, weights, experts, kv, prefix_hit, drafted, accepted, apart)
    named: dict[str, object] = {
        "latency": latency,
        "throughput": throughput,
        "devices": devices,
        "speed": speed,
        "training_speed": training_speed,
        "family": family,
        "like": like,
        "weights": weights,
        "experts": experts,
        "kv": kv,
        "weigh_by": weigh_by,
    }
    question = Question(
        train_flops=train_flops,
        train_usd=train_usd,
        target_loss=target_loss,
        lifetime_cost=lifetime_cost,
        serve_tokens=serve_tokens or 0.0,
        requests_per_month=requests_per_month,
        months=months,
        minimise=None if minimise is None else minimise.value,
        n_experts=options.whole_list(n_experts, "--n-experts"),
        memory_gb=memory_gb,
        data_tokens=data_tokens,
        usd_per_million=usd_per_million,
        reference_experts=reference_experts,
        reference_fit=None
        if reference_fit is None
        else allocation_of(load_fit(reference_fit), reference_fit, reference_experts),
        reference_model=options.pair(reference_model, "--reference-model"),
        reference_loss=reference_loss,
        device=device,
        rented=serving.rented,
        usd_per_hour=usd_per_hour,
        mfu=mfu,
        training_speed=speeds.training_speed(training_speed) if training_speed or device else None,
        settings=options.number_pairs(settings, "--set"),
        family=priced,
        top_k=options.whole_list(top_k, "--top-k"),
        granularity=options.number_list(granularity, "--granularity"),
        n_shared=options.whole_list(n_shared, "--shared", 0),
        service=replace(
            service,
            prompt=prompt,
            generated=generated,
            utilisation=utilisation,
            max_batch=max_batch,
            max_devices=max_devices,
            max_fleet=max_fleet,
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            skew=(fits[names[0]].router_skew or 0.0) if skew is None else skew,
            reads_all=reads_all or service.reads_all,
        ),
    )
    with progress("optimising") as report:
        found = answer(
            fits[names[0]],
            question,
            serving.speeds,
            law_file=names[0],
            of_other_k={name: fits[name] for name in names[1:]},
            compare_with={name: fits[name] for name in rival or ()},
            what_if=what_if,
            cost_curves=what_if and (as_json or out is not None),  # only a document holds them
            names={field: str(name) for field, name in named.items() if name is not None},
            progress=report,
        )
    page = recommendation_page(found)
    lines = LINES + (len(found.recommendation.laws) + _OF_LAWS if found.recommendation.laws else 0)
    deliver(answer_document(found), page, as_json=as_json, out=out, verbose=verbose, lines=lines)
