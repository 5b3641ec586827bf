"""Cells of a table that differ in E: the mean loss of each over its seeds, with compute and measured time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fitting.fitted_to import seed_deviations, seed_noise
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE, EXPERTS, LOSS, TOKENS
from scaling.errors import InputError

_WIDTH = ("d_model", "n_layers")
_ALIKE = ("task", "corpus_hash", "n_heads", "vocab_size", "seq_len", "batch_tokens")
_METHOD = ("top_k", "router", "experts", "dispatch", "d_expert", "lr")
_SPEED, _DEVICE = "tokens_per_s", ("platform", "device_kind", "threads")


@dataclass(frozen=True)
class Cells:
    """Cells of a table, one a row: runs that differ in seed alone.

    `log_loss` (cells,) is the mean of ln loss over `seeds` (cells,) of them, `log_flops` ln of training FLOPs,
    `log_seconds` ln of the time of training on one device (None where it was not measured throughout on one kind of
    device). `shape` numbers the cells that agree in all but E, method and tokens. `noise` is the deviation of ln loss
    between seeds, with `freedom` degrees of freedom; None where no cell was repeated.
    """

    frame: pd.DataFrame
    experts: Integers
    shape: Integers
    seeds: Array
    log_loss: Array
    log_flops: Array
    log_seconds: Array | None
    noise: float | None
    freedom: int
    compute: str

    def __len__(self) -> int:
        return len(self.experts)


def cells_of(table: RunTable) -> Cells:
    """The cells of a table. Raises InputError where it has no experts, or neither `train_flops` nor N and D."""
    frame, compute = _with_compute(table)
    there = [name for name in (*_WIDTH, *_ALIKE) if _complete(frame, name)]
    if not set(_WIDTH) & set(there):
        there.append("n_active")
    if "n_active" in there and "n_active" not in frame:
        raise InputError(f"{table.source}: paired cells need d_model or n_active, to say which differ in E alone")
    method = [name for name in _METHOD if _complete(frame, name)]
    frame = frame.assign(log_loss=np.log(frame[LOSS]), log_compute=np.log(frame["compute"]))
    measured = _complete(frame, _SPEED) and _one_device(frame)
    if measured:
        frame = frame.assign(log_seconds=np.log(frame[TOKENS] / frame[_SPEED]))
    keys = list(dict.fromkeys([EXPERTS, *there, *method, TOKENS]))
    means = {"log_loss": "mean", "log_compute": "mean", **({"log_seconds": "mean"} if measured else {})}
    others = {name: "first" for name in ("n_active", "d_model") if name in frame and name not in keys}
    grouped = frame.groupby(keys, sort=True)
    cells = grouped.agg({**means, **others}).assign(seeds=grouped.size()).reset_index()
    noise = seed_noise(table)
    return Cells(
        frame=cells,
        experts=cells[EXPERTS].to_numpy(dtype=np.int64),
        shape=np.asarray(cells.groupby(there, sort=True).ngroup(), dtype=np.int64),
        seeds=cells["seeds"].to_numpy(dtype=float),
        log_loss=cells["log_loss"].to_numpy(dtype=float),
        log_flops=cells["log_compute"].to_numpy(dtype=float),
        log_seconds=cells["log_seconds"].to_numpy(dtype=float) if measured else None,
        noise=noise,
        freedom=seed_deviations(table)[1] if noise is not None else 0,
        compute=compute,
    )


def _with_compute(table: RunTable) -> tuple[pd.DataFrame, str]:
    """The runs with their compute, and what it is."""
    frame = table.frame
    if EXPERTS not in frame or frame[EXPERTS].isna().any():
        raise InputError(f"{table.source}: paired cells need the column {EXPERTS} in every run")
    if _complete(frame, COMPUTE):
        return frame.assign(compute=frame[COMPUTE].astype(float)), "training FLOPs as counted in the table"
    if _complete(frame, "n_active") and _complete(frame, TOKENS):
        return frame.assign(compute=6.0 * frame["n_active"] * frame[TOKENS]), "6 N_active D"
    raise InputError(f"{table.source}: paired cells need the column {COMPUTE}, or n_active and {TOKENS}")


def _complete(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and bool(frame[name].notna().all())


def _one_device(frame: pd.DataFrame) -> bool:
    """Whether all runs were made on one kind of device, as far as the table says."""
    return all(len(frame[name].drop_duplicates()) <= 1 for name in _DEVICE if name in frame)
