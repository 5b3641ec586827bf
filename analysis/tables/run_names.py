"""Names of imported runs: one for each run of a study, whatever several tables call theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.tables.names import plain_name
from analysis.tables.numbers import texts
from analysis.tables.reading_log import rows_named
from analysis.tables.study import table_rows
from scaling.arrays import Booleans
from scaling.errors import InputError
from scaling.expression import Expression
from scaling.formatting import listed, plural
from scaling.schema import RUNS

_RUN, _TRUNK = "run_id", "trunk_id"
_NAMES = ("runid", "trunkid")  # without case and marks
_NOT_COMPARED = frozenset({_RUN, _TRUNK, "study", "status", "error", "schema_version"})
_EVERYTHING = tuple(name for name in RUNS if name not in _NOT_COMPARED)
_MODEL = ("n_active", "n_total", "n_active_nonembed", "n_total_nonembed", "n_dense_nonembed", "n_experts", "d_model")
_BLANK = frozenset({"", "nan", "none", "null", "na", "n/a", "-", "<na>"})


def names_of_runs(mapping: Mapping[str, str]) -> Callable[[str], bool]:
    """Which columns of a table name runs or trunks, by themselves or in a `mapping`.

    They are read as text, because 1.10 is not 1.1, 01 is not 1, and a float has no place for 18 digits.
    """
    columns = {theirs for ours, theirs in mapping.items() if ours in (_RUN, _TRUNK)}
    for text in [*columns]:
        with contextlib.suppress(InputError):  # it is told where the mapping is carried out
            columns |= {*Expression(text, "").names}
    return lambda name: name in columns or plain_name(name) in _NAMES


def require_exact_names(frame: pd.DataFrame, source: str) -> None:
    """Raise InputError where names are numbers that floats do not tell apart."""
    for name in (_RUN, _TRUNK):
        if name not in frame or frame[name].dtype.kind != "f":
            continue
        beyond = frame[name][frame[name].abs() >= 2.0**53]
        if len(beyond):
            raise InputError(
                f"{source}: {name} holds numbers of 16 and more digits as floats ({rows_named(beyond.index, beyond)}), "
                "which no longer tell runs apart; give the column as text"
            )


def is_blank(names: pd.Series[str]) -> pd.Series[bool]:
    """Which texts are no name."""
    return names.str.strip().str.casefold().isin(_BLANK)


def without_blank_trunks(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with no trunk where its name is blank or a word for nothing: such a row is a trunk of its own."""
    if _TRUNK not in frame:
        return frame
    names = pd.Series(texts(frame[_TRUNK]), index=frame.index, dtype=object)
    return frame.assign(**{_TRUNK: frame[_TRUNK].mask(is_blank(names))})


def named_by_content(frame: pd.DataFrame) -> pd.Series[str]:
    """The `run_id` of every row; where it has none, the hash of its content: the second of equal rows ends in "-2"."""
    given = frame[_RUN] if _RUN in frame else pd.Series(None, index=frame.index, dtype=object)
    names = pd.Series(texts(given), index=frame.index, dtype=object).where(given.notna(), "").str.strip()
    blank = is_blank(names)
    if not blank.any():
        return names
    hashes = pd.util.hash_pandas_object(frame[blank].drop(columns=_RUN, errors="ignore"), index=False)
    copies = hashes.groupby(hashes).cumcount()
    own = [f"{row:016x}" + (f"-{copy + 1}" if copy else "") for row, copy in zip(hashes, copies, strict=True)]
    return pd.concat([names[~blank], pd.Series(own, index=names.index[blank], dtype=object)]).sort_index()


def named_apart(frame: pd.DataFrame, study: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rows to import, in which a name that the study or the table has for another run ends in a hash of its row, and a
    trunk that the study has of another model in a hash of its model; and a note on those of the study.

    A row that the study has already keeps its name, so that it is there once.
    """
    frame = _with_endings(frame, _RUN, frame[_RUN].duplicated(keep=False).to_numpy(), _EVERYTHING)
    there = table_rows(study, "runs") if study.is_dir() else pd.DataFrame()
    if there.empty:
        return frame, ()
    runs, trunks = (_of_others(frame, there, name) for name in (_RUN, _TRUNK))
    notes: tuple[str, ...] = ()
    if runs.any():
        names = listed(frame.loc[runs, _RUN], most=3)
        notes = (
            f"the study has {plural(int(runs.sum()), _RUN)} of other runs already ({names}): those of this table end "
            "in a hash of their row. If this table is a later state of the same runs, import it into a new study",
        )
    frame = _with_endings(frame, _TRUNK, trunks, _MODEL)
    return _with_endings(frame, _RUN, runs, _EVERYTHING), notes


def _of_others(frame: pd.DataFrame, there: pd.DataFrame, name: str) -> Booleans:
    """The rows whose `run_id` (or trunk) the study has, of another row (or model)."""
    names, known = (rows[name].astype(object) for rows in (frame, there))  # searched faster than texts of Arrow
    ours = (names.notna() & names.isin(known)).to_numpy(dtype=bool).copy()
    if not ours.any():
        return ours
    rows, theirs = frame[ours], there[known.isin(names[ours]).to_numpy(dtype=bool)]
    compared = _MODEL if name == _TRUNK else _EVERYTHING
    ours[ours] = ~np.isin(_hashes(rows, (name, *compared)), _hashes(theirs, (name, *compared)))
    return ours


def _with_endings(frame: pd.DataFrame, name: str, rows: Booleans, columns: Sequence[str]) -> pd.DataFrame:
    """The frame where a name in these rows ends in a hash of these columns."""
    if not rows.any():
        return frame
    endings = [f"-{row & 0xFFFFFF:06x}" for row in _hashes(frame[rows], columns).tolist()]
    names = frame[name].astype(object).copy()
    names[rows] = [f"{given}{ending}" for given, ending in zip(names[rows], endings, strict=True)]
    return frame.assign(**{name: names})


def _hashes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A hash of these columns by row, of the cells that are not blank: equal whether they come from a table or a study,
    and whatever columns either lacks."""
    total = np.zeros(len(frame), dtype=np.uint64)
    for place, name in enumerate(columns, start=1):
        blank = frame[name].isna().to_numpy(dtype=bool) if name in frame else np.ones(len(frame), dtype=bool)
        if blank.all():
            continue
        if RUNS[name].type == pa.string():
            cells = frame[name].astype(object).mask(blank, "").to_numpy(dtype=object)
        else:
            cells = frame[name].to_numpy(dtype=float, na_value=np.nan)
        total += np.where(blank, np.uint64(0), pd.util.hash_array(cells) * np.uint64(2 * place + 1))
    return total
