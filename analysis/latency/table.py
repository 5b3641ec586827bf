"""Measured latency as a table: each row with its shape, and what it asked of the device.

One row is one (shape, phase, batch, context) in the columns of `scaling.schema`, times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency.cells import (
    DTYPES,
    flags,
    not_measured,
    numeric,
    refuse,
    refuse_contradictions,
    refuse_other_devices,
    require_words,
    spelled,
    usable,
    with_dense_rows,
)
from analysis.latency.time_units import with_milliseconds
from analysis.tables import study
from analysis.tables.expressions import where_selected
from analysis.tables.mapping import mapped
from analysis.tables.numbers import numbers
from analysis.tables.readers import read_table
from analysis.tables.reading_log import CheckedTable, ReadingLog, Selection
from analysis.tables.rows import floats, ratio, rows_of
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.json_text import parse_json
from scaling.schema import LATENCY
from scaling.serving.device import BUSY, Device
from scaling.serving.devices import device
from scaling.serving.service import NUMBER_BYTES
from scaling.serving.step_time import StepWork, elements_written, looped
from scaling.values import typed

SHAPE = ("n_experts", "top_k", "d_model", "n_layers", "n_active", "n_total", "n_router")
_COUNTED = ("batch", "context", "time_ms", "flops", "bytes", "distinct_experts", *SHAPE)
_BESIDE = ("n_heads", "n_kv_heads", "d_head", "dispatch")  # of the shape, too, but not needed
LOOP = "loop"
"""The kernel that takes the experts' rows block by block (scaling/model/moe/kernels.py)."""
_TIMES = ("time", "latency", "duration", "step_time", "elapsed", "step_latency", "median_time", "median_latency")
_OURS = ("shape_id", "weights")  # columns that `scaling bench` and sweeps alone write
_PHASES = {
    **dict.fromkeys(("prefill", "prompt", "prompt_processing"), "prefill"),
    **dict.fromkeys(("decode", "decoding", "generation", "generate"), "decode"),
}
_READS_ALL = {"grouped": False, "capacity": True, "dense": True, "soft": True, "mixed": True}
"""By dispatch: whether a kernel reads the experts that no token chose, where the rows do not say it themselves."""
_PLATFORMS = {
    "cpu": "cpu",
    "tpu": "tpu",
    **dict.fromkeys(("gpu", "cuda", "rocm"), "gpu"),
}
_ATTENTION = {
    **dict.fromkeys(("fused", "flash", "flash_attention", "flashattention", "flash-attention", "cudnn"), "fused"),
    **dict.fromkeys(("unfused", "eager", "naive", "xla"), "unfused"),
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

    Rows of older studies lack their shape and take it from the run table by `run_id`. A time in a column that names
    another unit (`time_us`, `latency_s`) is converted. Rows without a positive time are left out and named, and a
    measurement that several cells share counts once. Raises InputError when there is none, a column is missing, a cell
    is text where a number belongs, a word is not known, or devices or dtypes are mixed.
    """
    path, log, name = Path(source), ReadingLog(), str(source)
    in_study = path.is_dir()
    frame = (
        with_shapes(study.table_rows(path, "latency", log), study.table_rows(path, "runs"))
        if in_study
        else read_table(path)
    )
    if frame.empty:
        remedy = "`scaling sweep run` measures latency after training" if in_study else "the table has no rows"
        raise InputError(f"{source}: no latency rows; {remedy}")
    frame, _ = mapped(frame, mapping or {}, name, log, (*LATENCY, "attention"))
    frame = with_milliseconds(frame, "time_ms", _TIMES, name, log)
    missing = [column for column in ("phase", *_COUNTED) if column not in frame]
    if missing:
        raise InputError(
            f"{source}: the column {', '.join(missing)} is missing; it has {listed(frame.columns, most=40)}. Rename "
            f"with `map` {missing[0]}=NAME, or measure with `scaling bench`"
        )
    frame = _chosen(_in_our_words(with_dense_rows(frame, log)), where, log)
    frame = usable(_as_numbers(frame, name, log), [c for c in _COUNTED if c != "n_router"], log, ["n_router"])
    foreign = not in_study and not any(column in frame for column in _OURS)
    frame = _with_kernels(_with_words(frame, name, log), name, log, foreign)
    same = [*SHAPE, "reads_all", "phase", "batch", "context", "dtype", "device_kind", "time_ms"]
    frame = log.drop(frame, frame.duplicated(same), "a measurement that several cells share, once kept")
    if frame.empty:
        reasons = "; ".join(f"{count} with {reason}" for reason, count in log.dropped)
        rows = f": {'; '.join(log.row_numbers)}" if log.row_numbers else ""
        raise InputError(f"{source}: no usable latency row is left ({reasons}){rows}")
    refuse_contradictions(frame, name)
    for column in ("device_kind", "dtype"):
        values = sorted(frame[column].unique())
        if len(values) > 1:
            choice = f"choose with `where` '{column} == \"{values[0]}\"'"
            raise InputError(f"{source}: {column} {', '.join(values)} are mixed, and a law is of one; {choice}")
    left_out = [f"left out: {'; '.join(log.row_numbers)}"] if log.row_numbers else []
    notes = (*log.notes, *left_out, *_load_doubts(frame))
    labels = None if in_study else frame.index.to_numpy()
    read = Selection(dict(mapping or {}), where)
    return LatencyTable(frame.reset_index(drop=True), name, log.dropped, notes, labels=labels, selection=read)


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

    Rows with `n_heads` are of attention that is not fused and writes its scores; without it, of fused attention. Keys
    and values are `kv_width` wide, by `n_kv_heads` of `n_heads`, else as wide as the model. A
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
        kv_width=table.column("kv_width") if "kv_width" in table.frame else None,
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
        named = device(name)
        refuse_other_devices(rows_of(table).frame, "device_kind", named, table.source)
        return named
    cells, rows = table.frame["device"], rows_of(table)
    measured = [
        device_in(cell, f"{table.source}: `device` {rows.named(cells.eq(cell).to_numpy())}")
        for cell in cells.dropna().unique()
    ]
    if measured:
        return max(measured, key=lambda one: one.peak_flops)  # of calibrations: for a floor
    if (table.frame["platform"] == "cpu").all():
        return device("cpu")
    raise InputError(f"{table.source}: the rows do not say on which device they were measured; name it with `device`")


def device_in(cell: object, place: str) -> Device:
    """The device that a cell holds as JSON, or names. Raises InputError naming the place."""
    text = str(cell).strip()
    if not text.startswith("{"):
        try:
            return device(text)
        except InputError as error:
            raise InputError(
                f"{place} is neither JSON of a device nor a known name ({error}); name it with `device`"
            ) from error
    return typed(Device, parse_json(text, place), place)


def _in_our_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with known spellings as our words; other words stay, to be chosen away or refused."""
    known = {"phase": _PHASES, "dtype": DTYPES, "platform": _PLATFORMS, "attention": _ATTENTION}
    known |= {"dispatch": {word: word for word in _READS_ALL}, "kernel": {}}
    return frame.assign(**{name: spelled(frame[name], words) for name, words in known.items() if name in frame})


def _chosen(frame: pd.DataFrame, where: str | None, log: ReadingLog) -> pd.DataFrame:
    """The rows that a condition selects, which sees counts and times as numbers; cells stay as they are."""
    readable = frame.assign(**{name: numbers(frame[name]).floats for name in _COUNTED})
    return frame.loc[where_selected(readable, where, log).index]


def _as_numbers(frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    """The frame with counts and times as floats. A time that is text ("OOM") was not measured: left out and named.
    Raises InputError for text in other columns."""
    frame = log.drop(frame, not_measured(frame, "time_ms", source, log), "time_ms not measured")
    remedy = "write one number a cell, or leave these rows out with `where`"
    columns = [*_COUNTED, *(name for name in ("n_heads", "n_kv_heads", "d_head", "busy_cores") if name in frame)]
    return frame.assign(**{name: numeric(frame, name, source, log, remedy) for name in columns})


def _with_words(frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    """The frame with known words in all columns of words, and what was assumed where one is missing. Raises InputError
    for other words, by row."""
    require_words(frame, "phase", _PHASES, source)
    if "platform" in frame:
        require_words(frame, "platform", _PLATFORMS, source, blank=True)
    lacking: dict[str, Any] = {
        "device": None,
        "platform": None,
        "kernel": None,
        "device_kind": None,
        "busy_cores": np.nan,
    }
    frame = frame.assign(**{name: value for name, value in lacking.items() if name not in frame})
    if "dtype" not in frame:
        if not frame["platform"].eq("cpu").all():
            raise InputError(f"{source}: the column dtype is missing: add one with {listed(NUMBER_BYTES)}")
        log.notes.append("the rows do not say their dtype: float32 is assumed, as on a CPU")
        frame = frame.assign(dtype="float32")
    require_words(frame, "dtype", DTYPES, source)
    kinds = frame["device_kind"].astype(object).map(lambda kind: "unknown" if pd.isna(kind) else str(kind))
    return frame.assign(device_kind=kinds)


def _with_kernels(frame: pd.DataFrame, source: str, log: ReadingLog, foreign: bool) -> pd.DataFrame:
    """The frame with `reads_all`, `kernel` and `n_heads` (0: fused attention) in every row, and what was assumed of
    rows that other tools wrote. Raises InputError for a dispatch that is not known where a row needs it."""
    routed = frame["n_experts"] > 1
    nothing = pd.Series(None, index=frame.index, dtype=object)
    dispatch = frame.get("dispatch", nothing)
    told = flags(frame, "reads_all", source) if "reads_all" in frame else nothing
    open_ = told.isna() & routed
    unknown = open_ & dispatch.notna() & ~dispatch.isin([*_READS_ALL])
    remedy = "say in a column `reads_all` (true or false) whether the kernel reads experts that no token chose"
    refuse(frame, unknown.to_numpy(bool), "dispatch", f"is none of {listed(_READS_ALL)}", source, remedy)
    if (open_ & dispatch.isna()).any():
        log.notes.append("routed rows say neither reads_all nor dispatch: only activated experts are taken to be read")
    elif foreign and open_.any():
        log.notes.append(
            "routed rows do not say reads_all: it is taken from dispatch (all but grouped read all experts)"
        )
    # Before there was a column, our grouped dispatch on a CPU measured with this kernel.
    by_blocks = frame["kernel"].isna() & (dispatch == "grouped") & (frame["platform"] == "cpu") & routed
    if foreign and by_blocks.any():
        log.notes.append(f"grouped dispatch on a CPU without a kernel is taken for this package's kernel {LOOP}")
    inferred = dispatch.map(_READS_ALL).eq(True) & routed
    return frame.assign(
        reads_all=told.where(told.notna(), inferred).astype(bool),
        kernel=frame["kernel"].astype(object).where(~by_blocks, LOOP),
        n_heads=_unfused_heads(frame, source, log, foreign),
        kv_width=_kv_width(frame, source),
    )


def _kv_width(frame: pd.DataFrame, source: str) -> Array:
    """Width of the keys of a token in a layer: that of `n_kv_heads` of `n_heads`, each `d_head` wide (d_model / n_heads
    where a row does not say), else of the model. Raises InputError for groups of heads that do not divide them."""
    width, heads, groups = floats(frame, "d_model"), floats(frame, "n_heads"), floats(frame, "n_kv_heads")
    share = ratio(heads, groups)
    wrong = ~np.isnan(groups) & ((groups < 1) | (share != np.round(share)))
    refuse(frame, wrong, "n_kv_heads", "does not divide n_heads", source)
    of_head = floats(frame, "d_head")
    of_head = np.where(np.isnan(of_head), ratio(width, heads), of_head)
    return np.where(np.isnan(groups), width, groups * of_head)


def _unfused_heads(frame: pd.DataFrame, source: str, log: ReadingLog, foreign: bool) -> Array:
    """Heads of attention that writes its scores, 0 where it is fused: as a column `attention` says, else (where it is
    absent or blank, as in our own rows from before it) unfused where there are heads, which is said of rows of other
    tools. Raises InputError where rows disagree."""
    heads = floats(frame, "n_heads")
    refuse(frame, heads > frame["d_model"].to_numpy(float), "n_heads", "is above d_model", source)
    if "attention" in frame and frame["attention"].notna().any():
        require_words(frame, "attention", _ATTENTION, source, blank=not foreign)
        unfused = (frame["attention"].eq("unfused") | (frame["attention"].isna() & (heads > 0))).to_numpy(bool)
        refuse(frame, unfused & ~(heads > 0), "n_heads", "is missing where attention is unfused", source, cells=False)
    else:
        unfused = heads > 0
        if len(frame) and not unfused.any():
            log.notes.append("the rows say neither n_heads nor attention: attention is taken to be fused")
        elif foreign and len(frame):
            log.notes.append(
                "the rows have n_heads and do not say whether attention is fused: it is taken to write its scores, as "
                "this package's does; a column attention (fused or unfused) says otherwise"
            )
    if unfused.any() and not unfused.all():
        name = "attention" if "attention" in frame else "n_heads"
        refuse(frame, ~unfused, name, "says fused attention where other rows say unfused, and a law is of one", source)
    return np.where(unfused, heads, 0.0)


def _load_doubts(frame: pd.DataFrame) -> tuple[str, ...]:
    """Whether the machine did other work while the rows were measured."""
    busy = frame["busy_cores"].to_numpy(float)
    if np.isnan(busy).all():
        return ("the rows do not say whether the machine was busy with other work",)
    disturbed = busy > BUSY
    if not disturbed.any():
        return ()
    cores = f"up to {np.nanmax(busy):.1f} cores busy while {disturbed.sum()} rows were measured"
    return (f"other work kept {cores}",)
