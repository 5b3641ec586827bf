"""Devices: peak FLOP/s, bytes/s, memory, links and a default price, with a source for every row; this CPU is measured.

Prices are placeholders with a source and a date; `read_devices` takes others, or other devices, from a file.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from scaling.errors import InputError

BUSY = 0.1
"""Cores kept busy by others beyond which a measurement was not made alone."""


@dataclass(frozen=True)
class Device:
    """One accelerator, or this computer's CPU.

    `peak_flops`: dense (never sparse) FLOP/s of matrix products in `dtype`. `bandwidth`: bytes/s of main memory.
    `memory`: bytes. `usd_per_hour`: rent of one device, `price_source` and `price_date`: whose, and of when. `link`:
    bytes/s that one device sends to its neighbours in one direction, `link_latency_s`: of one transfer, `link_devices`: how
    many are joined by it; more of them send at `fabric` bytes/s, an assumption: 400 Gbit/s a device. `levels`: caches,
    (bytes, bytes/s) each, the smallest first.
    """

    name: str
    title: str
    peak_flops: float
    bandwidth: float
    memory: float
    usd_per_hour: float
    dtype: str
    source: str
    price_source: str
    price_date: str = "not dated"
    link: float = 25e9
    link_latency_s: float = 5e-6
    link_devices: float = 8
    fabric: float = 50e9
    levels: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Device:
        """The device that `dataclasses.asdict` wrote, by way of JSON. Raises as the constructor does."""
        levels = tuple((float(size), float(speed)) for size, speed in data.get("levels", ()))
        return cls(**{**data, "levels": levels})

    def bandwidth_of(self, working_set: float | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Bytes/s of the smallest level of memory that holds so many bytes; main memory's beyond all caches."""
        found = np.full(np.shape(working_set), self.bandwidth)
        for size, speed in reversed(self.levels):
            found = np.where(np.asarray(working_set) <= size, np.maximum(speed, self.bandwidth), found)
        return found


_RUNPOD = "placeholder, replace it: RunPod, SXM, as quoted by deploybase.ai; others ask .5 to 3 times it"
_RUNPOD_DATE = "March 2026"
_GOOGLE = "placeholder, replace it: Google Cloud US on-demand price per chip-hour, from memory, not checked"
_VCPU_USD_PER_HOUR = 0.05
_VCPU = f"placeholder, replace it: ${_VCPU_USD_PER_HOUR} per core-hour, the order of what clouds ask, from memory"

