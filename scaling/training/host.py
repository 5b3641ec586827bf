"""Threads and memory of a training process."""

from __future__ import annotations

import os

import jax

from scaling.training.program import Program


def threads() -> int:
    """Number of CPU threads that XLA uses: NPROC if set, else the cores available to this process."""
    reserved = os.environ.get("NPROC", "")
    if reserved.isdigit() and int(reserved) > 0:
        return int(reserved)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_bytes(program: Program, devices: tuple[jax.Device, ...]) -> int:
    """Peak memory of a training step on one device: measured by the device, or else allocated by the compiler."""
    measured = (devices[0].memory_stats() or {}).get("peak_bytes_in_use")
    return program.peak_bytes if measured is None else int(measured)
