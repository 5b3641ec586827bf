"""What a training process has of its host: threads and memory."""

from __future__ import annotations

import os

import jax

from scaling.training.program import Program


def threads() -> int:
    """CPU threads that XLA uses: what NPROC reserves for this process, else the cores it may run on."""
    reserved = os.environ.get("NPROC", "")
    if reserved.isdigit() and int(reserved) > 0:
        return int(reserved)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_bytes(program: Program, devices: tuple[jax.Device, ...]) -> int:
    """Peak memory of a training step on one device: what the device has measured, else what the compiler laid out."""
    known = devices[0].memory_stats()
    return int(known["peak_bytes_in_use"]) if known and "peak_bytes_in_use" in known else program.peak_bytes
