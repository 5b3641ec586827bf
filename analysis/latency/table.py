"""Measured latency as a table: each row with its shape, and what it asked of the device.

One row is one (shape, phase, batch, context) in the columns of `scaling.schema`, times in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import study
from analysis.tables.mapping import mapped
from analysis.tables.readers import numbers, read_table
from analysis.tables.reading_log import CheckedTable, ReadingLog
from analysis.tables.runs import where_selected
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.device import BUSY, Device
from scaling.serving.devices import device
from scaling.serving.service import NUMBER_BYTES
from scaling.serving.step_time import StepWork, elements_written, looped
from scaling.values import typed

SHAPE = ("n_experts", "top_k", "d_model", "n_layers", "n_active", "n_total", "n_router")
_COUNTED = ("batch", "context", "time_ms", "flops", "bytes", "distinct_experts", *SHAPE)
_BESIDE = ("n_heads", "dispatch")  # of the shape, too, but not needed
LOOP = "loop"
"""The kernel that takes the experts' rows block by block (scaling/model/moe/kernels.py)."""
_DEFAULTS: Mapping[str, Any] = {  # of columns that older tables lack
    **dict.fromkeys(("device", "reads_all", "kernel")),
    "platform": "cpu",
    "device_kind": "cpu",
    "dtype": "float32",
    "n_heads": 0,
    "busy_cores": np.nan,
}


@dataclass(frozen=True)
class LatencyTable(CheckedTable):
    """Latency rows of one device and dtype, as numbers."""

    @property
    def seconds(self) -> Array:
        """Measured, median of the repeats."""
        return self.column("time_ms") / 1e3

    @property
    def dtype(self) -> str:
        return str(self.frame["dtype"].iloc[0])

    @property
    def shapes(self) -> pd.Series[Any]:
        """Rows of one shape have one number; their times are not independent, since a shape is itself in all of
        them."""
        return self.frame.groupby([*SHAPE, "reads_all"], sort=False).ngroup()


def read_latency(
    source: str | Path, mapping: Mapping[str, str] | None = None, where: str | None = None
) -> LatencyTable:
    """The latency rows of a study folder, or of a file that `scaling bench` or anybody wrote.

    Rows of older studies lack their shape and take it from the run table by `run_id`. A measurement that several cells
    share counts once. Raises InputError when there is none, a column is missing, or devices or dtypes are mixed.
    """
    path, log = Path(source), ReadingLog()
    in_study = path.is_dir()
    frame = (
        with_shapes(study.table_rows(path, "latency"), study.table_rows(path, "runs")) if in_study else read_table(path)
    )
    if frame.empty:
        remedy = "`scaling sweep run` measures latency after training" if in_study else "the table has no rows"
        raise InputError(f"{source}: no latency rows; {remedy}")
    frame, _ = mapped(frame, mapping or {}, str(source), log)
    missing = [name for name in ("phase", *_COUNTED) if name not in frame]
    if missing:
        raise InputError(
            f"{source}: the column {', '.join(missing)} is missing; it has {listed(frame.columns, most=40)}. Rename "
            f"with `map` {missing[0]}=NAME, or measure with `scaling bench`"
        )
    frame = frame.assign(**{name: numbers(frame[name]).floats for name in _COUNTED})
    frame = log.drop(frame, ~frame["phase"].isin(["prefill", "decode"]), "a phase that is neither prefill nor decode")
    counted = frame[list(_COUNTED)].to_numpy(dtype=float)
    least = np.array([0.0 if name == "n_router" else 5e-324 for name in _COUNTED])
    usable = (np.isfinite(counted) & (counted >= least)).all(axis=1)
    frame = _with_defaults(log.drop(frame, ~usable, "a number that is missing or not positive"))
    frame = where_selected(frame, where, log)
    same = [*SHAPE, "reads_all", "phase", "batch", "context", "dtype", "device_kind", "time_ms"]
    frame = log.drop(frame, frame.duplicated(same), "a measurement that several cells share, once kept")
    if frame.empty:
        reasons = "; ".join(f"{count} with {reason}" for reason, count in log.dropped)
        raise InputError(f"{source}: no usable latency row is left ({reasons})")
    for name in ("device_kind", "dtype"):
        values = sorted(frame[name].unique())
        if len(values) > 1:
            choice = f"choose with `where` '{name} == \"{values[0]}\"'"
            raise InputError(f"{source}: {name} {', '.join(values)} are mixed, and a law is of one; {choice}")
    return LatencyTable(frame.reset_index(drop=True), str(source), log.dropped, _load_doubts(frame))


