"""Training speeds of planted coefficients."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.training_speed.table import TrainingTable
from scaling.serving.device import Device
from scaling.serving.devices import device
from scaling.serving.training_work import TERMS

H100: Device = device("h100")
TRUTH = np.array([2.0, 3.0, 4.0, 2e-12, 5e-12, 1e-12, 2e-3, 1e-4, 3e-6, 1.5, 0.0, 0.0])
"""Coefficients of `TERMS`, which all matter over the grid; one device without caches has none of the last two."""


def frame(
    widths: tuple[int, ...] = (512, 1024, 2048, 4096),
    experts: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    depths: tuple[int, ...] = (8, 24),
    batches: tuple[int, ...] = (2**15, 2**18),
    **columns: Any,
) -> pd.DataFrame:
    """Configurations without their times, k = 1 and 2 where routed."""
    rows = []
    for d, n_experts, n_layers, batch in product(widths, experts, depths, batches):
        top_k = 1 if n_experts < 4 else 2
        expert = 6.0 * d * d * n_layers / top_k
        n_active = 4.0 * d * d * n_layers + top_k * expert + 2 * 32_000 * d
        rows.append({
            "n_experts": n_experts, "top_k": top_k, "n_active": n_active,
            "n_total": n_active + (n_experts - min(top_k, n_experts)) * expert,
            "n_router": n_experts * d * n_layers if n_experts > 1 else 0.0,
            "n_lookup": 32_000 * d, "n_layers": n_layers, "d_model": d, "batch_tokens": batch,
            "seq_len": 2048 if n_layers == 8 else 4096, "devices": 1.0, "loops": False, "rows": 1, "spread": 1.0,
            "busy_cores": np.nan,
        } | columns)  # fmt: skip
    return pd.DataFrame(rows)


def table(noise: float = 0.0, seed: int = 0, truth: np.ndarray[Any, Any] = TRUTH, **grid: Any) -> TrainingTable:
    """Configurations with the times of `truth`, off by so much (the standard deviation of their logarithm)."""
    bare = TrainingTable(frame(**grid).assign(seconds=1.0), "synthetic", on=H100)
    off = np.exp(noise * np.random.default_rng(seed).standard_normal(len(bare)))
    return replace(bare, frame=bare.frame.assign(seconds=bare.terms() @ truth * off))


assert len(TRUTH) == len(TERMS)
