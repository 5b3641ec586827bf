"""A device: peak FLOP/s, bandwidth, memory, links and price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array
from scaling.bounds import outside
from scaling.errors import InputError
from scaling.summary import Settings

MOST_OF_DEVICE = 1e30
"""Bytes, bytes/s, FLOP/s and USD/h; far more than any device has."""
BUSY = 0.1
"""Cores used by other processes above which a measurement counts as disturbed."""


@dataclass(frozen=True, repr=False)
class Device(Settings):
    """One accelerator, or this computer's CPU.

    `peak_flops`: dense (never sparse) FLOP/s of matrix products in `dtype`. `bandwidth`: bytes/s of main memory.
    `memory`: bytes. `usd_per_hour`: price of one device, with `price_source` and `price_date`. `link`: bytes/s from one
    device to its neighbours in one direction, with latency `link_latency_s` per transfer; it joins `link_devices`
    devices. Larger replicas communicate at `fabric` bytes/s per device; the default, 400 Gbit/s, is an assumption.
    `levels`: (bytes, bytes/s) of each cache, the smallest first. `peaks`: dense FLOP/s of products in other number
    formats, by name (fp8, fp4, int8).
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
    peaks: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("peak_flops", "bandwidth", "memory", "link", "link_devices", "fabric"):
            if wrong := outside(getattr(self, name), MOST_OF_DEVICE):
                raise InputError(f"device {self.name}: `{name}` {wrong}")
        for name in ("usd_per_hour", "link_latency_s"):
            if not 0 <= getattr(self, name) <= MOST_OF_DEVICE:
                raise InputError(f"device {self.name}: `{name}` must be at least 0, found {getattr(self, name):g}")
        for level in self.levels:
            for value in level:
                if wrong := outside(value, MOST_OF_DEVICE):
                    raise InputError(f"device {self.name}: `levels` {wrong}")
        for name, flops in self.peaks:
            if wrong := outside(flops, MOST_OF_DEVICE):
                raise InputError(f"device {self.name}: `peaks` {name} {wrong}")

    def peak(self, arithmetic: str | None) -> float:
        """Dense FLOP/s of products in this number format; None or empty: in `dtype`. Raises InputError without it."""
        if not arithmetic:
            return self.peak_flops
        peaks = dict(self.peaks)
        if arithmetic not in peaks:
            raise InputError(f"device {self.name} multiplies no {arithmetic}; it has {', '.join([self.dtype, *peaks])}")
        return peaks[arithmetic]

    def bandwidth_of(self, working_set: float | Array) -> Array:
        """Bytes/s of the smallest cache that holds `working_set` bytes, else of main memory."""
        bandwidth = np.full(np.shape(working_set), self.bandwidth)
        for size, speed in reversed(self.levels):
            bandwidth = np.where(np.asarray(working_set) <= size, np.maximum(speed, self.bandwidth), bandwidth)
        return bandwidth


def roofline_seconds(flops: float, bytes_moved: float, on: Device) -> float:
    """A lower bound on the time of a computation in seconds, not a prediction: `max(flops / peak, bytes / bandwidth)`.

    Williams, Waterman and Patterson 2009 (Communications of the ACM 52(4)). The bandwidth is that of the memory level
    that holds all of the bytes, because a repeated call finds them there.
    """
    return max(flops / on.peak_flops, bytes_moved / float(on.bandwidth_of(bytes_moved)))
