"""A table as read, the rows left out with the reason, and the assumptions made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from analysis.tables.doubts import Doubt
from scaling.arrays import Array, Booleans, Integers
from scaling.errors import InputError
from scaling.formatting import listed

_SHOWN = 3  # rows named for each reason why rows were left out
_LETTERS = 60  # of a cell that is named


@dataclass(frozen=True)
class Selection:
    """How a table was read: the rows that were asked for, and what its columns were called.

    `mapping` is {our column: the table's column or arithmetic}, `where` the condition that rows had to meet, and
    `drop_highest_loss` how many rows of highest loss were left out (`analysis.tables.runs.read_runs`).
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    drop_highest_loss: int = 0


ALL_AS_NAMED = Selection()


@dataclass(frozen=True)
class CheckedTable:
    """Rows that were read and checked, in the columns of `scaling.schema`.

    `dropped`: reasons for leaving rows out, with counts; `notes`: assumed conventions; `doubts`: what is implausible;
    `labels`: the row of the file, from 0, behind each row, None where the table is no single file's; `selection`: how
    it was read.
    """

    frame: pd.DataFrame
    source: str
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    labels: Integers | None = None
    selection: Selection = ALL_AS_NAMED

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def row_numbers(self) -> Integers:
        """The number of each row in the file that was read, from 1; in this table where it is no single file's."""
        return (np.arange(len(self.frame)) if self.labels is None else self.labels) + 1

    @property
    def digest(self) -> str:
        """A short SHA-256 of the rows, in the order in which they were read."""
        frame = self.frame[sorted(self.frame.columns)]
        rows = pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
        return hashlib.sha256("\0".join(frame.columns).encode() + rows).hexdigest()[:12]

    def only(self, mask: Booleans) -> Self:
        """The table with the rows of a mask."""
        labels = None if self.labels is None else self.labels[mask]
        return replace(self, frame=self.frame[mask].reset_index(drop=True), labels=labels)

    def column(self, name: str) -> Array:
        """A copy of a numeric column. Raises InputError listing the columns for an unknown one."""
        if name not in self.frame:
            raise InputError(f"{self.source}: no column {name!r}; it has {listed(self.frame.columns, most=40)}")
        return self.frame[name].to_numpy(dtype=float, copy=True)


@dataclass
class ReadingLog:
    """The rows left out and the assumptions made while a table is read, in order.

    `counts`: reasons with numbers of rows; `row_numbers`: reasons with the first row numbers, from 1; `remedies`: how
    rows left out can be kept; `notes`: assumed conventions; `doubts`: decisions that the table does not settle.
    """

    counts: list[tuple[str, int]] = field(default_factory=list)
    row_numbers: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    @property
    def dropped(self) -> tuple[tuple[str, int], ...]:
        """The reasons for leaving rows out, with counts."""
        return tuple((reason, count) for reason, count in self.counts if count)

    def drop(self, frame: pd.DataFrame, excluded: pd.Series[bool] | Booleans, reason: str) -> pd.DataFrame:
        """The frame without the excluded rows, which are counted."""
        self.counts.append((reason, int(excluded.sum())))
        return frame[~excluded]

    def name_rows(self, reason: str, labels: pd.Index[Any], cells: pd.Series[Any] | None = None) -> None:
        """Record the numbers of the rows with these labels, with their cells where given."""
        if len(labels):
            self.row_numbers.append(f"{reason} {rows_named(labels, cells)}")


def rows_named(labels: pd.Index[Any], cells: pd.Series[Any] | None = None) -> str:
    """ "in rows 1 ('x'), 2 ('y'), 3 ('z') and 1 more": labels from 0 as row numbers from 1, with their cells."""
    shown = [f"{label + 1}" + ("" if cells is None else f" ({_shown(cells[label])})") for label in labels[:_SHOWN]]
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return f"in row{'s' if len(labels) > 1 else ''} {', '.join(shown)}{more}"


def _shown(cell: Any) -> str:
    """A cell in a message, cut where it is long; a number of NumPy as Python writes it."""
    text = repr(cell.item() if isinstance(cell, np.generic) else cell)
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."
