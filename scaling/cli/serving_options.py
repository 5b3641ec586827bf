"""Options of how a model is served, on what and at what price: which device, at what price, how fast, for which
requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import number, optional
from scaling.errors import InputError

if TYPE_CHECKING:
    from analysis.latency.speeds import Speeds
    from scaling.serving.device import Device
    from scaling.serving.service import Service
    from scaling.serving.step_time import Efficiency


DeviceName = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="Count cost in USD on this device (h100, ...).")
]
Devices = Annotated[
    Path | None,
    typer.Option("--devices", metavar="FILE", help="YAML of devices and prices that replace or extend the table's."),
]
UsdPerHour = Annotated[
    str | None, typer.Option("--usd-per-hour", help="Rent of one device, USD per hour, instead of the table's.")
]
Latency = Annotated[
    Path | None,
    typer.Option("--latency", metavar="FILE", help="What the device reaches, as `scaling latency --out` wrote it."),
]
BandwidthShare = Annotated[
    str | None, typer.Option("--bandwidth-share", help="Share of the device's bytes/s that is reached; without it .6.")
]
FlopsShare = Annotated[
    str | None, typer.Option("--flops-share", help="Share of its FLOP/s that serving reaches; without it .4.")
]
Prompt = Annotated[str, typer.Option("--prompt", metavar="P", help="Tokens that a request brings.")]
Generated = Annotated[str, typer.Option("--generated", metavar="N", help="Tokens that a request takes.")]
Utilisation = Annotated[str, typer.Option("--utilisation", help="Share of the time that replicas are busy, at most.")]
MaxBatch = Annotated[str, typer.Option("--max-batch", help="Sequences that a replica holds at once, at most.")]
MaxDevices = Annotated[str, typer.Option("--max-devices", help="Devices of a replica, at most.")]
MaxFleet = Annotated[
    str | None, typer.Option("--max-fleet", help="Devices of all replicas together, with --requests-per-month.")
]
TtftMs = Annotated[
    str | None, typer.Option("--ttft-ms", metavar="MS", help="Limit on the time to the first token, without queueing.")
]
TpotMs = Annotated[str | None, typer.Option("--tpot-ms", metavar="MS", help="Limit on the time of a further token.")]
Skew = Annotated[
    str | None,
    typer.Option(
        "--skew",
        help="How uneven the router is: loads fall as rank^-skew. 0: even, touches the most. Default: as the runs showed.",
    ),
]
ReadsAll = Annotated[
    bool, typer.Option("--reads-all", help="The kernel of the experts reads all of them, whichever are touched.")
]
Throughput = Annotated[
    Path | None,
    typer.Option(
        "--throughput", metavar="TABLE", help="Somebody's measured tokens/s, tpot or ttft: scales what is assumed."
    ),
]


@dataclass(frozen=True)
class ServingDevice:
    """What is rented (None: the table's device of that name), what it reaches, and what a measurement of that knows
    beside: draws, the bytes of a number, the attention and the kernel of the experts that were measured."""

    rented: Device | None
    efficiency: Efficiency
    speeds: Speeds | None = None
    number_bytes: float = 2.0
    head_width: float = 0.0
    reads_all: bool = False
    loops: bool = False


def device_of(
    name: str | None,
    devices: Path | None,
    latency: Path | None,
    throughput: Path | None,
    bandwidth_share: str | None,
    flops_share: str | None,
) -> ServingDevice:
    """The device and its efficiency from the options. Raises InputError where they contradict each other."""
    from scaling.serving.service import NUMBER_BYTES
    from scaling.serving.step_time import ASSUMED, Efficiency

    found = _from_file(name, devices)
    given = {
        "--latency": latency,
        "--throughput": throughput,
        "--bandwidth-share": bandwidth_share,
        "--flops-share": flops_share,
    }
    options = [option for option, value in given.items() if value is not None]
    if options and name is None:
        raise InputError(f"{options[0]} needs --device: without one, cost is in FLOPs")
    if len(options) > 1 and options != ["--bandwidth-share", "--flops-share"]:
        raise InputError(f"{' and '.join(options)} say the same: give one")
    if latency is not None:
        from analysis.latency.law import load_latency_law

        law = load_latency_law(latency)
        if law.device.name != name:
            raise InputError(f"--latency: {latency} was measured on {law.device.name}, not on --device {name}")
        # What a law was fitted against is what it is priced with: a CPU is measured anew at every look.
        rented = law.device if found is None else found
        measured = (law.head_width, law.reads_all, law.loops)
        return ServingDevice(rented, law.efficiency, law.speeds, NUMBER_BYTES[law.dtype], *measured)
    if throughput is not None:
        from analysis.latency.reported_throughput import measured_throughput
        from analysis.tables.readers import read_table as table_of
        from scaling.serving.devices import device

        return ServingDevice(
            found, measured_throughput(table_of(throughput), found or device(str(name)), source=str(throughput))
        )
    if not options:
        return ServingDevice(found, ASSUMED)
    reached = Efficiency(
        bandwidth_share=_or(bandwidth_share, "--bandwidth-share", ASSUMED.bandwidth_share),
        flops_share=_or(flops_share, "--flops-share", ASSUMED.flops_share),
        source=f"{' and '.join(options)} as given, the rest assumed",
    )
    return ServingDevice(found, reached)


def _from_file(name: str | None, devices: Path | None) -> Device | None:
    from scaling.serving.devices import NAMES, read_devices

    if devices is None:
        return None
    if name is None:
        raise InputError("--devices needs --device: which of them is rented?")
    found = read_devices(devices)
    if name not in found and name not in NAMES:
        known = f"{devices} ({', '.join(found)}) nor in the table ({', '.join(NAMES)})"
        raise InputError(f"--device {name}: neither in {known}")
    return found.get(name)


def _or(text: str | None, option: str, default: float) -> float:
    found = optional(text, option)
    return default if found is None else found


def service_of(
    *,
    prompt: str,
    generated: str,
    utilisation: str,
    max_batch: str,
    max_devices: str,
    max_fleet: str | None,
    ttft_ms: str | None,
    tpot_ms: str | None,
    skew: float,
    reads_all: bool,
    on: ServingDevice,
) -> Service:
    """How requests are served, from the options."""
    from scaling.serving.service import Service

    first, further = optional(ttft_ms, "--ttft-ms"), optional(tpot_ms, "--tpot-ms")
    return Service(
        prompt=_whole(prompt, "--prompt"),
        generated=_whole(generated, "--generated"),
        utilisation=number(utilisation, "--utilisation"),
        max_batch=_whole(max_batch, "--max-batch"),
        max_devices=_whole(max_devices, "--max-devices"),
        max_fleet=None if max_fleet is None else _whole(max_fleet, "--max-fleet"),
        ttft_s=None if first is None else first / 1e3,
        tpot_s=None if further is None else further / 1e3,
        skew=skew,
        head_width=on.head_width,
        reads_all=reads_all or on.reads_all,
        loops=on.loops,
        bytes_per_weight=on.number_bytes,
        bytes_per_kv=on.number_bytes,
        efficiency=on.efficiency,
    )


def _whole(text: str, option: str) -> int:
    value = number(text, option)
    if not (1 <= value < 1e15 and value == int(value)):
        raise InputError(f"{option} takes a whole number from 1, found {text}")
    return int(value)
