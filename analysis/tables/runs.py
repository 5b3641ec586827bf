"""Runs: read and validate a study folder or any table, and count the rows left out by reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.laws import Law
from analysis.tables.counts import columns_as_given, how_to_derive, with_counts, with_tokens
from analysis.tables.dense_rows import require_expert_counts, with_dense_rows, with_expert_counts
from analysis.tables.doubts import Doubt
from analysis.tables.expressions import as_term, doubt_of, where_selected
from analysis.tables.mapping import TIED, mapped
from analysis.tables.method_kinds import kinds_of_method
from analysis.tables.names import with_our_names
from analysis.tables.numbers import column_of
from analysis.tables.one_row_a_run import one_row_a_run
from analysis.tables.plausibility import plausibility, repeats
from analysis.tables.readers import read_table, with_plain_cells
from analysis.tables.reading_log import CheckedTable, ReadingLog, Selection, rows_named
from analysis.tables.rows import Rows, rows_of
from analysis.tables.run_names import names_of_runs, require_exact_names, without_blank_trunks
from analysis.tables.status_words import with_finished
from analysis.tables.study import read_study
from analysis.tables.tasks import is_of_other_task, metrics_hint
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE, EXPERTS, LOSS, TOKENS
from scaling.errors import InputError
from scaling.expression import Expression
from scaling.formatting import listed, plural, si
from scaling.schema import RUNS
from scaling.summary import Summarised, summary_table
from scaling.table import Table

_SUMMARISED = (EXPERTS, "n_active", "n_total", TOKENS, COMPUTE, LOSS)
_NUMBERS = frozenset({TIED, *(name for name, column in RUNS.items() if column.type in (pa.int64(), pa.float64()))})


@dataclass(frozen=True, repr=False)
class RunTable(Summarised, CheckedTable):
    """Runs with a loss, one per row."""

    def columns(self, names: Iterable[str]) -> dict[str, Array]:
        return {name: self.column(name) for name in names}

    @property
    def experts(self) -> Array:
        """E of each row; 1 where the table does not say."""
        return np.nan_to_num(self.column(EXPERTS), nan=1.0) if EXPERTS in self.frame else np.ones(len(self))

    @property
    def trunks(self) -> Integers:
        """The trunk of each row as a whole number; a row without `trunk_id` is a trunk of its own."""
        rows = np.arange(len(self.frame))
        if "trunk_id" not in self.frame:
            return rows
        codes = pd.factorize(self.frame["trunk_id"])[0]
        return np.where(codes < 0, len(rows) + rows, codes)

    def for_law(self, law: Law) -> RunTable:
        """The runs that a law can be fitted to; others are dropped and counted, as `read_runs` does for its `law`.

        Raises InputError where a column of the law is missing or no run is left.
        """
        log = ReadingLog(counts=[*self.dropped], notes=[*self.notes])
        labelled = rows_of(self).frame
        frame, unreadable = _as_numbers(labelled, _needed(law), log, self.source, {})
        _require_columns(frame, _needed(law), law, self.source)
        frame = _usable(frame, _needed(law), unreadable, log)
        _require_rows(frame, self.source, log, log.row_numbers if self.labels is not None else ())
        usable = replace(self.only(labelled.index.isin(frame.index)), frame=frame.reset_index(drop=True))
        found = [*repeats(rows_of(usable), _needed(law)), *_trunk_doubts(frame, law)]
        known = {(doubt.code, doubt.columns) for doubt in found}
        doubts = (*(doubt for doubt in self.doubts if (doubt.code, doubt.columns) not in known), *found)
        log.notes += [note for note in _independence(frame, law) if note not in log.notes]
        return replace(usable, dropped=log.dropped, notes=tuple(log.notes), doubts=doubts)

    def summary(self) -> Table:
        """What was read: the ranges of the columns that laws use, the rows left out, and what was assumed."""
        columns = self.columns(name for name in _SUMMARISED if name in self.frame and self.frame[name].notna().any())
        rows = [(name, si(np.nanmin(values)), si(np.nanmax(values))) for name, values in columns.items()]
        left_out = [f"left out: {count} with {reason}" for reason, count in self.dropped]
        heading = f"{plural(len(self), 'run')} of {self.source}"
        doubted = [f"doubt: {doubt}" for doubt in self.doubts]
        return summary_table(heading, ("column", "least", "largest"), rows, (*doubted, *left_out, *self.notes))


def read_runs(
    source: str | Path | pd.DataFrame,
    mapping: Mapping[str, str] | None = None,
    where: str | None = None,
    law: Law | None = None,
    drop_highest_loss: int = 0,
    drop_duplicates: bool = False,
) -> RunTable:
    """The runs of a study folder (its runs/*.parquet), a file (`analysis.tables.readers.read_table`) or a frame.

    `mapping` is {our column: the table's column or arithmetic} (`analysis.tables.mapping.mapped`), `where` a condition
    on the mapped columns (`scaling.expression`). With `drop_duplicates` rows that repeat an earlier one are dropped
    first. Of several rows of a run the last is kept (`analysis.tables.one_row_a_run`); then rows that do not meet the
    condition are left out, and runs that did not finish (`analysis.tables.status_words`). With a `law`, rows in which
    one of its columns is not a positive number are dropped, then the `drop_highest_loss` rows of highest loss. Without
    `tokens`, D = C/(6 N). The notes on a table that is not a study folder give the assumed meaning of its counts,
    derived counts, and the numbers of the rows left out, from 1. Raises InputError when the source cannot be read, a
    column is missing, a row does not say its E where the law needs it, or no row is left.
    """
    log, name = ReadingLog(), "DataFrame" if isinstance(source, pd.DataFrame) else str(source)
    if drop_highest_loss < 0:
        raise InputError(f"`drop_highest_loss` must be at least 0, found {drop_highest_loss}")
    foreign = isinstance(source, pd.DataFrame) or not Path(source).is_dir()
    if isinstance(source, pd.DataFrame):
        frame = with_plain_cells(source, name)
    else:
        frame = read_table(Path(source), names_of_runs(mapping or {})) if foreign else read_study(Path(source), log)
    if drop_duplicates:
        frame = log.drop(frame, frame.duplicated(), "an exact repeat of an earlier row")
    frame, terms = mapped(frame, mapping or {}, name, log, (*law.columns, law.target) if law else ())
    target, needed = (law.target, _needed(law)) if law else (LOSS, [LOSS])
    asked = Expression(where, "`where`").names if where is not None else ()
    frame = with_our_names(frame, asked, log, needed)
    require_exact_names(frame, name)
    frame = without_blank_trunks(frame)
    frame = with_expert_counts(frame, log)

    with_experts = [*needed, EXPERTS] if foreign and law is None and EXPERTS in frame else needed
    frame, unreadable = _as_numbers(frame, with_experts, log, name, terms)
    experts_as_text = unreadable.get(EXPERTS, pd.Series(dtype=object))
    frame = with_dense_rows(frame, experts_as_text.index, log)
    frame = one_row_a_run(frame, target, asked, log, name, of_study=not foreign)
    given = frozenset(frame.columns)
    if foreign:
        frame = with_counts(frame, log)
    frame = with_tokens(frame, log)
    _require_columns(frame, needed, law, name)

    frame = where_selected(frame, where, log)
    frame = with_finished(frame, asked, log)
    if EXPERTS in with_experts:
        require_expert_counts(Rows(frame, name, not foreign), needed, experts_as_text)
    frame = _usable(frame, needed, unreadable, log)
    frame = _without_highest(frame, target, drop_highest_loss, log)
    _require_rows(frame, name, log, [*log.row_numbers, *log.remedies] if foreign else ())
    if foreign:
        log.notes += columns_as_given(frame, needed if law else sorted(given))
        log.notes += [f"left out: {'; '.join(log.row_numbers)}"] if log.row_numbers else []
        log.notes += log.remedies
    log.notes += [*_method_notes(frame), *_independence(frame, law)]
    # What is plausible is known of language models: their units, and FLOPs of 6 N D.
    found = () if is_of_other_task(frame) else plausibility(Rows(frame, name, not foreign), terms, given, needed)
    doubts = (*log.doubts, *found, *_trunk_doubts(frame, law))
    labels = frame.index.to_numpy(dtype=np.int64) if foreign else None
    read = Selection(dict(mapping or {}), where, drop_highest_loss)
    return RunTable(frame.reset_index(drop=True), name, log.dropped, tuple(log.notes), doubts, labels, read)


def _needed(law: Law) -> list[str]:
    """The columns that a fit of the law reads."""
    return [*dict.fromkeys(name for name in (law.n_column, *law.columns) if name), law.target]


def _as_numbers(
    frame: pd.DataFrame, needed: Sequence[str], log: ReadingLog, source: str, terms: Mapping[str, str]
) -> tuple[pd.DataFrame, dict[str, pd.Series[Any]]]:
    """The frame with numeric columns as numbers, and the unreadable cells of `needed` columns.

    Unreadable cells of other columns are treated as missing, with a note. Raises InputError where the commas of a
    needed column can be read in two ways.
    """
    columns: dict[str, Array] = {}
    unreadable: dict[str, pd.Series[Any]] = {}
    for name in (name for name in frame.columns if name in _NUMBERS or name in needed):
        column, read = column_of(frame[name])
        log.notes += [f"{name}: {convention}" for convention in read.conventions]
        if name == TIED and column.true is not None:
            columns[name] = np.where(read.missing, np.nan, column.true)
            continue
        doubt = doubt_of(frame[name], read, terms.get(name, as_term(name)), name) if read.doubt else ""
        cells = frame.loc[read.unreadable, name]
        if name in needed:
            if doubt:
                raise InputError(f"{source}: {doubt}")
            unreadable[name] = cells
        elif len(cells):
            place = rows_named(cells.index, cells)
            note = f"{name}: not a number in {plural(len(cells), 'row')}, treated as missing ({place})"
            log.notes.append(f"{doubt}; treated as missing" if doubt else note)
        if name in needed or not pd.api.types.is_numeric_dtype(frame[name]) or pd.api.types.is_bool_dtype(frame[name]):
            columns[name] = read.floats
    return frame.assign(**columns), unreadable


def _require_columns(frame: pd.DataFrame, needed: Sequence[str], law: Law | None, source: str) -> None:
    missing = [name for name in needed if name not in frame]
    target = law.target if law else LOSS
    if missing:
        needing = f", which law {law.name} needs" if law else ""
        what = f"the column {missing[0]} is" if len(missing) == 1 else f"the columns {', '.join(missing)} are"
        names = " ".join(f"{name}=NAME" for name in missing)
        remedy = f"Rename with `map` {names}{how_to_derive(frame, missing)}"
        columns = listed(frame.columns, most=40)
        hint = metrics_hint(frame) if target in missing else ""
        raise InputError(f"{source}: {what} missing{needing}; it has {columns}. {remedy}{hint}")


def _require_rows(frame: pd.DataFrame, source: str, log: ReadingLog, row_numbers: Sequence[str]) -> None:
    if frame.empty:
        reasons = "; ".join(f"{count} with {reason}" for reason, count in log.dropped) or "the table has no rows"
        rows = f": {'; '.join(row_numbers)}" if row_numbers else ""
        raise InputError(f"{source}: no usable run is left ({reasons}){rows}")


def _usable(
    frame: pd.DataFrame, needed: Sequence[str], unreadable: Mapping[str, pd.Series[Any]], log: ReadingLog
) -> pd.DataFrame:
    """Rows whose needed columns are positive finite numbers (E whole and at least 1)."""
    for name in needed:
        least = 1.0 if name == EXPERTS else np.nextafter(0.0, 1.0)
        values = frame[name].to_numpy(dtype=float, na_value=np.nan, copy=True)
        cells = unreadable.get(name, pd.Series(dtype=object))
        no_number = frame.index.isin(cells.index)
        reasons = {
            "missing": np.isnan(values) & ~no_number,
            "not a number": no_number,
            "infinite": np.isinf(values) & ~no_number,
            "below 1" if name == EXPERTS else "not positive": np.isfinite(values) & (values < least) & ~no_number,
            "not whole": (name == EXPERTS) & (values >= least) & (values != np.round(values)),
        }
        for reason, excluded in reasons.items():
            log.counts.append((f"{name} {reason}", int(excluded.sum())))
            log.name_rows(f"{name} {reason}", frame.index[excluded], cells if excluded is no_number else None)
        frame = frame.assign(**{name: values})[~np.any(list(reasons.values()), axis=0)]
    return frame


def _without_highest(frame: pd.DataFrame, target: str, count: int, log: ReadingLog) -> pd.DataFrame:
    if not count or frame.empty:
        return frame
    if count >= len(frame):
        raise InputError(f"`drop_highest_loss` must be below {len(frame)}, the usable runs, or none is left")
    highest = frame[target].sort_values(kind="stable").index[len(frame) - count :]
    excluded = frame.index.isin(highest)
    log.name_rows("the highest losses", frame.index[excluded])
    return log.drop(frame, excluded, f"highest {'losses' if target == LOSS else target}, as asked")


def _method_notes(frame: pd.DataFrame) -> list[str]:
    notes = []
    kinds = kinds_of_method(frame)
    if len(kinds) > 1:
        notes.append(
            f"the routed runs use {len(kinds)} methods ({listed(kinds)}): a law in E treats them as one and confounds "
            "the effect of the method with that of E; select one with `where`"
        )
    for name in ("optimiser", "parametrisation"):
        found = sorted(map(str, frame[name].dropna().unique())) if name in frame else []
        if len(found) > 1:
            notes.append(
                f"the runs differ in {name} ({listed(found)}): a law takes its effect for that of size, tokens or E; "
                "select one with `where`"
            )
    return notes


def _independence(frame: pd.DataFrame, law: Law | None) -> list[str]:
    """A note where rows may not be independent runs."""
    if law is None or not law.n_column or TOKENS not in frame:
        return []
    if "trunk_id" in frame and frame["trunk_id"].notna().any():
        return []
    several = int(
        frame.groupby([name for name in (law.n_column, EXPERTS) if name in frame])[TOKENS].nunique().gt(1).sum()
    )
    if not several:
        return []
    return [
        f"every row counts as an independent run, but {plural(several, 'model')} "
        f"{'has' if several == 1 else 'have'} several token budgets: if these are "
        "points of one training run, intervals are too narrow; name the runs with `map` trunk_id=COLUMN"
    ]


def _trunk_doubts(frame: pd.DataFrame, law: Law | None) -> list[Doubt]:
    """Whether a trunk has runs of several E."""
    if law is None or not {"trunk_id", EXPERTS} <= set(frame.columns):
        return []
    if not frame.groupby("trunk_id")[EXPERTS].nunique().gt(1).any():
        return []
    message = "a trunk_id spans several n_experts, but a trunk is one training run: was the name used twice?"
    return [Doubt("trunk_of_several_experts", ("trunk_id", EXPERTS), (), message)]