def with_shapes(latency: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Latency rows with their shape: what they carry, else that of the cell of their `run_id`."""
    if latency.empty or cells.empty or "run_id" not in latency:
        return latency
    of_cell = cells.drop_duplicates("run_id").set_index("run_id")
    filled = {name: latency["run_id"].map(of_cell[name]) for name in (*SHAPE, *_BESIDE) if name in of_cell}
    own = {name: latency[name].where(latency[name].notna(), filled[name]) for name in filled if name in latency}
    return latency.assign(**filled | own)


def works(table: LatencyTable) -> StepWork:
    """What each row asked of the device: the experts it activated, the bytes and FLOPs that were counted.

    Rows with `n_heads` are taken for this package's attention, which is not fused; without it, for fused attention. A
    kernel that reads every expert reads those that no token chose too, `(E - activated) (n_total - n_active) / (E - k)`
    parameters more; `LOOP` computes padding and reads weights again (`scaling.serving.step_time.looped`).
    """
    of = {name: table.column(name) for name in _COUNTED}
    routed, reads_all = of["n_experts"] > 1, table.frame["reads_all"].to_numpy(dtype=bool)
    prefill = table.frame["phase"].eq("prefill").to_numpy()
    tokens = of["batch"] * np.where(prefill, of["context"], 1.0)
    idle = np.where(routed & reads_all, of["n_experts"] - of["distinct_experts"], 0.0)
    expert = (of["n_total"] - of["n_active"]) / np.maximum(of["n_experts"] - of["top_k"], 1.0)
    written, largest = elements_written(
        tokens,
        of["n_layers"],
        of["d_model"],
        routed=np.where(routed, of["top_k"], 0.0),
        n_heads=table.column("n_heads"),
        sequences=of["batch"],
        context=of["context"],
    )
    loops = routed & table.frame["kernel"].eq(LOOP).to_numpy()
    padding, again = looped(tokens, of["distinct_experts"], of["n_experts"], of["top_k"], np.where(loops, expert, 0.0))
    number_bytes = NUMBER_BYTES[table.dtype]
    return StepWork(
        layers=of["n_layers"],
        prompts=np.where(prefill, of["n_layers"], 0.0),
        experts=of["n_layers"] * np.where(routed, of["distinct_experts"] + idle, 0.0),
        activations=written,
        largest=largest,
        bytes=of["bytes"] + number_bytes * idle * expert,
        rereads=number_bytes * again,
        flops=of["flops"] + padding,
    )


def device_of(table: LatencyTable, name: str | None = None) -> Device:
    """The device that the rows were measured on: the named one, else the one they carry, else this CPU for a CPU's.

    Raises InputError where nothing says.
    """
    if name is not None:
        return device(name)
    documents = [json.loads(cell) for cell in sorted({c for c in table.frame["device"] if isinstance(c, str) and c})]
    if documents:
        fastest = max(documents, key=lambda document: float(document["peak_flops"]))  # of calibrations: for a floor
        return typed(Device, fastest, f"{table.source}: device")
    if (table.frame["platform"] == "cpu").all():
        return device("cpu")
    raise InputError(f"{table.source}: the rows do not say on which device they were measured; name it with `device`")


def _with_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that older tables lack, with what held then. Raises InputError for a dtype of unknown size."""
    frame = frame.assign(**{name: value for name, value in _DEFAULTS.items() if name not in frame})
    routed = frame["n_experts"] > 1
    dispatch = frame["dispatch"] if "dispatch" in frame else pd.Series("unrecorded", index=frame.index)
    skips_idle = dispatch.isin(["grouped", "dense", "unrecorded"])
    # Before there was a column, our grouped dispatch on a CPU measured with this kernel.
    by_blocks = frame["kernel"].isna() & (dispatch == "grouped") & (frame["platform"] == "cpu") & routed
    frame = frame.assign(
        reads_all=frame["reads_all"].where(frame["reads_all"].notna(), ~skips_idle & routed).astype(bool),
        kernel=frame["kernel"].astype(object).where(~by_blocks, LOOP),
        n_heads=np.nan_to_num(numbers(frame["n_heads"]).floats),
    )
    unknown = sorted(set(frame["dtype"]) - set(NUMBER_BYTES))
    if unknown:
        raise InputError(f"latency: dtype {', '.join(map(str, unknown))}; allowed: {', '.join(NUMBER_BYTES)}")
    return frame


def _load_doubts(frame: pd.DataFrame) -> tuple[str, ...]:
    """Whether the machine did other work while the rows were measured."""
    busy = numbers(frame["busy_cores"]).floats
    if np.isnan(busy).all():
        return ("the rows do not say whether the machine was busy with other work",)
    disturbed = busy > BUSY
    if not disturbed.any():
        return ()
    cores = f"up to {np.nanmax(busy):.1f} cores busy while {disturbed.sum()} rows were measured"
    return (f"other work kept {cores}",)
