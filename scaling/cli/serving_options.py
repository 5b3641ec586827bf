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
Prompt = Annotated[int, typer.Option(metavar="P", parser=whole_number, help="Prompt tokens per request.")]
Generated = Annotated[int, typer.Option(metavar="N", parser=whole_number, help="Output tokens per request.")]
Utilisation = Annotated[
    float, typer.Option(parser=quantity("a share of 1"), help="Largest share of the time that replicas are busy.")
]
MaxBatch = Annotated[int, typer.Option(parser=whole_number, help="Most sequences in one replica at a time.")]
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
    if given:
        reached = Efficiency(
            bandwidth_share=ASSUMED.bandwidth_share if bandwidth_share is None else bandwidth_share,
            flops_share=ASSUMED.flops_share if flops_share is None else flops_share,
            source=f"{' and '.join(given)} as given, the rest assumed",
        )
    else:
        reached = ASSUMED
    return ServingDevice(rented, Service(efficiency=reached))


def _as_measured(latency: Path, name: str, rented: Device | None) -> ServingDevice:
    """The device that a latency law was measured on. Raises InputError where that is another than the one named."""
    from analysis.latency.law import load_latency_law
    from scaling.serving.service import SERVICE

    law = load_latency_law(latency)
    if law.device.name != name:
        raise InputError(f"--latency: {latency} was measured on {law.device.name}, not on --device {name}")
    # What a law was fitted against is what it is priced with: a CPU is measured anew at every look.
    return ServingDevice(rented or law.device, law.measured(SERVICE), law.speeds)


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
