"""End-to-end rows of public models whose times follow planted coefficients."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.latency.end_to_end import EndToEnd, end_to_end
from scaling.serving.published_speeds import published_speed

MODELS = ("qwen3-30b-a3b", "mixtral-8x7b", "qwen3-32b", "llama-3.1-8b")
PLANTED = np.array(published_speed("published:vllm-h100").coefficients) * [
    1.1,
    0.9,
    1.2,
    1.3,
    0.8,
    1.0,
    0.8,
    1.5,
    1.2,
    2,
]


def engine_table(models: tuple[str, ...] = MODELS) -> pd.DataFrame:
    """Rows in the columns of silicon tables, without times that mean something."""
    rows = itertools.product(models, ("h100_sxm", "h200_sxm"), (1, 2, 8), (1, 8, 32, 128), ((128, 1024), (4096, 512)))
    return pd.DataFrame(
        [
            {
                "model_path": f"org/{model}", "system": system, "backend": "vllm", "precision": "fp8",
                "isl": lengths[0], "osl": lengths[1], "batch_size": batch, "tp_size": devices,
                "mode": "agg", "silicon_tpot_ms": 10.0,
            }
            for model, system, devices, batch, lengths in rows
        ]
    )  # fmt: skip


def planted_rows(
    models: tuple[str, ...] = MODELS, scatter: float = 0.0, of_model: float = 0.0, seed: int = 0
) -> EndToEnd:
    """Rows of these models with planted times: each with a `scatter` of its own, and one `of_model` that all share."""
    rows = end_to_end(engine_table(models), "planted", None)
    random = np.random.default_rng(seed)
    shift = dict(zip(rows.frame["model"].unique(), of_model * random.standard_normal(len(models)), strict=True))
    noise = rows.frame["model"].map(shift).to_numpy(float) + scatter * random.standard_normal(len(rows.frame))
    return replace(rows, tpot_s=rows.iterations @ PLANTED * np.exp(noise))
