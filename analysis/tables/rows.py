"""The rows of a table while it is examined: their cells as numbers, and how they are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.tables.doubts import Doubt
from analysis.tables.reading_log import CheckedTable, rows_named
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.formatting import listed, plural

_KEPT = 20  # rows that a doubt lists
_SHOWN = 3  # runs that a message names


@dataclass(frozen=True)
class Rows:
    """The rows of a table while it is examined: `frame` is labelled by the file's rows from 0 unless it is a study."""

    frame: pd.DataFrame
    source: str
    of_study: bool = False

    def __len__(self) -> int:
        return len(self.frame)

    def floats(self, name: str) -> Array:
        """A column as floats; all NaN where the table lacks it."""
        return floats(self.frame, name)

    def numbers(self, mask: Booleans) -> tuple[int, ...]:
        """The first rows of the file that are marked; none where the file has no such numbers."""
        if self.of_study:
            return ()
        return tuple(int(label) + 1 for label in self.frame.index[mask][:_KEPT])

    def named(self, mask: Booleans) -> str:
        """ "in row 3", "in rows 1, 2, 3 and 1 more", "in all 20 rows", or in a study "in run 1a2b"."""
        count = int(mask.sum())
        if count == len(self) > _SHOWN:
            return f"in all {count} rows"
        if not self.of_study:
            return rows_named(self.frame.index[mask])
        if "run_id" not in self.frame:
            return f"in {plural(count, 'run')}"
        runs = self.frame["run_id"].to_numpy(dtype=object)[mask]
        return f"in run{'s' if count > 1 else ''} {listed(runs, most=_SHOWN)}"

    def refusal(self, message: str) -> InputError:
        """The error of a table that is certainly not what it is taken for."""
        return InputError(f"{self.source}: {message}")

    def doubt(self, code: str, columns: Sequence[str], mask: Booleans, message: str) -> Doubt:
        """A doubt of the rows that are marked."""
        return Doubt(code, tuple(columns), self.numbers(mask), message)


def rows_of(table: CheckedTable) -> Rows:
    """The rows of a table that was read."""
    if table.labels is None:
        return Rows(table.frame, table.source, of_study="run_id" in table.frame)
    return Rows(table.frame.set_axis(table.labels), table.source)


def floats(frame: pd.DataFrame, name: str) -> Array:
    """A column as floats; all NaN where the frame lacks it."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    return frame[name].to_numpy(dtype=float, na_value=np.nan, copy=True)


def positive(values: Array) -> Array:
    """The finite values above 0."""
    return values[np.isfinite(values) & (values > 0)]


def ratio(above: Array | float, below: Array) -> Array:
    """above / below; infinite or NaN where `below` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)


def span(values: Array) -> str:
    """ "2 to 300"."""
    return f"{values.min():.3g} to {values.max():.3g}"
