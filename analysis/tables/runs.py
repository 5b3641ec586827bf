"""Runs: read a study folder or anybody's table, validate it, and count what was left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.laws import Law
from analysis.tables.conventions import doubts, stated, undecided, with_counts, with_tokens
from analysis.tables.mapping import TIED, mapped
from analysis.tables.method_kinds import kinds_of_method
from analysis.tables.readers import listed, numbers, read_table
from analysis.tables.study import read_study
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE as COMPUTE
from scaling.columns import EXPERTS, TOKENS
from scaling.columns import LOSS as LOSS
from scaling.errors import InputError
from scaling.schema import RUNS

_NUMBERS = frozenset({TIED, *(name for name, column in RUNS.items() if column.type in (pa.int64(), pa.float64()))})
_SHOWN = 3  # rows named for each reason why rows were left out


@dataclass(frozen=True)
class RunTable:
    """Runs that carry a loss, one a row, in the columns of `scaling.schema`.

    `dropped` says how many rows were left out for which reason, `notes` which conventions were assumed.
    """

    frame: pd.DataFrame
    source: str
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> Array:
        """A copy of a numeric column. Raises InputError naming the columns there are."""
        if name not in self.frame:
            raise InputError(f"{self.source}: no column {name!r}; it has {listed(self.frame.columns)}")
        return self.frame[name].to_numpy(dtype=float, copy=True)

    def columns(self, names: Iterable[str]) -> dict[str, Array]:
        return {name: self.column(name) for name in names}

    @property
    def trunks(self) -> Integers:
        """Which trunk each row belongs to, as whole numbers; a row without `trunk_id` is a trunk of its own."""
        rows = np.arange(len(self.frame))
        if "trunk_id" not in self.frame:
            return rows
        codes = pd.factorize(self.frame["trunk_id"])[0]
        return np.where(codes < 0, len(rows) + rows, codes)


def read_runs(
    source: str | Path,
    mapping: Mapping[str, str] | None = None,
    where: str | None = None,
    law: Law | None = None,
    drop_highest_loss: int = 0,
    drop_duplicates: bool = False,
) -> RunTable:
    """The runs of a study folder (its runs/*.parquet) or of anybody's table (`analysis.tables.readers.read_table`).

    `mapping` makes our columns of the table's, {ours: column or arithmetic} (`analysis.tables.mapping.mapped`). `where`
    is a pandas query over the columns after that. With a `law`, rows whose N, tokens or other columns of it are not
    positive numbers are dropped and counted, and so are then the `drop_highest_loss` rows of highest loss. With
    `drop_duplicates` a row that equals an earlier one in every cell is dropped first. Where `tokens` is missing and
    `train_flops` is there, D = C/(6 N). Of a table that is no study folder the notes say what its counts are taken for,
    which were derived, what is implausible, and which rows, counted from 1, were left out. Raises InputError when the
    source cannot be read, a column is missing or no row is left.
    """
    path = Path(source)
    foreign = not path.is_dir()
    frame, dropped = (read_table(path), []) if foreign else read_study(path)
    notes: list[str] = []
    places: list[str] = []
    if drop_duplicates:
        repeated = frame.duplicated()
        dropped.append(("a repeat of an earlier row in every cell", int(repeated.sum())))
        frame = frame[~repeated]
    frame, terms = mapped(frame, mapping or {}, str(source), notes)
    if "status" in frame:
        failed = frame.loc[frame["status"].ne("ok"), "status"]
        dropped += [(f"status {status}", int(count)) for status, count in failed.value_counts(dropna=False).items()]
        frame = frame[frame["status"].eq("ok")]
    if "run_id" in frame and frame["run_id"].duplicated().any():
        repeated = frame["run_id"].duplicated()
        dropped.append(("run_id seen before", int(repeated.sum())))
        frame = frame[~repeated]
    target = LOSS if law is None else law.target
    inputs = () if law is None else (law.n_column, *law.columns)
    wanted = [*dict.fromkeys(name for name in inputs if name), target]
    frame, unreadable = _as_numbers(frame, wanted, notes)
    given = frozenset(frame.columns)
    if foreign:
        frame = with_counts(frame, notes)
    frame = with_tokens(frame, notes)
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise InputError(
            f"{source}: the column {', '.join(missing)} is missing"
            + (f", which law {law.name} needs" if law else "")
            + f"; the table has {listed(frame.columns)}. Rename with --map {missing[0]}=NAME"
            + undecided(frame, missing)
        )
    frame = _usable(frame, wanted, unreadable, dropped, places)
    frame = where_selected(frame, where, dropped)
    if drop_highest_loss:
        if drop_highest_loss < 0:
            raise InputError(f"--drop-highest-loss must be at least 0, found {drop_highest_loss}")
        order = frame[target].sort_values(kind="stable").index
        dropped.append(
            (f"highest {'losses' if target == LOSS else target}, as asked", min(drop_highest_loss, len(frame)))
        )
        left_out = frame.index.isin(order[max(0, len(order) - drop_highest_loss) :])
        places += _examples("the highest losses", frame.index[left_out])
        frame = frame[~left_out]
    dropped = [(reason, count) for reason, count in dropped if count]
    if frame.empty:
        told = "; ".join(f"{count} with {reason}" for reason, count in dropped) or "the table has no rows"
        raise InputError(
            f"{source}: no usable run is left ({told})" + (f": {'; '.join(places)}" if foreign and places else "")
        )
    if foreign:
        notes += [note for note in (stated(frame, wanted if law else sorted(given)),) if note]
        notes += [f"left out: {'; '.join(places)}"] if places else []
        notes += doubts(frame, terms, given)
    kinds = kinds_of_method(frame)
    if len(kinds) > 1:
        notes.append(
            f"the routed runs are of {len(kinds)} methods ({listed(kinds)}): a law over E takes them for one and "
            "cannot tell what is the method's and what E's; fit one at a time with --where"
        )
    same = [name for name in (*wanted, "seed", "run_id") if name in frame]
    repeats = int(frame.duplicated(same).sum())
    if repeats:
        notes.append(
            f"{repeats} rows repeat another row's {', '.join(wanted)} exactly; they were kept (`scaling import "
            "--drop-duplicates` leaves out those that repeat all of a row)"
        )
    notes += _about_trunks(frame, law)
    return RunTable(frame.reset_index(drop=True), str(source), tuple(dropped), tuple(notes))


def _about_trunks(frame: pd.DataFrame, law: Law | None) -> list[str]:
    """What to know of a table whose rows may not be independent runs."""
    if law is None or not law.n_column or TOKENS not in frame:
        return []
    if "trunk_id" not in frame or frame["trunk_id"].isna().all():
        shape = [name for name in (law.n_column, EXPERTS) if name in frame]
        several = frame.groupby(shape)[TOKENS].nunique().gt(1)
        if several.any():
            return [
                f"every row counts as a run of its own, though {int(several.sum())} models have several token budgets: "
                "if those are points of one training run, intervals are too narrow; say so with --map trunk_id=COLUMN"
            ]
        return []
    if EXPERTS in frame and frame.groupby("trunk_id")[EXPERTS].nunique().gt(1).any():
        return [
            "warning: some trunk_id spans several n_experts: is it a name that was used again? A trunk is one training "
            "run"
        ]
    return []


def _as_numbers(
    frame: pd.DataFrame, wanted: Sequence[str], notes: list[str]
) -> tuple[pd.DataFrame, dict[str, pd.Series[Any]]]:
    """The frame with its number columns as numbers, and the cells of `wanted` ones that cannot be read.

    What cannot be read in another column is taken for missing, with a note.
    """
    made: dict[str, Any] = {}
    unreadable: dict[str, pd.Series[Any]] = {}
    for name in (name for name in frame.columns if name in _NUMBERS or name in wanted):
        read = numbers(frame[name])
        notes += [f"{name}: {told}" for told in read.conventions]
        cells = frame.loc[read.unreadable, name]
        if name in wanted:
            unreadable[name] = cells
        elif len(cells):
            where = _examples("", cells.index, cells)[0].strip()
            notes.append(f"{name}: {len(cells)} cells are no numbers and were taken for missing ({where})")
        if name in wanted or not pd.api.types.is_numeric_dtype(frame[name]):
            made[name] = read.floats
    return frame.assign(**made), unreadable


def _usable(
    frame: pd.DataFrame,
    wanted: Sequence[str],
    unreadable: Mapping[str, pd.Series[Any]],
    dropped: list[tuple[str, int]],
    places: list[str],
) -> pd.DataFrame:
    """Rows whose wanted columns are positive finite numbers (and E whole, at least 1); the others are counted by
    reason."""
    for name in wanted:
        least = 1.0 if name == EXPERTS else np.nextafter(0.0, 1.0)
        values = frame[name].to_numpy(dtype=float, na_value=np.nan, copy=True)
        faults = unreadable.get(name, pd.Series(dtype=object))
        no_number = frame.index.isin(faults.index)
        reasons = {
            f"{name} missing": np.isnan(values) & ~no_number,
            f"{name} not a number": no_number,
            f"{name} infinite": np.isinf(values) & ~no_number,
            f"{name} below 1" if name == EXPERTS else f"{name} not positive": np.isfinite(values)
            & (values < least)
            & ~no_number,
            f"{name} not whole": (name == EXPERTS) & (values >= least) & (values != np.round(values)),
        }
        for reason, bad in reasons.items():
            dropped.append((reason, int(bad.sum())))
            places += _examples(reason, frame.index[bad], faults if bad is no_number else None)
        kept = ~np.any(list(reasons.values()), axis=0)
        frame = frame.assign(**{name: values})[kept]
    return frame


def _examples(reason: str, labels: pd.Index[Any], cells: pd.Series[Any] | None = None) -> list[str]:
    """The first rows, from 1, that something is said of, with what stands in their cell; nothing where there are
    none."""
    shown = [f"{label + 1}" + ("" if cells is None else f" ({cells[label]!r})") for label in labels[:_SHOWN]]
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return [f"{reason} in row{'s' if len(labels) > 1 else ''} {', '.join(shown)}{more}"] if shown else []


def where_selected(frame: pd.DataFrame, where: str | None, dropped: list[tuple[str, int]]) -> pd.DataFrame:
    if where is None:
        return frame
    if "@" in where or "__" in where:  # pandas would reach beyond the table by them
        raise InputError(f"--where {where!r}: write a condition on columns, without @ and __")
    try:
        chosen = frame.query(where, engine="python")
    except Exception as error:  # whatever the expression does wrong is the user's input
        told = f"{error}; columns are {listed(frame.columns)}"
        raise InputError(f"--where {where!r} cannot be evaluated: {told}") from error
    if not isinstance(chosen, pd.DataFrame):
        raise InputError(f"--where {where!r} does not select rows; write a condition such as 'loss_val < 4'")
    dropped.append((f"not {where}", len(frame) - len(chosen)))
    return chosen
