"""Cells and steps for tests of what a training tells."""

from __future__ import annotations

import numpy as np

from scaling.config.run import RunConfig
from scaling.observer import Steps

CORPUS = "0" * 16
NAMES = ("loss", "grad_norm")
ONE, TWO = (
    RunConfig.model_validate({"train": {"batch_tokens": 256, "seq_len": 16, "warmup_tokens": 256}, "tokens": tokens})
    for tokens in (256 * 20, 256 * 40)
)  # 20 and 40 steps, which leave the trunk after 16 and 32


def steps(last: int, count: int, *, budget: int = 0, shared: bool = True, trunks: int = 1, past: bool = False) -> Steps:
    """Steps up to `last`, whose loss is their number and a tenth of the trunk's, and whose norm is 1."""
    numbers = np.arange(last - count + 1, last + 1, dtype=np.float32)
    metrics = [np.stack([[number + trunk / 10, 1.0] for trunk in range(trunks)]) for number in numbers]
    return Steps(budget, shared, last, NAMES, metrics, (0.01,) * trunks, 0.5 * count, past)
