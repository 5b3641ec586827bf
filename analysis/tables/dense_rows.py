"""Expert counts as people write them: words, dense models among routed ones, and rows that do not say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.names import named
from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog, rows_named
from analysis.tables.rows import Rows, floats, ratio
from scaling.arrays import Array, Booleans
from scaling.columns import EXPERTS, LOSS, TOKENS
from scaling.formatting import listed, plural

_K = "top_k"
_DENSE = frozenset({"dense", "none", "no", "off", "false", "-", "–", "—", "n/a", "na"})
_COUNTS = (  # E in words of one meaning
    re.compile(r"(\d+) *(?:routed +)?(?:e|experts?)", re.IGNORECASE),
    re.compile(r"(?:e|experts?|n_experts|num_experts) *[=:] *(\d+)", re.IGNORECASE),
    re.compile(r"(\d+)x\d+(?:\.\d+)?[mbt]?", re.IGNORECASE),  # 8x7B
)
_CHOSEN = re.compile(r"(\d+) *(?:/|of|out of) *(\d+)", re.IGNORECASE)
_SHARED = re.compile(r"(\d+) *\+ *(\d+)")
_KINDS = ("router", "experts", "type", "kind", "modeltype", "arch", "architecture", "family", "method", "model", "name")
_SAME = 1.01  # counts are rounded
_FEWEST_PAIRS = 3


def with_expert_counts(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The table with E = 1 for 0, `dense`, `-` and the like, and with the count of `8 experts`, `E=8` or `8x7B`.

    A word in place of the k of a dense model is blank.
    """
    if EXPERTS not in frame:
        return frame
    column = frame[EXPERTS]
    if not pd.api.types.is_numeric_dtype(column):
        words = {cell: _count(cell) for cell in column.dropna().unique() if isinstance(cell, str)}
        read = {cell: count for cell, count in words.items() if count is not None}
        if read:
            column = column.map(lambda cell: read.get(cell, cell))
            shown = listed((f"{cell!r} is E = {count}" for cell, count in read.items()), most=5)
            log.notes.append(f"{EXPERTS}: {shown}")
    zero = numbers(column).floats == 0
    if zero.any():
        column = column.mask(zero, 1)
        log.notes.append(f"{EXPERTS}: 0 is a dense model, E = 1, in {plural(int(zero.sum()), 'row')}")
    frame = frame.assign(**{EXPERTS: column})
    if _K in frame and not pd.api.types.is_numeric_dtype(frame[_K]):
        k = frame[_K]
        no_number = k.map(lambda cell: isinstance(cell, str) and cell.strip().casefold() in _DENSE).to_numpy(dtype=bool)
        experts = numbers(column).floats
        frame = frame.assign(**{_K: k.mask(no_number & ~(experts > 1))})
    return frame


def with_dense_rows(frame: pd.DataFrame, text: pd.Index[Any], log: ReadingLog) -> pd.DataFrame:
    """The table, whose counts are numbers, with E = 1 where E is blank and the row is certainly a dense model; and with
    k = 1 for dense models without one, as it means nothing there. `text` are the rows whose E could not be read.
    """
    if EXPERTS not in frame:
        return frame
    experts = floats(frame, EXPERTS)
    blank = np.isnan(experts) & ~frame.index.isin(text)
    if blank.any() and not np.isnan(experts).all():
        dense, because = _certainly_dense(frame, experts, blank)
        if dense.any():
            log.notes.append(
                f"{EXPERTS} is blank in {plural(int(dense.sum()), 'row')} of dense models, E = 1: {listed(because)}"
            )
        experts = np.where(dense, 1.0, experts)
        frame = frame.assign(**{EXPERTS: experts})
    k = floats(frame, _K)
    without = (experts == 1) & ~(k > 0)
    return frame.assign(**{_K: np.where(without, 1.0, k)}) if _K in frame and without.any() else frame


