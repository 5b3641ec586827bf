"""Measurement of this computer's CPU."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scaling.serving.device import Device

_VCPU_USD_PER_HOUR = 0.05
_VCPU = f"placeholder, replace it: ${_VCPU_USD_PER_HOUR} per core-hour, typical of clouds, from memory"


@lru_cache(maxsize=1)
def calibrate_cpu() -> Device:
    """This computer's CPU, measured with NumPy as the best of repeated calls, because peaks are wanted.

    FLOP/s of float32 matrix products of 1024 x 1024 (2 * 1024^3 FLOP), and bytes/s of reading half of each cache and
    256 MB of main memory (`_read_bandwidth`), on the cores that this process may use. The first cache is omitted,
    because no call is short enough to be limited by it.
    """
    cores = _cores()
    peak = _product_flops(len(cores))
    bandwidth = _read_bandwidth(2**28, len(cores))
    levels: list[tuple[float, float]] = []
    for size in reversed(cpu_caches(cores)):
        faster = levels[0][1] if levels else bandwidth
        levels.insert(0, (float(size), max(faster, _read_bandwidth(size // 2, len(cores)))))
    return Device(
        name="cpu",
        title=f"this CPU, {len(cores)} cores",
        peak_flops=peak,
        bandwidth=bandwidth,
        memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        usd_per_hour=len(cores) * _VCPU_USD_PER_HOUR,
        dtype="float32",
        source="measured on this computer with NumPy",
        price_source=_VCPU,
        levels=tuple(levels),
    )


def cpu_cores() -> int:
    """The number of cores that this process may use: those of the device `cpu`."""
    return len(_cores())


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cpu_caches(cores: Sequence[int]) -> tuple[int, ...]:
    """Total bytes of these cores' caches by level, from level 2 up; empty on systems other than Linux."""
    sizes: dict[int, dict[str, int]] = {}  # by level, then by the cores that share a cache
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
    """FLOP/s of float32 products, the better of two ways: threads of the library, or one product each."""
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


def _read_bandwidth(size: int, cores: int) -> float:
    """Bytes/s of reading `size` bytes repeatedly, the better of two ways: matrix-vector products with threads of the
    library, as a decode step reads its weights, or the maximum of its share on each core."""
    weights = np.ones((max(cores, size // 4096), 1024), np.float32)
    vector, product = np.ones(1024, np.float32), np.empty(len(weights), np.float32)
    parts = np.array_split(weights, cores)
    passes = max(1, 2**25 // size)  # enough to make the start of the threads negligible

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
    """Seconds of the fastest call within the budget, after a warm-up call."""
    call()
    best, calls, start = float("inf"), 0, time.perf_counter()
    while calls < at_least or time.perf_counter() - start < budget_s:
        before = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - before), calls + 1
    return best
