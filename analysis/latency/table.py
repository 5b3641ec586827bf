"""Measured latency as a table: read from a study folder or a file, each row with its shape, and what it asked of the
device.

One row is one (shape, phase, batch, context) in the columns of `scaling.schema`, times in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import runs
from analysis.tables import study as study_module
from analysis.tables.mapping import mapped
from analysis.tables.readers import listed, numbers, read_table
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.serving.device import BUSY, Device
from scaling.serving.devices import device
from scaling.serving.service import NUMBER_BYTES
from scaling.serving.step_time import StepWork, elements_written, looped

SHAPE = ("n_experts", "top_k", "d_model", "n_layers", "n_active", "n_total", "n_router")
_COUNTED = ("batch", "context", "time_ms", "flops", "bytes", "distinct_experts", *SHAPE)
_BESIDE = ("n_heads", "dispatch")  # of the shape, too, but not needed
LOOP = "loop"
"""The kernel that takes the experts' rows block by block (scaling/model/moe/kernels.py)."""


@dataclass(frozen=True)
class LatencyTable:
    """Latency rows of one device and dtype, as numbers. `dropped`: how many rows were left out for which reason."""

    frame: pd.DataFrame
    source: str
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> Array:
        return self.frame[name].to_numpy(dtype=float, copy=True)

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
        found: pd.Series[Any] = self.frame.groupby([*SHAPE, "reads_all"], sort=False).ngroup()
        return found

    def part(self, kept: Any) -> LatencyTable:
        """The rows where `kept` holds."""
        return LatencyTable(self.frame[np.asarray(kept)].reset_index(drop=True), self.source)


def read_latency(
    source: str | Path, mapping: Mapping[str, str] | None = None, where: str | None = None
) -> LatencyTable:
    """The latency rows of a study folder, or of a file that `scaling bench --out` or anybody wrote.

    Rows of older studies lack their shape and take it from the run table by `run_id`. A measurement that several cells
    share counts once. Raises InputError when there is none, a column is missing, or devices or dtypes are mixed.
    """
    path = Path(source)
    study = path.is_dir()
    frame = (
        with_shapes(study_module.rows(path, "latency"), study_module.rows(path, "runs")) if study else read_table(path)
    )
    if frame.empty:
        remedy = "`scaling sweep run` measures latency after training" if study else "the table has no rows"
        raise InputError(f"{source}: no latency rows; {remedy}")
    frame, _ = mapped(frame, mapping or {}, str(source), [])
    lacking = [name for name in ("phase", *_COUNTED) if name not in frame]
    if lacking:
        raise InputError(
            f"{source}: the column {', '.join(lacking)} is missing; the table has {listed(frame.columns)}. Rename with "
            f"--map {lacking[0]}=NAME, or measure with `scaling bench --out FILE.parquet`"
        )
    frame = frame.assign(**{name: numbers(frame[name]).floats for name in _COUNTED})
    dropped: list[tuple[str, int]] = []

    def keep(good: Any, reason: str) -> None:
        nonlocal frame
        dropped.append((reason, int((~good).sum())))
        frame = frame[good]

    keep(frame["phase"].isin(["prefill", "decode"]), "a phase that is neither prefill nor decode")
    counted = frame[list(_COUNTED)].to_numpy(dtype=float)
    least = np.array([0.0 if name == "n_router" else 5e-324 for name in _COUNTED])
    keep(
        pd.Series((np.isfinite(counted) & (counted >= least)).all(axis=1), frame.index),
        "a number that is missing or not positive",
    )
    frame = _known(frame)
    frame = runs.where_selected(frame, where, dropped)
    same = [*SHAPE, "reads_all", "phase", "batch", "context", "dtype", "device_kind", "time_ms"]
    keep(~frame.duplicated(same), "a measurement that several cells share, once kept")
    if frame.empty:
        raise InputError(
            f"{source}: no usable latency row is left ({'; '.join(f'{n} with {r}' for r, n in dropped if n)})"
        )
    for name in ("device_kind", "dtype"):
        found = sorted(frame[name].unique())
        if len(found) > 1:
            raise InputError(
                f"{source}: {name} {', '.join(found)} are mixed, and a law is of one; choose with --where '{name} == "
                f'"{found[0]}"\''
            )
    return LatencyTable(
        frame.reset_index(drop=True), str(source), tuple(entry for entry in dropped if entry[1]), _doubts(frame)
    )