# Links are half of what the sheets print for both directions together (NVLink 600, 900, 1,800 GB/s; interconnects of TPUs 1,600
# and 3,584 Gbit/s). Their latency is an assumption, 5 microseconds, as is the link where none is named (PCIe 4, 16 lanes).
# NVIDIA's sheets print bf16 with 2:4 sparsity for Hopper and Blackwell; the dense peak here is half of that.
_TABLE = (
    Device("a100-40gb", "NVIDIA A100 SXM 40 GB", 312e12, 1.555e12, 40e9, 1.19, "bfloat16",
           "NVIDIA A100 data sheet (2020)", "placeholder, replace it: .85 of the 80 GB model's", _RUNPOD_DATE, 300e9),
    Device("a100", "NVIDIA A100 SXM 80 GB", 312e12, 2.039e12, 80e9, 1.39, "bfloat16",
           "NVIDIA A100 80 GB data sheet", _RUNPOD, _RUNPOD_DATE, 300e9),
    Device("h100", "NVIDIA H100 SXM 80 GB", 989.4e12, 3.35e12, 80e9, 2.69, "bfloat16",
           "NVIDIA H100 data sheet (1,979e12 with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 450e9),
    Device("h200", "NVIDIA H200 SXM 141 GB", 989.4e12, 4.8e12, 141e9, 3.59, "bfloat16",
           "NVIDIA H200 data sheet (1,979e12 with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 450e9),
    Device("b200", "NVIDIA B200 SXM 180 GB", 2.25e15, 8e12, 180e9, 5.98, "bfloat16",
           "NVIDIA DGX B200 data sheet, an eighth of the system (4.5e15 with sparsity, halved)", _RUNPOD, _RUNPOD_DATE, 900e9),
    Device("tpu-v5e", "Google TPU v5e", 197e12, 800e9, 16e9, 1.20, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier: 819e9 bytes/s)", _GOOGLE, "not dated", 100e9, 5e-6, 256),
    Device("tpu-v6e", "Google TPU v6e (Trillium)", 918e12, 1600e9, 32e9, 2.70, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier: 1,640e9 bytes/s)", _GOOGLE, "not dated", 224e9, 5e-6, 256),
)  # fmt: skip
_LEAST = {"peak_flops": 1e9, "bandwidth": 1e8, "memory": 1e8, "link": 1e7, "fabric": 1e7}  # below, a unit was mistaken
NAMES = (*(row.name for row in _TABLE), "cpu")


def device(name: str) -> Device:
    """The device of that name; `cpu` is measured on this computer (about a second, once per process).

    Raises InputError listing the names.
    """
    if name == "cpu":
        return calibrate_cpu()
    for row in _TABLE:
        if row.name == name:
            return row
    raise InputError(f"device: found {name!r}; allowed: {', '.join(NAMES)}")


def read_devices(path: str | Path) -> dict[str, Device]:
    """Devices of a YAML file: a mapping of names to fields of `Device`, each of which replaces the table's.

        h100: {usd_per_hour: 2.10, price_source: our contract, price_date: 2026-10-01}

    A price needs its source and its date. A name that the table lacks is a new device and needs `peak_flops`, `bandwidth`,
    `memory`, `dtype` and `source` too. Raises InputError naming the file, the device and the field.
    """
    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(read, dict) or not all(isinstance(row, dict) for row in read.values()):
        raise InputError(f"{path}: expected devices by name, such as `h100: {{usd_per_hour: 2.1, ...}}`")
    return {str(name): _device_of(str(name), row, f"{path}: {name}") for name, row in read.items()}


def _device_of(name: str, row: dict[str, Any], place: str) -> Device:
    texts = {field.name for field in fields(Device) if field.type == "str"}
    allowed = [field.name for field in fields(Device) if field.name not in ("name", "levels")]
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key not in allowed:
            raise InputError(f"{place}: unknown field {key}; allowed: {', '.join(allowed)}")
        if value is None or (key not in texts and isinstance(value, bool)):
            raise InputError(f"{place}: {key} must be a {'text' if key in texts else 'number'}, found {value!r}")
        try:
            values[key] = str(value) if key in texts else float(value)
        except (TypeError, ValueError):
            raise InputError(f"{place}: {key} must be a number, found {value!r}") from None
        if key not in texts and not (np.isfinite(values[key]) and values[key] > 0):
            raise InputError(f"{place}: {key} must be a positive number, found {value!r}")
        if key in _LEAST and values[key] < _LEAST[key]:
            raise InputError(
                f"{place}: {key} is in units of one, not of 1e9: at least {_LEAST[key]:g}, found {value!r}"
            )
    lacking = [key for key in ("price_source", "price_date") if "usd_per_hour" in values and key not in values]
    known = name in NAMES
    if not known:
        needed = ("peak_flops", "bandwidth", "memory", "dtype", "source", "usd_per_hour")
        lacking += [key for key in needed if key not in values]
    if lacking:
        raise InputError(f"{place}: {', '.join(lacking)} missing; a price needs a source and a date")
    return replace(device(name), **values) if known else Device(name=name, **{"title": name, **values})


def roofline_seconds(flops: float, bytes_moved: float, on: Device) -> float:
    """A floor under the time of a computation, in seconds: `max(flops / peak, bytes / bandwidth)`; not a prediction.

    Williams, Waterman and Patterson 2009 (Communications of the ACM 52(4)). The bandwidth is that of the level of memory
    that holds all of the bytes, because a call that is repeated finds them there.
    """
    return max(flops / on.peak_flops, bytes_moved / float(on.bandwidth_of(bytes_moved)))


@lru_cache(maxsize=1)
def calibrate_cpu() -> Device:
    """This computer's CPU as measured now with NumPy: the best of repeated calls, because a peak is wanted.

    FLOP/s from float32 matrix products of 1024 x 1024 (2 * 1024^3 FLOP), by all cores at one and by each at its own.
    bytes/s of reading what fills half of each cache, and 256 MB of main memory (`_reading`). The first cache is left out:
    no call is short enough to be bound by it. The cores are those that this process may use.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    peak = _product_flops(len(cores))
    bandwidth = _reading(2**28, len(cores))
    levels: list[tuple[float, float]] = []
    for size in reversed(cpu_caches(cores)):
        faster = levels[0][1] if levels else bandwidth
        levels.insert(0, (float(size), max(faster, _reading(size // 2, len(cores)))))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Device("cpu", f"this CPU, {len(cores)} cores", peak, bandwidth, memory, len(cores) * _VCPU_USD_PER_HOUR,
                  "float32", "measured on this computer with NumPy", _VCPU, levels=tuple(levels))  # fmt: skip


def cpu_caches(cores: Sequence[int]) -> tuple[int, ...]:
    """Bytes of the caches behind the first that these cores have together, the smallest first, as Linux tells; none
    where it does not."""
    sizes: dict[int, dict[str, int]] = {}  # by level and the cores that share one
    for core in cores:
        for index in sorted(Path(f"/sys/devices/system/cpu/cpu{core}/cache").glob("index*")):
            level, kind, size, shared = (
                (index / name).read_text().strip() if (index / name).is_file() else ""
                for name in ("level", "type", "size", "shared_cpu_list")
            )
            if kind != "Instruction" and level.isdigit() and int(level) > 1 and re.fullmatch(r"\d+[KM]", size):
                sizes.setdefault(int(level), {})[shared] = int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]
    return tuple(sum(sizes[level].values()) for level in sorted(sizes))


def _product_flops(cores: int) -> float:
    """FLOP/s of float32 products, the better of two ways to use all cores: the library's own, and a product for each."""
    side, rng = 1024, np.random.default_rng(0)
    left, right = rng.random((2, side, side), dtype=np.float32)
    parts = np.array_split(left, cores)
    outs = [np.empty_like(part) for part in parts]
    out = np.empty_like(left)
    with ThreadPoolExecutor(cores) as pool:
        seconds = min(
            _fastest(lambda: np.matmul(left, right, out=out)),
            _fastest(lambda: list(pool.map(lambda part, mine: np.matmul(part, right, out=mine), parts, outs))),
        )
    return 2 * side**3 / seconds


def _reading(size: int, cores: int) -> float:
    """bytes/s of reading so many bytes over and over, the better of two ways: matrix-vector products, as a decode step
    reads its weights, with the library's own threads; and the largest of its share by each core."""
    weights = np.ones((max(cores, size // 4096), 1024), np.float32)
    vector, product = np.ones(1024, np.float32), np.empty(len(weights), np.float32)
    parts = np.array_split(weights, cores)
    passes = max(1, 2**25 // size)  # so many that starting the threads does not count

    def largest(part: npt.NDArray[np.float32]) -> None:
        for _ in range(passes):
            part.max()

    def products() -> None:
        for _ in range(passes):
            np.matmul(weights, vector, out=product)

    with ThreadPoolExecutor(cores) as pool:
        ways = (products, lambda: list(pool.map(largest, parts)))
        return passes * weights.nbytes / min(_fastest(way, budget_s=0.15) for way in ways)


def _fastest(call: Callable[[], object], budget_s: float = 0.3, at_least: int = 5) -> float:
    """Seconds of the fastest call within the budget, after one call to warm up."""
    call()
    best, calls, start = float("inf"), 0, time.perf_counter()
    while calls < at_least or time.perf_counter() - start < budget_s:
        before = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - before), calls + 1
    return best
