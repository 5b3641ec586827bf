"""`scaling serve`: what a model costs to serve on a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.bounds import MOST_EXPERTS
from scaling.cli import options, serving_options
from scaling.cli.options import number
from scaling.cli.output import deliver
from scaling.errors import InputError

if TYPE_CHECKING:
    from scaling.architecture import Architecture


def serve(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A public model by name, or a config.json. Else --family and sizes."),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="The device (h100, h200, ...).")] = None,
    devices: serving_options.Devices = None,
    usd_per_hour: serving_options.UsdPerHour = None,
    speed: serving_options.Speed = None,
    latency: serving_options.Latency = None,
    throughput: serving_options.Throughput = None,
    bandwidth_share: serving_options.BandwidthShare = None,
    flops_share: serving_options.FlopsShare = None,
    weights: serving_options.Weights = None,
    experts: serving_options.ExpertsIn = None,
    kv: serving_options.Kv = None,
    prompt: serving_options.Prompt = 1024,
    generated: serving_options.Generated = 1024,
    prefix_hit: serving_options.PrefixHit = None,
    drafted: serving_options.Drafted = None,
    accepted: serving_options.Accepted = None,
    apart: serving_options.Apart = False,
    utilisation: serving_options.Utilisation = 1.0,
    max_batch: serving_options.MaxBatch = None,
    max_devices: serving_options.MaxDevices = 64,
    ttft_s: serving_options.TtftLimit = None,
    tpot_s: serving_options.TpotLimit = None,
    skew: serving_options.Skew = None,
    reads_all: serving_options.ReadsAll = False,
    family: serving_options.Family = None,
    like: serving_options.Like = None,
    top_k: serving_options.TopK = None,
    n_active: Annotated[
        float | None, typer.Option(metavar="N", parser=number, help="Active parameters of a model of --family.")
    ] = None,
    n_experts: Annotated[int | None, typer.Option(metavar="E", min=1, max=MOST_EXPERTS, help="Its experts.")] = None,
    out: options.Document = None,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """What a model costs to serve: latency, speed and price at concurrencies of 1, 2, 4, ... as far as memory allows.

    At each the cheapest layout over devices; and over all of them the front of tokens/s for a user against tokens/s of
    a device. Prices of input and output tokens split a device's rent by its time. Intervals are 95 %.
    """
    from analysis.decision.serve import serve as served
    from scaling.cli.show.serve import serving_page
    from scaling.serving.devices import device as device_named
    from scaling.values import plain

    described = _model(model, family, like, top_k, n_active, n_experts)
    if device is None:
        raise InputError("--device says on what it is served: h100, h200, ...")
    serving = serving_options.device_of(
        device, devices, latency, throughput, bandwidth_share, flops_share, speed, prompt, generated
    )
    service = serving_options.served_as(serving, device, weights, experts, kv, prefix_hit, drafted, accepted, apart)
    on = serving.rented or device_named(device)
    if usd_per_hour is not None:
        on = replace(on, usd_per_hour=usd_per_hour, price_source="as given", price_date="when this was asked")
    service = replace(
        service,
        prompt=prompt,
        generated=generated,
        utilisation=utilisation,
        max_batch=max_batch,
        max_devices=max_devices,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        skew=skew or 0.0,
        reads_all=reads_all or service.reads_all,
    )
    found = served(described, on, service, serving.speeds)
    deliver(plain(found), serving_page(found), as_json=as_json, out=out, verbose=verbose)


def _model(
    model: str | None,
    family: str | None,
    like: Path | None,
    top_k: int | None,
    n_active: float | None,
    n_experts: int | None,
) -> Architecture:
    """The model that the argument names, or one of a family. Raises InputError where neither or both are given."""
    from scaling.serving.families import read_model

    of_family = serving_options.family_of(family, like, top_k)
    if model is None and of_family is not None and n_active is not None:
        return of_family.model(n_active, n_experts)
    if model is None or of_family is not None or n_active is not None or n_experts is not None:
        raise InputError("name a model, or give --family (or --like) with --n-active and --n-experts")
    return read_model(model)
