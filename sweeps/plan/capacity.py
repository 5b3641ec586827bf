"""What a machine has for cells: how many train at a time, and how long calls take on it."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scaling.config.bench import Resources
from scaling.config.cell import Cell
from scaling.tasks.costs import device_bytes, devices
from sweeps.worker import machine_cpus

_GPUS = Path("/proc/driver/nvidia/gpus")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
PROCESS_BYTES = 0.5e9
"""Memory of Python, JAX and the allocator beside the arrays of a cell: 0.4 to 0.6 GB measured on a CPU."""


@dataclass(frozen=True)
class Machine:
    """CPUs, GPUs and bytes of main memory."""

    cpus: int
    gpus: float
    memory: float

    def at_once(self, resources: Resources) -> int:
        """Cells of these resources that train at a time, at least one: what this machine lacks may be elsewhere."""
        fitting = self.cpus // resources.cpus
        if resources.gpus:
            fitting = min(fitting, int(self.gpus / resources.gpus))
        return max(1, fitting)

    def makespan(self, calls: Iterable[tuple[float, Resources]], at_most: int | None = None) -> float:
        """Wall time of calls, seconds each, that start in order as soon as their resources are free, and fewer than
        `at_most` run."""
        waiting = list(calls)
        most_cpus = max([self.cpus, *(need.cpus for _, need in waiting)])
        most_gpus = max([self.gpus, *(need.gpus for _, need in waiting)])
        cpus, gpus, now = float(most_cpus), float(most_gpus), 0.0
        running: list[tuple[float, int, float]] = []  # end, CPUs, GPUs
        ends = [0.0]
        for seconds, need in waiting:
            while need.cpus > cpus or need.gpus > gpus + 1e-9 or len(running) == at_most:
                now, freed_cpus, freed_gpus = heapq.heappop(running)
                cpus, gpus = cpus + freed_cpus, gpus + freed_gpus
            cpus, gpus = cpus - need.cpus, gpus - need.gpus
            heapq.heappush(running, (now + seconds, need.cpus, need.gpus))
            ends.append(now + seconds)
        return max(ends)


ANY_CLUSTER = Machine(cpus=10**9, gpus=1e9, memory=1e18)
"""A cluster whose size is not known before it is asked: everything fits."""


def this_machine() -> Machine:
    """The machine of this process; one GPU where none is seen, for the grid may run elsewhere."""
    gpus = len([*_GPUS.iterdir()]) if _GPUS.is_dir() else 1
    return Machine(machine_cpus(), max(1, gpus), _memory())


def host_memory_bytes(cell: Cell, of_device: float | None = None) -> float:
    """Peak bytes of main memory of the process that trains a cell: the arrays of all its CPU threads, or, where GPUs
    hold them, the process alone. `of_device`: `device_bytes` of the cell, where it is known."""
    if cell.resources.gpus:
        return PROCESS_BYTES
    held = device_bytes(cell) if of_device is None else of_device
    return PROCESS_BYTES + devices(cell) * held


def most_at_once(cells: Sequence[Cell], machine: Machine) -> int:
    """The most cells of a grid that train at a time."""
    return max(machine.at_once(resources) for resources in {cell.resources for cell in cells})


def _memory() -> float:
    """Bytes of main memory that this process may use: the machine's, or less where a container is limited."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # no such group, or "max"
            memory = min(memory, float(Path(limit).read_text()))
    return memory
