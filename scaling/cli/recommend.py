"""`scaling recommend`: which expert count, size and token budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import serving_options
from scaling.cli.options import FitArgument, Json, Settings, number, optional, settings_of, whole_list
from scaling.cli.output import note, print_json, write_json

_GOALS = ("lifetime", "serving", "loss")


def recommend(
    fit: FitArgument,
    train_flops: Annotated[str | None, typer.Option(metavar="C", help="Training budget in FLOPs.")] = None,
    train_usd: Annotated[str | None, typer.Option(metavar="USD", help="Training budget in money.")] = None,
    target_loss: Annotated[str | None, typer.Option(metavar="L", help="Loss to reach, nats per token.")] = None,
    lifetime_cost: Annotated[
        str | None,
        typer.Option(metavar="F", help="Budget of training and serving together: FLOPs, or USD on a device."),
    ] = None,
    serve_tokens: Annotated[str, typer.Option(metavar="T", help="Tokens served over the model's life.")] = "0",
    requests_per_month: Annotated[
        str | None, typer.Option(metavar="R", help="Instead of T: the load, which a device serves in whole replicas.")
    ] = None,
    months: Annotated[str, typer.Option(help="Months of --requests-per-month.")] = "12",
    minimise: Annotated[
        str | None, typer.Option(metavar="WHAT", help="lifetime, serving or loss, where the usual one is not wanted.")
    ] = None,
    n_experts: Annotated[
        str | None, typer.Option(metavar="LIST", help="Expert counts to compare, e.g. 1,4,8. Default: those studied.")
    ] = None,
    memory_gb: Annotated[
        str | None, typer.Option(metavar="M", help="Memory for weights and 16k cached tokens in bf16, GB = 1e9 bytes.")
    ] = None,
    data_tokens: Annotated[
        str | None, typer.Option(metavar="D", help="Tokens there are to train on: D is at most that.")
    ] = None,
    usd_per_million: Annotated[
        str | None, typer.Option(metavar="USD", help="The most that a million generated tokens may cost.")
    ] = None,
    reference_experts: Annotated[
        int, typer.Option(metavar="E", min=1, help="With a budget and a volume: keep the loss of this E's best model.")
    ] = 1,
    device: serving_options.DeviceName = None,
    devices: serving_options.Devices = None,
    usd_per_hour: serving_options.UsdPerHour = None,
    mfu: Annotated[
        str | None, typer.Option(help="Share of the device's peak that training reaches; without it .4.")
    ] = None,
    latency: serving_options.Latency = None,
    throughput: serving_options.Throughput = None,
    bandwidth_share: serving_options.BandwidthShare = None,
    flops_share: serving_options.FlopsShare = None,
    prompt: serving_options.Prompt = "512",
    generated: serving_options.Generated = "256",
    utilisation: serving_options.Utilisation = "0.5",
    max_batch: serving_options.MaxBatch = "256",
    max_devices: serving_options.MaxDevices = "64",
    max_fleet: serving_options.MaxFleet = None,
    ttft_ms: serving_options.TtftMs = None,
    tpot_ms: serving_options.TpotMs = None,
    skew: serving_options.Skew = None,
    reads_all: serving_options.ReadsAll = False,
    settings: Settings = None,
    rival: Annotated[
        list[str] | None,
        typer.Option("--rival", metavar="FIT", help="A fit of runs with another k, router or experts: which is best?"),
    ] = None,
    what_if: Annotated[
        bool, typer.Option("--what-if/--no-what-if", help="Also ask what would change the answer.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="File for the recommendation.")] = None,
    as_json: Json = False,
) -> None:
    """Recommend an expert count, a size and a token budget, and say how sure that is.

    With --target-loss: least lifetime cost. With --train-flops: least loss; with --serve-tokens too: least lifetime
    cost among the models trained within the budget that are no worse than the best dense one. With --lifetime-cost:
    least loss for that. With --rival: the same of the best of several fits.
    """
    from analysis.decision.fit_comparison import compare_fits
    from analysis.decision.question import Question
    from analysis.decision.recommend import recommend as ask
    from analysis.decision.what_if import explore
    from analysis.fitting.fit_file import load_fit
    from scaling.cli.show_recommendation import show_recommendation
    from scaling.errors import InputError

    if minimise is not None and minimise not in _GOALS:
        raise InputError(f"--minimise: found {minimise!r}; allowed: {', '.join(_GOALS)}")
    fits = {name: load_fit(name) for name in (fit, *(rival or ()))}
    shown, uneven = fits[fit].router_skew or 0.0, optional(skew, "--skew")
    on = serving_options.device_of(device, devices, latency, throughput, bandwidth_share, flops_share)
    question = Question(
        train_flops=optional(train_flops, "--train-flops"),
        train_usd=optional(train_usd, "--train-usd"),
        target_loss=optional(target_loss, "--target-loss"),
        lifetime_cost=optional(lifetime_cost, "--lifetime-cost"),
        serve_tokens=number(serve_tokens, "--serve-tokens"),
        requests_per_month=optional(requests_per_month, "--requests-per-month"),
        months=number(months, "--months"),
        minimise=minimise,  # type: ignore[arg-type]  # one of _GOALS
        n_experts=whole_list(n_experts, "--n-experts"),
        memory_gb=optional(memory_gb, "--memory-gb"),
        data_tokens=optional(data_tokens, "--data-tokens"),
        usd_per_million=optional(usd_per_million, "--usd-per-million"),
        reference_experts=reference_experts,
        device=device,
        rented=on.rented,
        usd_per_hour=optional(usd_per_hour, "--usd-per-hour"),
        mfu=optional(mfu, "--mfu"),
        settings=settings_of(settings),
        service=serving_options.service_of(
            prompt=prompt,
            generated=generated,
            utilisation=utilisation,
            max_batch=max_batch,
            max_devices=max_devices,
            max_fleet=max_fleet,
            ttft_ms=ttft_ms,
            tpot_ms=tpot_ms,
            skew=shown if uneven is None else uneven,
            reads_all=reads_all,
            on=on,
        ),
    )
    rivals = compare_fits(fits, question, on.speeds) if rival else None
    fitted = fits[rivals.rivals[0].name if rivals else fit]
    found = ask(fitted, question, on.speeds)
    document = found.to_json() | {
        "rivals": rivals.to_json() if rivals else None,
        "what_if": explore(fitted, question, found).to_json() if what_if else None,
    }
    if out is not None:
        write_json(out, document)
    for warning in found.warnings:
        note(f"warning: {warning}")
    if as_json:
        print_json(document)
    else:
        show_recommendation(found, document["what_if"], document["rivals"])
