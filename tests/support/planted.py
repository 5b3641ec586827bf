"""Tables for the tests of the analysis: where public ones lie, and planted ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import laws
from analysis.tables.runs import RunTable

ROOT = Path(__file__).parents[2]


def public_data(name: str) -> Path:
    """A file of public data, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("SCALING_DATA", ROOT.parent / "shared" / "data"))
    path = folder / name
    if not path.is_file():
        pytest.skip(f"public data {name} is not in {folder} (set SCALING_DATA)")
    return path


EPOCH_MAP = {"n_active": "Model Size", "train_flops": "Training FLOP", "loss_val": "loss"}


def table_of(frame: pd.DataFrame, **more: object) -> RunTable:
    """A run table made in a test."""
    return RunTable(frame.assign(**more), "test")


HOFFMANN_2022 = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


def hoffmann_runs(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """20 runs of five sizes and four ratios of tokens to parameters, with the losses of Hoffmann et al.'s law."""
    sizes, ratios = (grid.ravel() for grid in np.meshgrid([5e7, 1.2e8, 3.5e8, 7.6e8, 1.3e9], [6, 20, 70, 210]))
    columns = {"n_active": sizes, "tokens": sizes * ratios}
    noisy = np.exp(np.random.default_rng(seed).normal(0.0, noise, sizes.size)) if noise else 1.0
    return pd.DataFrame(columns | {"loss_val": laws.HOFFMANN.loss(HOFFMANN_2022, columns) * noisy})


PLANTED_MOE = {
    "a": 30.0, "alpha": -0.25, "delta": -0.15, "gamma": 0.0098, "b": 60.0, "beta": -0.3, "omega": 0.25, "zeta": -0.0259,
    "c": 0.8, "E_start": 2.0732, "E_max": 290.4521,
}  # fmt: skip


def moe_grid(
    experts=(1, 2, 4, 8, 16), widths=(32, 48, 64, 96, 128), tokens=(2.5e5, 1e6, 4e6, 1.6e7), noise=0.0, seed=0,
    params=None, law=laws.JOINT_MOE, seeds=(0,),
) -> pd.DataFrame:  # fmt: skip
    """A grid of two-layer models with counts by the textbook and losses by a planted law; `noise` is the sd of ln
    loss."""
    rng = np.random.default_rng(seed)
    rows = []
    for e in experts:
        for d in widths:
            for s in seeds:
                for budget in tokens:
                    backbone, expert = 2 * 257 * d + 5 * d + 4 * d * d * 2, 3 * d * 2 * d * 2
                    rows.append({
                        "run_id": f"{e}-{d}-{s}-{budget:g}", "trunk_id": f"{e}-{d}-{s}", "seed": s, "status": "ok",
                        "n_experts": e, "top_k": 1, "d_model": d, "n_layers": 2, "tokens": budget,
                        "n_active": backbone + expert, "n_total": backbone + e * expert,
                        "n_active_nonembed": backbone + expert - 514 * d,
                        "n_dense_nonembed": backbone + expert - 514 * d,
                        "train_flops": 6.0 * (backbone + expert) * budget,
                    })  # fmt: skip
    frame = pd.DataFrame(rows)
    columns = {name: frame[name].to_numpy(dtype=float, copy=True) for name in law.columns}
    loss = law.loss(params or PLANTED_MOE, columns)
    return frame.assign(loss_val=loss * np.exp(noise * rng.standard_normal(len(frame))))
