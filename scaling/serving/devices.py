"""The device table, with a source for every row; this computer's CPU is measured.

Prices are placeholders with a source and a date; `read_devices` reads other prices and devices from a file. Other
distributions register devices with entry points of the group `scaling.devices`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from scaling.distribution import Registry
from scaling.errors import InputError
from scaling.numbers import parse_number
from scaling.serving.calibration import calibrate_cpu
from scaling.serving.device import MOST_OF_DEVICE, Device
from scaling.yaml_text import (
    YamlSource,
    YamlValue,
    did_you_mean,
    inner_value,
    parse_tree,
    plain,
    shown,
    shown_key,
    yaml_text,
)

_RUNPOD = "placeholder, replace it: RunPod, SXM, as quoted by deploybase.ai; other prices are .5 to 3 times this"
_RUNPOD_DATE, _UNDATED = "March 2026", "not dated"
_GOOGLE = "placeholder, replace it: Google Cloud US on-demand price per chip-hour, from memory, not checked"

# Links are half of the bidirectional rates in data sheets (NVLink 400, 600, 900, 1,800 GB/s; TPU 1,600 and
# 3,584 Gbit/s). A latency of 5 microseconds is assumed, and PCIe 4 with 16 lanes where no link is named. For Hopper
# and Blackwell, NVIDIA's sheets give peaks with 2:4 sparsity; the dense peak here is half of that.
_HOPPER, _BLACKWELL, _ULTRA = (
    (("fp8", 1978.9e12), ("int8", 1978.9e12)),
    (("fp8", 4.5e15), ("int8", 4.5e15), ("fp4", 9e15)),
    (("fp8", 4.5e15), ("fp4", 13.5e15)),
)
_GRACE = "placeholder, replace it: as the same GPU without Grace"
_TABLE = (
    Device("a100-40gb", "NVIDIA A100 SXM 40 GB", 312e12, 1.555e12, 40e9, 1.19, "bfloat16",
           "NVIDIA A100 data sheet (2020)", "placeholder, replace it: .85 of the 80 GB price", _RUNPOD_DATE, 300e9,
           peaks=(("int8", 624e12),)),
    Device("a100", "NVIDIA A100 SXM 80 GB", 312e12, 2.039e12, 80e9, 1.39, "bfloat16",
           "NVIDIA A100 80 GB data sheet", _RUNPOD, _RUNPOD_DATE, 300e9, peaks=(("int8", 624e12),)),
    Device("h100", "NVIDIA H100 SXM 80 GB", 989.4e12, 3.35e12, 80e9, 2.69, "bfloat16",
           "NVIDIA H100 data sheet (1,979 TFLOP/s with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 450e9, peaks=_HOPPER),
    Device("h800", "NVIDIA H800 SXM 80 GB", 989.4e12, 3.35e12, 80e9, 2.00, "bfloat16",
           "as H100 with NVLink of 400 GB/s (DeepSeek-V3, arXiv 2412.19437, section 3.1; arXiv 2505.09343, section 2)",
           "placeholder, replace it: the 2 USD of arXiv 2412.19437, table 1", "December 2024", 200e9, peaks=_HOPPER),
    Device("h200", "NVIDIA H200 SXM 141 GB", 989.4e12, 4.8e12, 141e9, 3.59, "bfloat16",
           "NVIDIA H200 data sheet (1,979 TFLOP/s with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 450e9, peaks=_HOPPER),
    Device("b200", "NVIDIA B200 SXM 180 GB", 2.25e15, 8e12, 180e9, 5.98, "bfloat16",
           "NVIDIA DGX B200 data sheet, an eighth of the system (4.5 PFLOP/s with sparsity, halved)", _RUNPOD,
           _RUNPOD_DATE, 900e9, peaks=_BLACKWELL),
    Device("b300", "NVIDIA B300 SXM 270 GB", 2.25e15, 8e12, 270e9, 7.00, "bfloat16",
           "NVIDIA DGX B300 data sheet, an eighth of the system (FP4 108 PFLOP/s dense)",
           "placeholder, replace it: a guess above B200", _UNDATED, 900e9, peaks=_ULTRA),
    Device("gb200", "NVIDIA GB200 NVL72, one GPU of 186 GB", 2.5e15, 8e12, 186e9, 5.98, "bfloat16",
           "NVIDIA GB200 NVL72 data sheet, a 72nd of the system (FP8 720, FP4 1,440 PFLOP/s with sparsity, halved)",
           _GRACE, _RUNPOD_DATE, 900e9, link_devices=72, peaks=(("fp8", 5e15), ("int8", 5e15), ("fp4", 10e15))),
    Device("gb300", "NVIDIA GB300 NVL72, one GPU of 279 GB", 2.5e15, 8e12, 279e9, 7.00, "bfloat16",
           "NVIDIA GB300 NVL72 data sheet, a 72nd of the system (FP4 1,080 PFLOP/s dense)", _GRACE, _UNDATED, 900e9,
           link_devices=72, peaks=(("fp8", 5e15), ("fp4", 15e15))),
    Device("tpu-v5e", "Google TPU v5e", 197e12, 800e9, 16e9, 1.20, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier: 819e9 bytes/s)", _GOOGLE, _UNDATED, 100e9, 5e-6, 256,
           peaks=(("int8", 394e12),)),
    Device("tpu-v6e", "Google TPU v6e (Trillium)", 918e12, 1600e9, 32e9, 2.70, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier: 1,640e9 bytes/s)", _GOOGLE, _UNDATED, 224e9, 5e-6, 256,
           peaks=(("int8", 1836e12),)),
)  # fmt: skip
_LEAST = {"peak_flops": 1e9, "bandwidth": 1e8, "memory": 1e8, "link": 1e7, "fabric": 1e7}  # less means a wrong unit
_TEXTS = [field.name for field in fields(Device) if field.type == "str"]
DEVICES = Registry("scaling.devices", Device, {row.name: row for row in _TABLE})


def names() -> tuple[str, ...]:
    """The names of all devices: those of the table, those of other distributions, and `cpu`."""
    return (*DEVICES, "cpu")


def device(name: str) -> Device:
    """The device of that name; `cpu` is measured on this computer (about a second, once per process).

    Raises InputError listing the names.
    """
    if name == "cpu":
        return calibrate_cpu()
    if name not in DEVICES:
        raise InputError(f"device: found {name!r}; allowed: {', '.join(names())}")
    return DEVICES[name]


def read_devices(path: str | Path) -> dict[str, Device]:
    """Devices from a YAML file, a mapping of names to fields of `Device`, which replace those of the table.

        h100: {usd_per_hour: 2.10, price_source: our contract, price_date: 2026-10-01}

    A price needs a source and a date. A name that is not in the table is a new device and also needs `peak_flops`,
    `bandwidth`, `memory`, `dtype` and `source`. Raises InputError naming line, column, device and field of every
    mistake.
    """
    source = YamlSource(Path(path))
    like = "expected devices by name, such as `h100: {usd_per_hour: 2.1, ...}`"
    top = parse_tree(yaml_text(source.path), source, like)
    if not isinstance(top.data, dict):
        source.fail(top, f"{like}, found {shown(plain(top))}")
        source.stop_if_wrong()
    read = {name: _device_of(name, entry, source) for name, entry in top.data.items()}
    source.stop_if_wrong()
    return {name: row for name, row in read.items() if row is not None}


def _device_of(name: str, entry: YamlValue, source: YamlSource) -> Device | None:
    """The device in an entry; None where something is wrong, which `source` then holds."""
    before = len(source.errors)
    if not isinstance(inner_value(entry).data, dict):
        source.fail(entry, f"{shown_key(name)}: must be fields of a device, such as {{usd_per_hour: 2.1, ...}}")
        return None
    allowed = [field.name for field in fields(Device) if field.name not in ("name", "levels")]
    values = {}
    for key, value in inner_value(entry).data.items():
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            source.fail(value, f"{name}: unknown field {shown_key(key)}{hint}; allowed: {', '.join(allowed)}")
            continue
        try:
            values[key] = _value(key, plain(value))
        except ValueError as error:
            source.fail(inner_value(value), f"{name}: {key} {error}")
    if len(source.errors) > before:
        return None
    needed = ["price_source", "price_date"] if "usd_per_hour" in values else []
    known = name in names()
    if not known:
        needed += ["peak_flops", "bandwidth", "memory", "dtype", "source", "usd_per_hour"]
    if lacking := [key for key in needed if key not in values]:
        source.fail(entry, f"{name}: {', '.join(lacking)} missing; a price needs price_source and price_date")
        return None
    return replace(device(name), **values) if known else Device(name=name, **{"title": name, **values})


def _value(key: str, value: Any) -> Any:
    """The value of a field, converted to its type. Raises ValueError if type or range are wrong."""
    if key in _TEXTS:
        if isinstance(value, (list, dict, bool)) or value is None:
            raise ValueError(f"must be a text, found {shown(value)}")
        return str(value)
    if key == "peaks":
        if not isinstance(value, dict):
            raise ValueError(f"must be FLOP/s by number format, such as {{fp8: 2e15}}, found {shown(value)}")
        return tuple((str(name), _value("peak_flops", flops)) for name, flops in value.items())
    if isinstance(value, (list, dict, bool)) or value is None:
        raise ValueError(f"must be a number, found {shown(value)}")
    try:
        number = parse_number(value)
    except ValueError:
        raise ValueError(f"must be a number, found {shown(value)}") from None
    if not 0 < number <= MOST_OF_DEVICE:
        raise ValueError(f"must be a positive number up to {MOST_OF_DEVICE:g}, found {shown(value)}")
    if number < _LEAST.get(key, 0.0):
        raise ValueError(f"must be at least {_LEAST[key]:g}, found {shown(value)}; use bytes and FLOP/s")
    return number
