"""Devices: peak FLOP/s, bytes/s, memory and a default price, with a source for every row; this CPU is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from scaling.errors import InputError


@dataclass(frozen=True)
class Device:
    """One accelerator, or this computer's CPU.

    `peak_flops`: dense (never sparse) FLOP/s of matrix products in `dtype`. `bandwidth`: bytes/s of main memory.
    `memory`: bytes. `usd_per_hour`: rent of one device; replace it with your own by
    `dataclasses.replace(device(name), usd_per_hour=..., price_source=...)`.
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


_RUNPOD = "placeholder, replace it: RunPod, SXM, as quoted by deploybase.ai, March 2026; others ask .5 to 3 times it"
_GOOGLE = "placeholder, replace it: Google Cloud US on-demand price per chip-hour, from memory, not checked"
_VCPU_USD_PER_HOUR = 0.05
_VCPU = f"placeholder, replace it: ${_VCPU_USD_PER_HOUR} per core-hour, the order of what clouds ask, from memory"

# NVIDIA's sheets print bf16 with 2:4 sparsity for Hopper and Blackwell; the dense peak here is half of that.
_TABLE = (
    Device("a100-40gb", "NVIDIA A100 SXM 40 GB", 312e12, 1.555e12, 40e9, 1.19, "bfloat16",
           "NVIDIA A100 data sheet (2020)", "placeholder, replace it: no list price found, .85 of the 80 GB model's"),
    Device("a100", "NVIDIA A100 SXM 80 GB", 312e12, 2.039e12, 80e9, 1.39, "bfloat16",
           "NVIDIA A100 80 GB data sheet", _RUNPOD),
    Device("h100", "NVIDIA H100 SXM 80 GB", 989.4e12, 3.35e12, 80e9, 2.69, "bfloat16",
           "NVIDIA H100 data sheet (1,979e12 with sparsity, halved)", _RUNPOD),
    Device("h200", "NVIDIA H200 SXM 141 GB", 989.4e12, 4.8e12, 141e9, 3.59, "bfloat16",
           "NVIDIA H200 data sheet (1,979e12 with sparsity, halved)", _RUNPOD),
    Device("b200", "NVIDIA B200 SXM 180 GB", 2.25e15, 8e12, 180e9, 5.98, "bfloat16",
           "NVIDIA DGX B200 data sheet, an eighth of the system (4.5e15 with sparsity, halved)", _RUNPOD),
    Device("tpu-v5e", "Google TPU v5e", 197e12, 800e9, 16e9, 1.20, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier editions print 819e9 bytes/s)", _GOOGLE),
    Device("tpu-v6e", "Google TPU v6e (Trillium)", 918e12, 1600e9, 32e9, 2.70, "bfloat16",
           "Google Cloud documentation, TPU v6e page (earlier editions print 1,640e9 bytes/s)", _GOOGLE),
)  # fmt: skip
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


def roofline_seconds(flops: float, bytes_moved: float, on: Device) -> float:
    """A floor under the time of a computation, in seconds: `max(flops / peak, bytes / bandwidth)`; not a prediction.

    Williams, Waterman and Patterson 2009 (Communications of the ACM 52(4)). On a CPU, data that stays in its caches
    can be read faster than main memory allows.
    """
    return max(flops / on.peak_flops, bytes_moved / on.bandwidth)


@lru_cache(maxsize=1)
def calibrate_cpu() -> Device:
    """This computer's CPU as measured now with NumPy: the best of repeated calls, because a peak is wanted.

    FLOP/s from float32 matrix products of 1024 x 1024 (2 * 1024^3 FLOP); bytes/s from matrix-vector products over
    256 MB, the way a decode step reads its weights. The cores are those that this process may use.
    """
    import numpy as np

    side, rng = 1024, np.random.default_rng(0)
    left, right = rng.random((side, side), dtype=np.float32), rng.random((side, side), dtype=np.float32)
    out = np.empty_like(left)
    peak = 2 * side**3 / _fastest(lambda: np.matmul(left, right, out=out))
    weights = np.ones((8192, 8192), np.float32)
    vector, product = np.ones(8192, np.float32), np.empty(8192, np.float32)
    bandwidth = weights.nbytes / _fastest(lambda: np.matmul(weights, vector, out=product))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Device("cpu", f"this CPU, {cores} cores", peak, bandwidth, memory, cores * _VCPU_USD_PER_HOUR, "float32",
                  "measured on this computer with NumPy", _VCPU)  # fmt: skip


def _fastest(call: Callable[[], object], budget_s: float = 0.4, at_least: int = 5) -> float:
    """Seconds of the fastest call within the budget, after one call to warm up."""
    call()
    best, calls, start = float("inf"), 0, time.perf_counter()
    while calls < at_least or time.perf_counter() - start < budget_s:
        before = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - before), calls + 1
    return best
