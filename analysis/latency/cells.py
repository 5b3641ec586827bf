"""Cells of measurements: numbers, words and flags; what cannot be read is refused by column and row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.dense_rows import with_expert_counts
from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog, rows_named
from analysis.tables.rows import ratio
from scaling.arrays import Array, Booleans
from scaling.bounds import LEAST, MOST_EXPERTS
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.device import Device

_TRUE, _FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
_MODEL = re.compile(r"(?<![a-z0-9])(?:[0-9]+x)?([a-z]{1,2}[0-9]{2,4}[a-z]?|v[0-9][ep])(?![a-z0-9])")  # of a device
_MOST = 1e24  # FLOPs and bytes of a step, and every count
_MOST_OF = {"n_experts": MOST_EXPERTS, "n_devices": 1e6, "batch": 1e9, "prompt": 1e9, "generated": 1e9, "time_ms": 1e12}
_ONE_EXPERT = 1e-6  # relative difference of n_total and n_active below which a model is dense
_NOT_ONE = 1.5  # n_total over n_active of a model that cannot be dense, however embeddings are counted
DTYPES: Mapping[str, str] = {
    **dict.fromkeys(("float32", "fp32", "f32", "float", "torch.float32"), "float32"),
    **dict.fromkeys(("bfloat16", "bf16", "torch.bfloat16"), "bfloat16"),
    **dict.fromkeys(("float16", "fp16", "f16", "half", "torch.float16"), "float16"),
}


def spelled(column: pd.Series[Any], known: Mapping[str, str]) -> pd.Series[Any]:
    """The column with known spellings as our words, others unchanged; blank cells are None."""
    cells = column.astype(object)
    words = cells.astype(str).str.strip()
    ours = words.str.lower().map(known)
    plain = ours.where(ours.notna(), words)
    return plain.where(cells.notna() & words.ne(""), None)


def require_words(
    frame: pd.DataFrame, name: str, known: Mapping[str, str], source: str, remedy: str = "", *, blank: bool = False
) -> None:
    """Raises InputError naming the rows whose word is not known, or is blank unless that is allowed."""
    cells = frame[name]
    unknown = cells.notna() & ~cells.isin([*known.values()])
    if not blank:
        unknown = unknown | cells.isna()
    refuse(frame, unknown.to_numpy(bool), name, f"is none of {listed(dict.fromkeys(known.values()))}", source, remedy)


def refuse(
    frame: pd.DataFrame, wrong: Booleans, name: str, why: str, source: str, remedy: str = "", *, cells: bool = True
) -> None:
    """Raises InputError naming column, rows and cells where any row is wrong."""
    if np.any(wrong):
        labels = frame.index[wrong]
        shown = frame[name].astype(object) if cells and name in frame else None
        then = f"; {remedy}" if remedy else ""
        raise InputError(f"{source}: column `{name}` {why} {rows_named(labels, shown)}{then}")


def flags(frame: pd.DataFrame, name: str, source: str) -> pd.Series[Any]:
    """A column of true and false as booleans; blank cells are None. Raises InputError for other words."""
    known = {**dict.fromkeys(_TRUE, "true"), **dict.fromkeys(_FALSE, "false")}
    cells = frame.assign(**{name: spelled(frame[name], known)})
    require_words(cells, name, known, source, blank=True)
    return cells[name].map({"true": True, "false": False}).astype(object)


def with_dense_rows(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with E in every row that says it in words (`analysis.tables.dense_rows`), and with E = 1 and k = 1 in
    rows of dense models that leave them blank: those whose total is their active size."""
    if EXPERTS not in frame:
        return frame
    frame = with_expert_counts(frame, log)
    experts, dense = numbers(frame[EXPERTS]), is_dense(frame)
    blank = experts.missing & dense
    if blank.any():
        rows = rows_named(frame.index[blank])
        log.notes.append(f"{EXPERTS} is blank and n_total is n_active: a dense model, {EXPERTS} = 1, {rows}")
    ones = {EXPERTS: _filled(frame[EXPERTS], blank)}
    for name in ("top_k", "distinct_experts"):
        if name in frame:
            read = numbers(frame[name])
            ones[name] = _filled(frame[name], (blank | (experts.floats == 1)) & (read.missing | (read.floats == 0)))
    return frame.assign(**ones)


def is_dense(frame: pd.DataFrame) -> Booleans:
    """The rows whose total is their active size."""
    if not {"n_active", "n_total"} <= {*frame.columns}:
        return np.zeros(len(frame), dtype=bool)
    active, total = numbers(frame["n_active"]).floats, numbers(frame["n_total"]).floats
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(ratio(total, active) - 1) < _ONE_EXPERT)