def require_expert_counts(rows: Rows, needed: Sequence[str], cells: pd.Series[Any]) -> None:
    """Raise InputError, by row, where a usable row does not say its E while others do: a law in E must not lose its
    dense models. `cells` are those that could not be read, by row."""
    if EXPERTS not in rows.frame:
        return
    unknown = np.isnan(rows.floats(EXPERTS))
    text = rows.frame.index.isin(cells.index)
    unknown &= np.all([rows.floats(name) > 0 for name in needed if name in rows.frame and name != EXPERTS], axis=0)
    remedy = f"leave them out with `where` '{EXPERTS} >= 1'"
    if (unknown & text).any():
        odd = cells[cells.index.isin(rows.frame.index[unknown])]
        meanings = [meaning for cell in dict.fromkeys(odd.map(str)) if (meaning := _meaning(cell))]
        place = rows_named(odd.index, odd) if not rows.of_study else rows.named(unknown & text)
        raise rows.refusal(
            f"{EXPERTS} {place} is no count of experts{': ' if meanings else ''}{'; '.join(meanings[:3])}. "
            f"Write the counts, or {remedy}"
        )
    if unknown.any() and np.isfinite(rows.floats(EXPERTS)).any():
        raise rows.refusal(
            f"{EXPERTS} is blank {rows.named(unknown)}, and nothing says that these models are dense. Write 1 for "
            f"a dense model, or {remedy}"
        )


def _count(cell: str) -> int | None:
    """E in words; None for a plain number and for words of no or of several meanings."""
    plain = cell.strip()
    if plain.casefold() in _DENSE:
        return 1
    found = next((match for pattern in _COUNTS if (match := pattern.fullmatch(plain))), None)
    return max(1, int(found[1])) if found else None


def _meaning(cell: str) -> str:
    """What `2/8` or `128+1` would mean; empty where that is not known."""
    if found := _CHOSEN.fullmatch(cell.strip()):
        return f"{cell!r} would mean {EXPERTS} = {found[2]} and {_K} = {found[1]}"
    if found := _SHARED.fullmatch(cell.strip()):
        return f"{cell!r} would mean {found[1]} routed and {found[2]} shared experts, {EXPERTS} = {found[1]}"
    return ""


def _certainly_dense(frame: pd.DataFrame, experts: Array, blank: Booleans) -> tuple[Booleans, list[str]]:
    """The rows of blank E that something shows to be dense and nothing to be routed, and what shows it."""
    held = ratio(floats(frame, "n_total"), floats(frame, "n_active"))
    words = _kinds(frame)
    k = floats(frame, _K)
    says_k = bool((k[experts > 1] >= 1).all() and (experts > 1).any() and _K in frame)
    shown = {
        "n_total is n_active": (held < _SAME) & (held > 1 / _SAME),
        "they are called dense": words == "dense",
        f"they have no {_K}, and routed models have one": says_k & ~(k > 0),
        "their loss is above that of every routed model of the same size and tokens": _worse(frame, experts, blank),
    }
    routed = (held >= _SAME) | (words == "routed") | (k > 1)
    dense = blank & np.any(list(shown.values()), axis=0) & ~routed
    return dense, [reason for reason, rows in shown.items() if (rows & dense).any()]


def _kinds(frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.object_]]:
    """ "dense" or "routed" where a name of the row says so, else ""."""
    kinds = np.full(len(frame), "", dtype=object)
    for name in named(frame, _KINDS):
        if not pd.api.types.is_numeric_dtype(frame[name]):
            cells = frame[name].astype(str)
            for kind, pattern in (("dense", r"\bdense\b"), ("routed", r"\bmoe\b|mixture|sparse|switch|\d+x\d+")):
                kinds[cells.str.contains(pattern, case=False).to_numpy(dtype=bool) & (kinds == "")] = kind
    return kinds


def _worse(frame: pd.DataFrame, experts: Array, blank: Booleans) -> Booleans:
    """The rows of blank E, where no row says that it is dense and nearly all have a higher loss than each routed model
    of their N_active and D."""
    nothing = np.zeros(len(frame), dtype=bool)
    if (experts == 1).any() or not {"n_active", TOKENS, LOSS} <= set(frame.columns):
        return nothing
    cells = pd.DataFrame({name: floats(frame, name) for name in ("n_active", TOKENS, LOSS)})
    routed = cells[experts > 1].groupby(["n_active", TOKENS])[LOSS].max().rename("routed")
    pairs = cells[blank].join(routed, on=["n_active", TOKENS]).dropna()
    if len(pairs) < _FEWEST_PAIRS or (pairs[LOSS] > pairs["routed"]).mean() < 0.9:
        return nothing
    return blank
