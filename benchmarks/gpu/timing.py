"""Seconds of a compiled program on a device, and the peak that its FLOPs are held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.training.inference_bench import device_of

GROUPS = 5
GROUP_S = 0.05
_MOST_CALLS = 200


def seconds(call: Callable[[], Any], groups: int = GROUPS, group_s: float = GROUP_S) -> float:
    """Seconds of a call, the median over groups of calls that are sent one after another and awaited together.

    The device works while the host sends, as in a training, so that a short program is not charged the host's time.
    Two calls before are not counted: the first loads the code.
    """
    jax.block_until_ready(call())
    started = time.perf_counter()
    jax.block_until_ready(call())
    calls = int(np.clip(group_s / max(time.perf_counter() - started, 1e-9), 1, _MOST_CALLS))
    times = []
    for _ in range(groups):
        started = time.perf_counter()
        results = [call() for _ in range(calls)][-1]
        jax.block_until_ready(results)
        times.append((time.perf_counter() - started) / calls)
    return float(np.median(times))


@dataclass(frozen=True)
class Peak:
    """Dense bf16 FLOP/s: `flops` of the data sheet, or where the table lacks the device of a large `product`."""

    flops: float
    product: float
    source: str


def peak_of(device: jax.Device, side: int) -> Peak:
    """The peak of a device; the product is of two random bf16 matrices `side` wide (zeros can run faster)."""
    left, right = jax.random.normal(jax.random.key(0), (2, side, side), jnp.bfloat16)
    multiply = jax.jit(lambda a, b: a @ b)
    reached = 2 * side**3 / seconds(lambda: multiply(left, right))
    row = device_of(device, "bfloat16")
    if row is None:
        return Peak(reached, reached, f"a product of {side}^2 matrices; the device table has no {device.device_kind}")
    return Peak(row.peak_flops, reached, row.source)


def temporary_bytes(program: Any) -> int:
    """Memory that a program needs beside its arguments and results: where a kernel blows up, it is seen here."""
    return int(program.memory_analysis().temp_size_in_bytes)
