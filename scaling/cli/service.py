"""Options of how a model is served, on what and at what price: shared by `recommend` and `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import number, optional
from scaling.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from scaling.hardware import Device
    from scaling.serving import Efficiency, Service

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
TtftMs = Annotated[
    str | None, typer.Option("--ttft-ms", metavar="MS", help="Limit on the time to the first token, without queueing.")
]
TpotMs = Annotated[str | None, typer.Option("--tpot-ms", metavar="MS", help="Limit on the time of a further token.")]
Skew = Annotated[
    str, typer.Option("--skew", help="How uneven the router is: loads fall as rank^-skew. 0: even, touches the most.")
]


def rented(name: str | None, devices: Path | None) -> Device | None:
    """The device of that name in a file, or None: that of the table is meant. Raises InputError where neither has it."""
    from scaling.hardware import NAMES, read_devices

    if devices is None:
        return None
    if name is None:
        raise InputError("--devices needs --device: which of them is rented?")
    found = read_devices(devices)
    if name not in found and name not in NAMES:
        raise InputError(
            f"--device {name}: neither in {devices} ({', '.join(found)}) nor in the table ({', '.join(NAMES)})"
        )
    return found.get(name)


def reached(
    latency: Path | None, bandwidth_share: str | None, flops_share: str | None
) -> tuple[Efficiency, npt.NDArray[np.float64] | None]:
    """The efficiency asked for, and draws of it where it was measured."""
    from scaling.serving import ASSUMED, Efficiency

    given = [name for name, value in (("bandwidth", bandwidth_share), ("flops", flops_share)) if value is not None]
    if latency is not None:
        from analysis.latency import load

        if given:
            raise InputError("give either --latency or --bandwidth-share and --flops-share")
        law = load(latency)
        return law.efficiency, law.coefficient_draws
    if not given:
        return ASSUMED, None
    return Efficiency(
        bandwidth_share=_or(bandwidth_share, "--bandwidth-share", ASSUMED.bandwidth_share),
        flops_share=_or(flops_share, "--flops-share", ASSUMED.flops_share),
        source=f"{' and '.join(given)} as given",
    ), None


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
    ttft_ms: str | None,
    tpot_ms: str | None,
    skew: str,
    efficiency: Efficiency,
) -> Service:
    """How requests are served, from the options."""
    from scaling.serving import Service

    first, further = optional(ttft_ms, "--ttft-ms"), optional(tpot_ms, "--tpot-ms")
    return Service(
        prompt=_whole(prompt, "--prompt"),
        generated=_whole(generated, "--generated"),
        utilisation=number(utilisation, "--utilisation"),
        max_batch=_whole(max_batch, "--max-batch"),
        max_devices=_whole(max_devices, "--max-devices"),
        ttft_s=None if first is None else first / 1e3,
        tpot_s=None if further is None else further / 1e3,
        skew=number(skew, "--skew"),
        efficiency=efficiency,
    )


def _whole(text: str, option: str) -> int:
    value = number(text, option)
    if not (value >= 1 and value == int(value)):
        raise InputError(f"{option} takes a whole number from 1, found {text}")
    return int(value)
