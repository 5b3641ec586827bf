"""Times in tables of other tools: columns that name their unit, in milliseconds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog
from scaling.errors import InputError
from scaling.formatting import listed

_MS: Mapping[str, float] = {
    **dict.fromkeys(("ns", "nanoseconds"), 1e-6),
    **dict.fromkeys(("us", "usec", "µs", "μs", "microseconds"), 1e-3),
    **dict.fromkeys(("ms", "msec", "milliseconds"), 1.0),
    **dict.fromkeys(("s", "sec", "secs", "seconds"), 1e3),
}
"""Milliseconds of each unit, by the spellings that column names end in."""
_UNIT = re.compile(r"^(?:(?P<base>.*?)[ _.(\[]+)?(?P<unit>[^ _.()\[\]]+)[)\]]?$")
NO_UNIT = "does not say its unit: call it {name}_ms, {name}_us or {name}_s"


def unit_of(column: str, bases: Sequence[str]) -> float | None:
    """Milliseconds of the unit that a column's name says, where the rest of the name is one of `bases` ("" for a name
    that is a unit alone); None where it is not."""
    found = _UNIT.match(column.strip().lower())
    if found is None or (found["base"] or "") not in bases:
        return None
    return _MS.get(found["unit"])


def with_milliseconds(
    frame: pd.DataFrame, ours: str, bases: Sequence[str], source: str, log: ReadingLog
) -> pd.DataFrame:
    """The frame with the column `ours`, in milliseconds, from the one that names its unit; as it is where it has it.

    Raises InputError where several columns could be it, or one does not say its unit.
    """
    if ours in frame:
        return frame
    told = {str(name): unit for name in frame if (unit := unit_of(str(name), (*bases, ""))) is not None}
    if len(told) > 1:
        raise InputError(f"{source}: {listed(told)} could each be `{ours}`: say which with `map` {ours}=NAME")
    if not told:
        silent = [str(name) for name in frame if str(name).strip().lower() in bases]
        if silent:
            name = silent[0]
            raise InputError(
                f"{source}: the column {name} does not say its unit: `map` {ours}={name} if it is in milliseconds, "
                f"{ours}={name}/1e3 in microseconds, {ours}={name}*1e3 in seconds"
            )
        return frame
    ((name, unit),) = told.items()
    if unit != 1:
        log.notes.append(f"{ours} is {unit:g} times the column {name}")
    return frame.rename(columns={name: ours}).assign(**{ours: in_ms(frame[name], unit)})


def in_ms(column: pd.Series[Any], unit: float) -> pd.Series[Any]:
    """The cells times milliseconds of their unit; text that is no number stays, for its reader to name."""
    if unit == 1:
        return column
    read = numbers(column)
    scaled = pd.Series(read.floats * unit, index=column.index)
    return scaled.astype(object).where(~read.unreadable, column.astype(object)) if np.any(read.unreadable) else scaled
