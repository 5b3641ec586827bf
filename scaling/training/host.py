"""Threads and devices of a training process."""

from __future__ import annotations

import os

import jax

from scaling.config.run import RunConfig
from scaling.errors import InputError


def require_gpu(config: RunConfig) -> None:
    """Raises InputError for a cell that is to have a GPU where JAX has none: it takes the CPU without a word where its
    CUDA plugin is missing, even if `JAX_PLATFORMS` names CUDA first, and the rows would be a CPU's."""
    if config.resources.gpus > 0 and jax.devices()[0].platform == "cpu":
        raise InputError(
            f"`resources.gpus` is {config.resources.gpus:g} and JAX sees no GPU, only the CPU: look at nvidia-smi and "
            "install jax with its CUDA plugin (the extra `gpu`), or set `gpus: 0`"
        )


def threads() -> int:
    """Number of CPU threads that XLA uses: NPROC if set, else the cores available to this process."""
    reserved = os.environ.get("NPROC", "")
    if reserved.isdigit() and int(reserved) > 0:
        return int(reserved)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