def with_shapes(latency: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Latency rows with their shape: what they carry, else that of the cell of their `run_id`."""
    if latency.empty or cells.empty or "run_id" not in latency:
        return latency
    of_cell = cells.drop_duplicates("run_id").set_index("run_id")
    filled = {}
    for name in (name for name in (*SHAPE, *_BESIDE) if name in of_cell):
        known = latency["run_id"].map(of_cell[name])
        filled[name] = latency[name].where(latency[name].notna(), known) if name in latency else known
    return latency.assign(**filled)


def works(table: LatencyTable) -> StepWork:
    """What each row asked of the device: the experts it was seen to touch, the bytes and FLOPs that were counted.

    Rows with `n_heads` are taken for this package's attention, which is not fused; without it, for fused attention. A
    kernel that reads every expert reads those that no token chose too, `(E - touched) (n_total - n_active) / (E - k)`
    parameters more; `LOOP` computes padding and reads weights again (`scaling.serving.step_time.looped`).
    """
    of = {name: table.column(name) for name in _COUNTED}
    routed, every = of["n_experts"] > 1, table.frame["reads_all"].to_numpy(dtype=bool)
    tokens = of["batch"] * np.where(table.frame["phase"] == "prefill", of["context"], 1.0)
    idle = np.where(routed & every, of["n_experts"] - of["distinct_experts"], 0.0)
    expert = (of["n_total"] - of["n_active"]) / np.maximum(of["n_experts"] - of["top_k"], 1.0)
    written, largest = elements_written(
        tokens, of["n_layers"], of["d_model"], routed=np.where(routed, of["top_k"], 0.0),
        n_heads=table.column("n_heads"), sequences=of["batch"], context=of["context"],
    )  # fmt: skip
    loops = routed & (table.frame["kernel"] == LOOP).to_numpy()
    padding, again = looped(tokens, of["distinct_experts"], of["n_experts"], of["top_k"], np.where(loops, expert, 0.0))
    value = NUMBER_BYTES[table.dtype]
    return StepWork(
        layers=of["n_layers"],
        prompts=np.where(table.frame["phase"] == "prefill", of["n_layers"], 0.0),
        experts=of["n_layers"] * np.where(routed, of["distinct_experts"] + idle, 0.0),
        activations=written,
        largest=largest,
        bytes=of["bytes"] + value * idle * expert,
        rereads=value * again,
        flops=of["flops"] + padding,
    )


def device_of(table: LatencyTable, name: str | None = None) -> Device:
    """The device that the rows were measured on: the named one, else the one they carry, else this CPU for a CPU's.

    Raises InputError where nothing says.
    """
    if name is not None:
        return device(name)
    told = sorted({cell for cell in table.frame["device"] if isinstance(cell, str) and cell})
    if told:
        known = [json.loads(cell) for cell in told]
        best = max(known, key=lambda one: float(one["peak_flops"]))  # of several calibrations, for a floor is wanted
        allowed = {field.name for field in fields(Device)}
        return Device.from_json({key: value for key, value in best.items() if key in allowed})
    if (table.frame["platform"] == "cpu").all():
        return device("cpu")
    raise InputError(f"{table.source}: the rows do not say on which device they were measured; name it with --device")


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that older tables lack, with what held then."""
    filled: dict[str, Any] = {}
    usual = {
        "platform": "cpu",
        "device_kind": "cpu",
        "dtype": "float32",
        "device": None,
        "busy_cores": np.nan,
        "n_heads": 0,
    }
    for name, value in usual.items():
        if name not in frame:
            filled[name] = pd.Series([value] * len(frame), index=frame.index)
    skips = frame["dispatch"].isin(["grouped", "dense"]) if "dispatch" in frame else pd.Series(True, index=frame.index)
    told = frame["reads_all"] if "reads_all" in frame else pd.Series([None] * len(frame), index=frame.index)
    filled["reads_all"] = told.where(told.notna(), ~skips & (frame["n_experts"] > 1)).astype(bool)
    # Before there was a column, grouped dispatch on a CPU measured with this kernel; of other people's nothing is
    # known.
    ours = frame["dispatch"] == "grouped" if "dispatch" in frame else pd.Series(False, index=frame.index)
    platform = filled.get("platform", frame.get("platform"))
    kernels = frame["kernel"] if "kernel" in frame else pd.Series([None] * len(frame), index=frame.index, dtype=object)
    by_blocks = kernels.isna() & ours & (platform == "cpu") & (frame["n_experts"] > 1)
    filled["kernel"] = kernels.astype(object).where(~by_blocks, LOOP)
    heads = filled.pop("n_heads", None)
    filled["n_heads"] = np.nan_to_num(numbers(frame["n_heads"] if heads is None else heads).floats)
    found = frame.assign(**filled)
    unknown = sorted(set(found["dtype"]) - set(NUMBER_BYTES))
    if unknown:
        raise InputError(f"latency: dtype {', '.join(map(str, unknown))}; allowed: {', '.join(NUMBER_BYTES)}")
    return found


def _doubts(frame: pd.DataFrame) -> tuple[str, ...]:
    """What to know of how the rows were measured."""
    busy = numbers(frame["busy_cores"]).floats
    told = []
    if np.isnan(busy).all():
        told.append("the rows do not say whether the machine was busy with other work")
    elif np.any(busy > BUSY):
        told.append(
            f"warning: others kept up to {np.nanmax(busy):.1f} cores busy while {int((busy > BUSY).sum())} rows were "
            "measured"
        )
    return tuple(told)
