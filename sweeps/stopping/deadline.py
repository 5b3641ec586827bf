"""When a sweep starts no more cells, by a clock that nobody sets back."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Deadline:
    """A moment in seconds since the start of the driver's machine, and as the time of day for other machines."""

    machine: str
    since_start: float
    time_of_day: float

    @classmethod
    def after(cls, hours: float | None) -> Deadline:
        """The moment in so many hours; never, without a number."""
        seconds = float("inf") if hours is None else hours * 3600
        return cls(_machine(), time.monotonic() + seconds, time.time() + seconds)

    def passed(self) -> bool:
        """Whether the moment is over, on this machine."""
        if self.machine == _machine():
            return time.monotonic() >= self.since_start
        return time.time() >= self.time_of_day


@lru_cache(maxsize=1)
def _machine() -> str:
    """The start of this machine, since which `time.monotonic` counts in all of its processes."""
    try:
        return _BOOT.read_text(encoding="ascii")
    except OSError:
        return f"{uuid.getnode():x}"
