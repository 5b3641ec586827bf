"""A device: peak FLOP/s, bytes/s, memory, links and rent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array
from scaling.summary import Settings

BUSY = 0.1
"""Cores kept busy by others beyond which a measurement was not made alone."""


@dataclass(frozen=True, repr=False)
class Device(Settings):
    """One accelerator, or this computer's CPU.

    `peak_flops`: dense (never sparse) FLOP/s of matrix products in `dtype`. `bandwidth`: bytes/s of main memory.
    `memory`: bytes. `usd_per_hour`: rent of one device, `price_source` and `price_date`: whose, and of when. `link`:
    bytes/s that one device sends to its neighbours in one direction, `link_latency_s`: of one transfer, `link_devices`:
    how many are joined by it; more of them send at `fabric` bytes/s, an assumption: 400 Gbit/s a device. `levels`:
    caches, (bytes, bytes/s) each, the smallest first.
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

    def bandwidth_of(self, working_set: float | Array) -> Array:
        """Bytes/s of the smallest level of memory that holds so many bytes; main memory's beyond all caches."""
        bandwidth = np.full(np.shape(working_set), self.bandwidth)
        for size, speed in reversed(self.levels):
            bandwidth = np.where(np.asarray(working_set) <= size, np.maximum(speed, self.bandwidth), bandwidth)
        return bandwidth


def roofline_seconds(flops: float, bytes_moved: float, on: Device) -> float:
    """A floor under the time of a computation, in seconds: `max(flops / peak, bytes / bandwidth)`; not a prediction.

    Williams, Waterman and Patterson 2009 (Communications of the ACM 52(4)). The bandwidth is that of the level of
    memory that holds all of the bytes, because a call that is repeated finds them there.
    """
    return max(flops / on.peak_flops, bytes_moved / float(on.bandwidth_of(bytes_moved)))