def _filled(column: pd.Series[Any], chosen: Booleans) -> pd.Series[Any]:
    return column.astype(object).where(~chosen, 1.0) if chosen.any() else column


def refuse_contradictions(frame: pd.DataFrame, source: str) -> None:
    """Raises InputError for shapes that no model has: E that is not whole, k above E, more active parameters than
    there are, more experts touched than there are."""
    experts, top_k = frame[EXPERTS].to_numpy(float), frame["top_k"].to_numpy(float)
    refuse(frame, experts != np.round(experts), EXPERTS, "is not whole", source)
    refuse(frame, (experts > 1) & (top_k > experts), "top_k", f"is above {EXPERTS}", source)
    width, layers = frame["d_model"].to_numpy(float), frame["n_layers"].to_numpy(float)
    refuse(frame, layers > width, "n_layers", "is above d_model", source, "are the two columns swapped?")
    few = frame["n_active"].to_numpy(float) < width * layers
    refuse(frame, few, "n_active", "is less than one row of weights a layer", source, "is it in millions or billions?")
    slack = 1 + 1e-9
    less = frame["n_total"].to_numpy(float) * slack < frame["n_active"].to_numpy(float)
    refuse(frame, less, "n_active", "is above n_total", source, "are the two columns swapped?")
    more = (experts == 1) & (frame["n_total"].to_numpy(float) > _NOT_ONE * frame["n_active"].to_numpy(float))
    refuse(frame, more, EXPERTS, "is 1, dense, where n_total is far above n_active", source)
    if "distinct_experts" in frame:
        touched = frame["distinct_experts"].to_numpy(float)
        refuse(frame, touched > experts * slack, "distinct_experts", f"is above {EXPERTS}", source)


def refuse_other_devices(frame: pd.DataFrame, name: str, on: Device, source: str) -> None:
    """Raises InputError for rows that name another model of a device than the one they are held against; what is not
    named as devices are (H100, MI300X, v5e) says nothing."""
    own = {*_MODEL.findall(on.name.lower())}
    named = frame[name].astype(object).map(lambda cell: _MODEL.findall(str(cell).lower()))
    others = named.map(lambda models: bool(own) and bool(models) and not own & {*models}).to_numpy(bool)
    refuse(frame, others, name, f"is another device than {on.name}", source, "name theirs with `device`")


def numeric(
    frame: pd.DataFrame, name: str, source: str, log: ReadingLog, remedy: str = "write one number a cell"
) -> Array:
    """A column as floats, NaN where it is blank. Raises InputError naming rows and cells that are text."""
    read = numbers(frame[name])
    why = f"is not a number{f' ({read.doubt})' if read.doubt else ''}"
    refuse(frame, read.unreadable, name, why, source, remedy)
    log.notes += [f"{name}: {convention}" for convention in read.conventions]
    return read.floats


def not_measured(frame: pd.DataFrame, name: str, source: str, log: ReadingLog) -> Booleans:
    """The rows in which a measurement is a word, such as OOM, for there is none; they are named. Raises InputError for
    text with digits, which may be a number in another form."""
    read, words = numbers(frame[name]), frame[name].astype(object)
    digits = words.astype(str).str.contains(r"\d").to_numpy(bool)
    why = f"is not a plain number{f' ({read.doubt})' if read.doubt else ''}"
    refuse(frame, read.unreadable & digits, name, why, source, "write digits and a decimal point, without a unit")
    log.name_rows(f"{name} not measured", frame.index[read.unreadable], words)
    return read.unreadable


def usable(
    frame: pd.DataFrame, positive: Sequence[str], log: ReadingLog, at_least_0: Sequence[str] = ()
) -> pd.DataFrame:
    """The rows in which these columns are finite and positive, or at least 0; others are counted and named by column
    and row."""
    for name in (*positive, *at_least_0):
        values = frame[name].to_numpy(float)
        low, lacking = (values < LEAST, "not positive") if name in positive else (values < 0, "negative")
        most = _MOST_OF.get(name, _MOST)
        beyond = np.isfinite(values) & (values > most)
        reasons = {"missing": np.isnan(values), "infinite": np.isinf(values), lacking: np.isfinite(values) & low}
        reasons[f"above {most:g}"] = beyond
        for reason, rows in reasons.items():
            log.name_rows(f"{name} {reason}", frame.index[rows])
            log.counts.append((f"{name} {reason}", int(rows.sum())))
        frame = frame[~np.any([*reasons.values()], axis=0)]
    return frame
