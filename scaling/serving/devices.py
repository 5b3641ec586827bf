"""The device table, with a source for every row; this computer's CPU is measured.

Prices are placeholders with a source and a date; `read_devices` reads other prices and devices from a file. Other
distributions register devices with entry points of the group `scaling.devices`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scaling.distribution import Registry
from scaling.errors import InputError
from scaling.serving.calibration import calibrate_cpu
from scaling.serving.device import Device

_RUNPOD = "placeholder, replace it: RunPod, SXM, as quoted by deploybase.ai; other prices are .5 to 3 times this"
_RUNPOD_DATE, _UNDATED = "March 2026", "not dated"
_GOOGLE = "placeholder, replace it: Google Cloud US on-demand price per chip-hour, from memory, not checked"

# Links are half of the bidirectional rates in data sheets (NVLink 600, 900, 1,800 GB/s; TPU interconnects 1,600 and
# 3,584 Gbit/s). A latency of 5 microseconds is assumed, and PCIe 4 with 16 lanes where no link is named. For Hopper
# and Blackwell, NVIDIA's sheets give bf16 with 2:4 sparsity; the dense peak here is half of that.
_TABLE = (
    Device("a100-40gb", "NVIDIA A100 SXM 40 GB", 312e12, 1.555e12, 40e9, 1.19, "bfloat16",
           "NVIDIA A100 data sheet (2020)", "placeholder, replace it: .85 of the 80 GB price", _RUNPOD_DATE, 300e9),
    Device("a100", "NVIDIA A100 SXM 80 GB", 312e12, 2.039e12, 80e9, 1.39, "bfloat16",
           "NVIDIA A100 80 GB data sheet", _RUNPOD, _RUNPOD_DATE, 300e9),
    Device("h100", "NVIDIA H100 SXM 80 GB", 989.4e12, 3.35e12, 80e9, 2.69, "bfloat16",
           "NVIDIA H100 data sheet (1,979e12 with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 450e9),
    Device("h200", "NVIDIA H200 SXM 141 GB", 989.4e12, 4.8e12, 141e9, 3.59, "bfloat16",
           "NVIDIA H200 data sheet (1,979e12 with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 450e9),
    Device("b200", "NVIDIA B200 SXM 180 GB", 2.25e15, 8e12, 180e9, 5.98, "bfloat16",
           "NVIDIA DGX B200 data sheet, an eighth of the system (4.5e15 with sparsity, halved)", _RUNPOD, _RUNPOD_DATE,
           900e9),
    Device("tpu-v5e", "Google TPU v5e", 197e12, 800e9, 16e9, 1.20, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier: 819e9 bytes/s)", _GOOGLE, _UNDATED, 100e9, 5e-6, 256),
    Device("tpu-v6e", "Google TPU v6e (Trillium)", 918e12, 1600e9, 32e9, 2.70, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier: 1,640e9 bytes/s)", _GOOGLE, _UNDATED, 224e9, 5e-6, 256),
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
    `bandwidth`, `memory`, `dtype` and `source`. Raises InputError naming the file, the device and the field.
    """
    try:
        devices = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(devices, dict) or not all(isinstance(row, dict) for row in devices.values()):
        raise InputError(f"{path}: expected devices by name, such as `h100: {{usd_per_hour: 2.1, ...}}`")
    return {str(name): _device_of(str(name), row, f"{path}: {name}") for name, row in devices.items()}


def _device_of(name: str, row: dict[str, Any], place: str) -> Device:
    allowed = [field.name for field in fields(Device) if field.name not in ("name", "levels")]
    for key in row:
        if key not in allowed:
            raise InputError(f"{place}: unknown field {key}; allowed: {', '.join(allowed)}")
    values = {key: _value(key, value, place) for key, value in row.items()}
    needed = ["price_source", "price_date"] if "usd_per_hour" in values else []
    known = name in names()
    if not known:
        needed += ["peak_flops", "bandwidth", "memory", "dtype", "source", "usd_per_hour"]
    if lacking := [key for key in needed if key not in values]:
        raise InputError(f"{place}: {', '.join(lacking)} missing; a price needs price_source and price_date")
    return replace(device(name), **values) if known else Device(name=name, **{"title": name, **values})


def _value(key: str, value: Any, place: str) -> Any:
    """The value of a field, converted to its type. Raises InputError if type or range are wrong."""
    text = key in _TEXTS
    if value is None or (isinstance(value, bool) and not text):
        raise InputError(f"{place}: {key} must be a {'text' if text else 'number'}, found {value!r}")
    if text:
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{place}: {key} must be a number, found {value!r}") from None
    if not (np.isfinite(number) and number > 0):
        raise InputError(f"{place}: {key} must be a positive number, found {value!r}")
    if number < _LEAST.get(key, 0.0):
        raise InputError(f"{place}: {key} must be at least {_LEAST[key]:g}, found {value!r}; use bytes and FLOP/s")
    return number
