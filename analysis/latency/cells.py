"""Cells of measurements: numbers, words and flags; what cannot be read is refused by column and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.readers import numbers
from analysis.tables.reading_log import ReadingLog, rows_named
from scaling.arrays import Array, Booleans
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.formatting import listed

_TRUE, _FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
_DENSE = ("dense", "none", "-", "n/a", "na")
_ONE_EXPERT = 1e-6  # relative difference of n_total and n_active below which a model is dense
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
        raise InputError(f"{source}: `{name}` {why} {rows_named(labels, shown)}{then}")


def flags(frame: pd.DataFrame, name: str, source: str) -> pd.Series[Any]:
    """A column of true and false as booleans; blank cells are None. Raises InputError for other words."""
    known = {**dict.fromkeys(_TRUE, "true"), **dict.fromkeys(_FALSE, "false")}
    cells = frame.assign(**{name: spelled(frame[name], known)})
    require_words(cells, name, known, source, blank=True)
    return cells[name].map({"true": True, "false": False}).astype(object)


def with_dense_rows(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with E = 1 and k = 1 in dense rows that write E as 0, blank or a word: those whose total is their
    active size."""
    if EXPERTS not in frame or not {"n_active", "n_total"} <= {*frame.columns}:
        return frame
    active, total, cells = numbers(frame["n_active"]).floats, numbers(frame["n_total"]).floats, numbers(frame[EXPERTS])
    words = frame[EXPERTS].astype(object).astype(str).str.strip().str.lower()
    says_nothing = cells.missing | (cells.floats == 0) | words.isin(_DENSE).to_numpy(bool)
    with np.errstate(invalid="ignore"):
        dense = np.abs(total / active - 1) < _ONE_EXPERT
    told = says_nothing & dense
    if told.any():
        log.notes.append(
            f"{EXPERTS} is 0, blank or a word {rows_named(frame.index[told])}, whose n_total is its n_active: dense, "
            f"{EXPERTS} = 1"
        )
    ones = {EXPERTS: _filled(frame[EXPERTS], told)}
    one = dense & (told | (cells.floats == 1))
    for name in ("top_k", "distinct_experts"):
        if name in frame:
            found = numbers(frame[name])
            ones[name] = _filled(frame[name], one & (found.missing | (found.floats == 0) | found.unreadable))
    return frame.assign(**ones)


def _filled(column: pd.Series[Any], chosen: Booleans) -> pd.Series[Any]:
    return column.astype(object).where(~chosen, 1.0) if chosen.any() else column


def refuse_contradictions(frame: pd.DataFrame, source: str) -> None:
    """Raises InputError for shapes that no model has: E that is not whole, k above E, more active parameters than
    there are, more experts touched than there are."""
    experts, top_k = frame[EXPERTS].to_numpy(float), frame["top_k"].to_numpy(float)
    refuse(frame, experts != np.round(experts), EXPERTS, "is not whole", source)
    refuse(frame, (experts > 1) & (top_k > experts), "top_k", f"is above {EXPERTS}", source)
    slack = 1 + 1e-9
    less = frame["n_total"].to_numpy(float) * slack < frame["n_active"].to_numpy(float)
    refuse(frame, less, "n_active", "is above n_total", source, "are the two columns swapped?")
    if "distinct_experts" in frame:
        touched = frame["distinct_experts"].to_numpy(float)
        refuse(frame, touched > experts * slack, "distinct_experts", f"is above {EXPERTS}", source)


def numeric(
    frame: pd.DataFrame, name: str, source: str, log: ReadingLog, remedy: str = "write one number a cell"
) -> Array:
    """A column as floats, NaN where it is blank. Raises InputError naming rows and cells that are text."""
    read = numbers(frame[name])
    refuse(frame, read.unreadable, name, "is not a number", source, remedy)
    log.notes += [f"{name}: {convention}" for convention in read.conventions]
    return read.floats


def usable(
    frame: pd.DataFrame, positive: Sequence[str], log: ReadingLog, at_least_0: Sequence[str] = ()
) -> pd.DataFrame:
    """The rows in which these columns are finite and positive, or at least 0; others are counted and named by column
    and row."""
    for name in (*positive, *at_least_0):
        values = frame[name].to_numpy(float)
        low, lacking = (values <= 0, "not positive") if name in positive else (values < 0, "negative")
        reasons = {"missing": np.isnan(values), "infinite": np.isinf(values), lacking: np.isfinite(values) & low}
        for reason, rows in reasons.items():
            log.name_rows(f"{name} {reason}", frame.index[rows])
            log.counts.append((f"{name} {reason}", int(rows.sum())))
        frame = frame[~np.any([*reasons.values()], axis=0)]
    return frame
