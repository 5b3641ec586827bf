"""Options of how a model is served: on which device, at what price, how fast, for which requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import quantity, whole_number
from scaling.errors import InputError

if TYPE_CHECKING:
    from analysis.latency.speeds import Speeds
    from scaling.serving.device import Device
    from scaling.serving.families import ArchitectureFamily
    from scaling.serving.service import Service


def _milliseconds(text: str | float) -> float:
    """Seconds of an option in milliseconds. Raises BadParameter."""
    return quantity("ms", "milliseconds")(text) / 1e3


DeviceName = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="Count cost in USD on this device (h100, ...).")
]
Devices = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML of devices and prices that replace or extend the table's.")
]
UsdPerHour = Annotated[
    float | None,
    typer.Option(
        parser=quantity("USD per hour", "USD"),
        help="Rent of one device in USD per hour. Default: the price in the device table.",
    ),
]
Latency = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Measured efficiency of the device: a file that `scaling latency --out` wrote."),
]
BandwidthShare = Annotated[
    float | None,
    typer.Option(parser=quantity("a share of 1"), help="Achieved share of the memory bandwidth. Default: 0.6."),
]
FlopsShare = Annotated[
    float | None,
    typer.Option(parser=quantity("a share of 1"), help="Achieved share of the peak FLOP/s in serving. Default: 0.4."),
]
Speed = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Speed of the serving engine: published:vllm-h100, assumed, or a file that `scaling latency --out` wrote. "
        "Default: the device's published speed where it has one.",
    ),
]
TrainingSpeed = Annotated[
    str | None,
    typer.Option(
        "--training-speed",
        metavar="NAME|FILE",
        help="What training takes on the device: assumed (MFU falls with E as published), constant (one MFU for all "
        "E), published:NAME, or a file of `scaling training-speed`. Default: assumed.",
    ),
]
Mfu = Annotated[
    float | None,
    typer.Option(
        parser=quantity("a share of 1"), help="Model FLOPs utilisation (MFU) of training at E = 1. Default: 0.4."
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="Number format of weights: bf16, fp8, nvfp4, mxfp4, int4, ... Default: bf16."),
]
ExpertsIn = Annotated[
    str | None, typer.Option("--experts-in", metavar="FORMAT", help="That of routed experts. Default: as --weights.")
]
Kv = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="That of cached keys and values: bf16, fp8, ... Default: bf16.")
]
Family = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Price models built as this lineage: mixtral, deepseek, qwen3, gpt-oss, llama, olmoe. Default: the fit's "
        "own, with multi-head attention.",
    ),
]
Like = Annotated[
    Path | None, typer.Option(metavar="CONFIG", help="The same with the proportions of a model's config.json.")
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="K", parser=whole_number, help="Experts of a token in --family, instead of its k."),
]
PrefixHit = Annotated[
    float | None,
    typer.Option(parser=quantity("a share of 1"), help="Share of prompt tokens whose keys and values are cached."),
]
Drafted = Annotated[
    int | None,
    typer.Option(metavar="G", parser=whole_number, help="Tokens that speculative decoding drafts in a step."),
]
Accepted = Annotated[
    float | None,
    typer.Option(parser=quantity("a share of 1"), help="Chance that a drafted token is accepted, with --drafted."),
]
Apart = Annotated[bool, typer.Option("--apart", help="Prompts are read by other devices than those that decode.")]
Prompt = Annotated[int, typer.Option(metavar="P", parser=whole_number, help="Prompt tokens per request.")]
Generated = Annotated[int, typer.Option(metavar="N", parser=whole_number, help="Output tokens per request.")]
Utilisation = Annotated[
    float, typer.Option(parser=quantity("a share of 1"), help="Largest share of the time that replicas are busy.")
]
MaxBatch = Annotated[
    int | None,
    typer.Option(
        parser=whole_number,
        help="Most sequences in one replica at a time. Default: as many as memory and the limits on latency leave.",
    ),
]
MaxDevices = Annotated[int, typer.Option(parser=whole_number, help="Most devices of one replica.")]
MaxFleet = Annotated[
    int | None, typer.Option(parser=whole_number, help="Most devices of all replicas, with --requests-per-month.")
]
TtftLimit = Annotated[
    float | None,
    typer.Option(
        "--ttft-ms", metavar="MS", parser=_milliseconds, help="Limit on time to first token, without queueing."
    ),
]
TpotLimit = Annotated[
    float | None,
    typer.Option("--tpot-ms", metavar="MS", parser=_milliseconds, help="Limit on time per output token."),
]
Skew = Annotated[
    float | None,
    typer.Option(
        parser=quantity("an exponent"),
        help="Imbalance of the router: loads fall as rank^-skew. 0 is balanced, which activates the most experts. "
        "Default: as measured in the runs.",
    ),
]
ReadsAll = Annotated[
    bool, typer.Option("--reads-all", help="The expert kernel reads all experts, whichever are activated.")
]
Throughput = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE", help="Published measurements of tokens/s, TPOT or TTFT, which scale the assumed efficiency."
    ),
]


@dataclass(frozen=True)
class ServingDevice:
    """What is rented (None: the table's device of that name), and how it serves: what it reaches and, where that was
    measured, the bytes of a number, the attention and the kernel of the experts; `speeds` are the draws behind it."""

    rented: Device | None
    service: Service
    speeds: Speeds | None = None


def device_of(
    name: str | None,
    devices: Path | None,
    latency: Path | None,
    throughput: Path | None,
    bandwidth_share: float | None,
    flops_share: float | None,
    speed: str | None,
    prompt: int,
    generated: int,
) -> ServingDevice:
    """The device and its efficiency from the options; `prompt` and `generated` are the lengths of a request where a
    table of measurements has none. Raises InputError where they contradict each other."""
    from scaling.serving.devices import device
    from scaling.serving.service import Service
    from scaling.serving.step_time import ASSUMED, Efficiency

    rented = _from_file(name, devices)
    values = {
        "--latency": latency,
        "--throughput": throughput,
        "--bandwidth-share": bandwidth_share,
        "--flops-share": flops_share,
        "--speed": speed,
    }
    given = [option for option, value in values.items() if value is not None]
    if given and name is None:
        raise InputError(f"{given[0]} needs --device: without one, cost is in FLOPs")
    if len(given) > 1 and given != ["--bandwidth-share", "--flops-share"]:
        raise InputError(f"{' and '.join(given)} say the same: give one")
    if latency is not None:
        return _as_measured(latency, str(name), rented)
    if throughput is not None:
        from analysis.latency.reported_throughput import measured_throughput
        from analysis.tables.readers import read_table

        asked = Service(prompt=prompt, generated=generated)
        on = rented or device(str(name))
        return ServingDevice(rented, measured_throughput(read_table(throughput), on, asked, str(throughput)))
    if bandwidth_share is not None or flops_share is not None:
        reached = Efficiency(
            bandwidth_share=ASSUMED.bandwidth_share if bandwidth_share is None else bandwidth_share,
            flops_share=ASSUMED.flops_share if flops_share is None else flops_share,
            source=f"{' and '.join(given)} as given, the rest assumed",
        )
        return ServingDevice(rented, Service(efficiency=reached))
    if name is None:
        return ServingDevice(rented, Service())
    from analysis.latency.speeds import with_speed

    return ServingDevice(rented, *with_speed(Service(), name, speed))


def _as_measured(latency: Path, name: str, rented: Device | None) -> ServingDevice:
    """The device that a latency law was measured on. Raises InputError where that is another than the one named."""
    from analysis.latency.law import load_latency_law
    from scaling.serving.service import SERVICE

    law = load_latency_law(latency)
    if law.device.name != name:
        raise InputError(f"--latency: {latency} was measured on {law.device.name}, not on --device {name}")
    # What a law was fitted against is what it is priced with: a CPU is measured anew at every look.
    return ServingDevice(rented or law.device, law.measured(SERVICE), law.speeds)


def speeds_of(service: Service, device: str | None, latency: Path | None) -> Speeds | None:
    """Draws of the speed at which a question was asked: those of its engine, or of the latency law that it was measured
    by; None where nothing was measured. Raises InputError for a law of another device."""
    if latency is not None:
        return _as_measured(latency, str(device), None).speeds
    if device is None or service.engine is None:
        return None
    from analysis.latency.speeds import with_speed

    return with_speed(service, device)[1]


def _from_file(name: str | None, devices: Path | None) -> Device | None:
    from scaling.serving.devices import names, read_devices

    if devices is None:
        return None
    if name is None:
        raise InputError("--devices needs --device: which of them is rented?")
    of_file = read_devices(devices)
    if name not in of_file and name not in names():
        raise InputError(
            f"--device {name}: neither in {devices} ({', '.join(of_file)}) nor in the table ({', '.join(names())})"
        )
    return of_file.get(name)


def served_as(
    serving: ServingDevice,
    name: str | None,
    weights: str | None,
    experts: str | None,
    kv: str | None,
    prefix_hit: float | None,
    drafted: int | None,
    accepted: float | None,
    apart: bool,
) -> Service:
    """The service with the precision and the ways of serving that the options name.

    Raises InputError where they contradict each other, need a device, or need what the device lacks.
    """
    from dataclasses import replace

    from scaling.serving.devices import device
    from scaling.serving.precision import served_in

    needing = {"--weights": weights, "--experts-in": experts, "--kv": kv, "--drafted": drafted, "--apart": apart}
    given = [option for option, value in needing.items() if value]
    if given and name is None:
        raise InputError(f"{given[0]} needs --device: without one, cost is in FLOPs")
    if (drafted is None) != (accepted is None):
        raise InputError("--drafted and --accepted belong together: how many tokens are drafted, and how many are kept")
    service = serving.service
    if given:
        on = serving.rented or device(str(name))
        service = served_in(service, on, weights=weights, experts=experts, kv=kv)
    return replace(
        service,
        prefix_hit=prefix_hit or service.prefix_hit,
        drafted=drafted or service.drafted,
        accepted=accepted or service.accepted,
        apart=apart or service.apart,
    )


def family_of(family: str | None, like: Path | None, top_k: int | None) -> ArchitectureFamily | None:
    """The family that is priced; None: the fit's own. Raises InputError where the options contradict each other."""
    from scaling.serving.families import architecture_family, family_like
    from scaling.serving.hub_config import read_hub_config

    if family is not None and like is not None:
        raise InputError("--family and --like say the same: give one")
    if family is not None:
        return architecture_family(family, top_k)
    if like is not None:
        return family_like(read_hub_config(like), top_k)
    if top_k is not None:
        raise InputError("--top-k needs --family or --like: the k of the fit's own models is that of its runs")
    return None
