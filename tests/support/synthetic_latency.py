"""Latency rows of a planted machine, for the tests of the latency law: shapes, counts, and times that follow from
them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.latency.law import FITTED, LatencyLaw
from analysis.latency.table import LatencyTable, works
from scaling.arrays import Array
from scaling.config import counts
from scaling.config.model import ModelConfig
from scaling.serving.device import Device
from scaling.serving.expert_load import distinct_experts
from scaling.serving.step_time import Efficiency, StepWork

VOCAB = 257
CPU = Device("cpu", "a planted CPU", 2e11, 2.5e10, 24e9, 0.1, "float32", "planted", "planted",
             levels=((2e6, 9e10), (32e6, 6e10)))  # fmt: skip
TRUTH = Efficiency(0.6, 0.7, 60e-6, 30e-6, 45e-6, 25e-6, 0.8e-9, 0.5, "planted")
GRID = [(e, k, d, layers) for e, k in ((1, 1), (4, 2), (8, 1), (32, 2)) for d in (64, 128, 256) for layers in (2, 4)]


def frame(
    grid: list[tuple[int, int, int, int]] = GRID,
    batches: tuple[int, ...] = (1, 4, 32),
    contexts: tuple[int, ...] = (64, 512),
    truth: Efficiency = TRUTH,
    noise: Callable[[int], np.ndarray] | None = None,
) -> pd.DataFrame:
    """Latency rows of a machine that keeps `truth` exactly, times exp(noise)."""
    rows = []
    for n_experts, top_k, d_model, n_layers in grid:
        model = ModelConfig(n_experts=n_experts, top_k=top_k, d_model=d_model, n_layers=n_layers, router="topk")
        sizes = counts.parameters(model, VOCAB)
        for phase in ("prefill", "decode"):
            for batch in batches:
                for context in contexts:
                    new = context if phase == "prefill" else 1
                    touched = float(distinct_experts(n_experts, top_k, batch * new))
                    per_token = counts.prefill_flops_per_token if phase == "prefill" else counts.decode_flops_per_token
                    rows.append({
                        "phase": phase, "batch": batch, "context": context, "n_experts": n_experts, "top_k": top_k,
                        "d_model": d_model, "n_layers": n_layers, "n_heads": model.n_heads, "n_active": sizes.n_active,
                        "n_total": sizes.n_total, "n_router": sizes.router, "reads_all": False, "dtype": "float32",
                        "kernel": "loop" if n_experts > 1 else None,
                        "device_kind": "cpu", "platform": "cpu", "distinct_experts": touched, "time_ms": 1.0,
                        "flops": batch * new * per_token(model, VOCAB, context), "busy_cores": 0.0, "device": None,
                        "bytes": counts.bytes_read(model, VOCAB, batch=batch, new_tokens=new, context=context),
                    })  # fmt: skip
    found = pd.DataFrame(rows)
    times = np.asarray(works(LatencyTable(found, "planted")).seconds(CPU, truth))
    return found.assign(time_ms=1e3 * times * np.exp(0.0 if noise is None else noise(len(found))))


def time_interval(law: LatencyLaw, work: StepWork, level: float = 0.95) -> tuple[Array, Array]:
    """Where a measured time of this work is expected, with the uncertainty of the coefficients (`draws`) and the
    scatter of shapes that were not fitted (`ratios`)."""
    modelled = np.tensordot(law.draws, work.terms(law.device)[:FITTED], axes=1)  # draws x rows
    # Draws are in no order, so multiples of the golden ratio meet each with a scatter of its own, evenly spread.
    levels = (np.arange(len(law.draws)) + 0.5) * (5**0.5 - 1) / 2 % 1
    scatter = np.quantile(law.ratios, levels).reshape(-1, *[1] * (modelled.ndim - 1))
    low, high = np.quantile(modelled * scatter, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
