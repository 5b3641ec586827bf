"""Cells as numbers: what people write in a column, read by the evidence of the whole column, never by accident."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scaling.arrays import Array, Booleans
from scaling.expression import READINGS, Column
from scaling.formatting import plural
from scaling.numbers import SPACES, parse_number

MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "null", "none", "-", "--", "–", "—", "-nan", "."})
"""Texts that stand for no value among numbers, in lower case. In a column of texts they are texts."""
DECIMAL_COMMA, DECIMAL_POINT = READINGS
_SUFFIX = rf"(?:[{SPACES}]*[KMGTkmgt]i?|[{SPACES}]*[Bb])?"
_SHAPES = {  # a number with an exponent has no groups: 3,000E+08 is 3.0E+08
    reading: re.compile(
        rf"[+\-−]?(?:[1-9][0-9]{{0,2}}(?P<mark>[{groups}'’_{SPACES}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*"
        rf"(?:{point}[0-9]*)?{_SUFFIX}|(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+|{_SUFFIX}))"
    )
    for reading, groups, point in ((DECIMAL_COMMA, ".", ","), (DECIMAL_POINT, ",", r"\."))
}

_BEGINNINGS = frozenset("0123456789+-−.")
_GROUPED = re.compile(r"[+\-−]?[1-9][0-9]{0,2}\.[0-9]{3}")  # 1.234: a decimal, or one thousand and more


@dataclass(frozen=True)
class Numbers:
    """A column as numbers: NaN where a cell is `missing` or `unreadable`; `conventions` says how text was read.

    `doubt` says why commas cannot be read, empty where they can: the cells with one are unreadable then.
    """

    floats: Array
    missing: Booleans
    unreadable: Booleans
    conventions: tuple[str, ...] = ()
    doubt: str = ""


def numbers(column: pd.Series[Any], reading: str | None = None) -> Numbers:
    """A column's cells as floats, each as `scaling.numbers.parse_number` reads it.

    Commas, and dots that may separate thousands, are read by the evidence of the column: "0,312" and "2,51" prove a
    decimal comma, "1,000,000" and "1,234.5" separators of thousands, and a cell that means the same in both readings
    proves nothing. Where both remain ("2,145" alone), or one cell contradicts another, cells with a comma are
    unreadable and `doubt` says so; `reading` decides it. Texts of `MISSING` are missing. Booleans, dates, percentages
    and other text are unreadable.
    """
    missing = column.isna().to_numpy(dtype=bool, copy=True)
    if pd.api.types.is_bool_dtype(column) or column.dtype.kind in "mMc":
        return Numbers(np.full(len(column), np.nan), missing, ~missing)
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(dtype=float, na_value=np.nan, copy=True)
        return Numbers(values, np.isnan(values), np.zeros(len(column), dtype=bool))
    cells = column.astype(object)
    if "mixed" in (kind := pd.api.types.infer_dtype(cells, skipna=True)) or kind == "boolean":
        cells = cells.map(lambda cell: str(cell) if isinstance(cell, (bool, np.bool_, complex)) else cell)
    try:
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float, na_value=np.nan, copy=True)
    except (OverflowError, TypeError):  # integers beyond the largest float, cells that are not scalars
        values = np.full(len(cells), np.nan)
    left = np.flatnonzero(np.isnan(values) & ~missing)
    if not len(left):
        return Numbers(values, missing, np.zeros(len(column), dtype=bool))
    text = cells.iloc[left].astype(str).str.strip()
    gone = text.str.lower().isin(MISSING).to_numpy(dtype=bool)
    missing[left[gone]] = True
    left, text = left[~gone], text[~gone]
    codes, unique = pd.factorize(text.to_numpy(dtype=object))
    marked = np.array(["," in cell or cell.count(".") > 1 for cell in unique], dtype=bool)
    read, conventions, doubt = np.full(len(unique), np.nan), [], ""
    if marked.any():
        parsed = np.flatnonzero(~np.isnan(values))
        with_dot = cells.iloc[parsed].map(lambda cell: isinstance(cell, str) and "." in cell).to_numpy(dtype=bool)
        dotted = parsed[with_dot]  # read as decimals above, which the other cells may refute
        decimals = cells.iloc[dotted].str.strip().to_numpy(dtype=object)
        found = _Marks(unique[marked], decimals, reading)
        read[marked], values[dotted], doubt = found.numbers, found.of_decimals(values[dotted]), found.doubt
        conventions += found.conventions(np.bincount(codes, minlength=len(unique))[marked])
    read[~marked] = _parsed(unique[~marked])
    values[left] = read[codes]
    suffixed = np.array([cell[-1:].isalpha() for cell in unique], dtype=bool) & np.isfinite(read)
    if suffixed.any():
        conventions.append(f"K, M, B (or G) and T are powers of 1,000 in {plural(int(suffixed[codes].sum()), 'cell')}")
    return Numbers(values, missing, np.isnan(values) & ~missing, tuple(conventions), doubt)


def column_of(cells: pd.Series[Any], reading: str | None = None) -> tuple[Column, Numbers]:
    """A column for an expression, and how it was read."""
    read = numbers(cells, reading)
    missing, unreadable, written = read.missing, read.unreadable, functools.cache(lambda: texts(cells))
    if np.isnan(read.floats).all() and not pd.api.types.is_numeric_dtype(cells):  # a text among texts is no missing one
        blank = [not text or text.isspace() for text in written()]
        missing = cells.isna().to_numpy(dtype=bool) | np.array(blank, dtype=bool)
        unreadable = ~missing
    return Column(read.floats, missing, unreadable, written, _true(cells)), read


def texts(column: pd.Series[Any]) -> Any:
    """The cells as text: whole numbers without a point, other cells as Python writes them."""
    if column.dtype.kind == "f":
        return np.array([str(int(x)) if float(x).is_integer() else repr(float(x)) for x in column], dtype=object)
    return np.array([cell if isinstance(cell, str) else str(cell) for cell in column], dtype=object)


def is_number(cell: str) -> bool:
    """Whether a text is a number in some reading of its commas and dots."""
    if any(shape.fullmatch(cell) for shape in _SHAPES.values()):
        return True
    with contextlib.suppress(ValueError):
        parse_number(cell)
        return True
    return False


def _true(column: pd.Series[Any]) -> Booleans | None:
    """Which cells are true, where all that are not missing are true or false; None elsewhere."""
    if pd.api.types.is_bool_dtype(column):
        return column.fillna(False).to_numpy(dtype=bool)
    given = column[column.notna()]
    if not len(given) or pd.api.types.is_numeric_dtype(column) or not _is_truth(given.iloc[0]):
        return None
    return (
        column.map(lambda cell: str(cell).strip().lower() == "true").to_numpy() if given.map(_is_truth).all() else None
    )


def _is_truth(cell: object) -> bool:
    return str(cell).strip().lower() in ("true", "false")


class _Marks:
    """How the commas and dots of a column are read: of cells with a comma or several dots, and of its decimals.

    `numbers`: those of the cells; `doubt`: why there is no reading.
    """

    def __init__(self, cells: Any, decimals: Any, asked: str | None) -> None:
        self.cells, self.decimals, self.doubt = cells, decimals, ""
        matches = {
            reading: np.array([shape.fullmatch(cell) is not None for cell in cells], dtype=bool)
            for reading, shape in _SHAPES.items()
        }
        numeric = np.logical_or(*matches.values())
        against = {
            reading: [*cells[numeric & ~matches[reading]][:1], *_not_of(shape, decimals)]
            for reading, shape in _SHAPES.items()
        }
        possible = [reading for reading in READINGS if not against[reading]]
        self.reading = asked or (possible[0] if len(possible) == 1 else None)
        self.numbers = np.full(len(cells), np.nan)
        if self.reading is not None:
            shaped = matches[self.reading]
            self.numbers[shaped] = _parsed(
                np.array([_plain(cell, self.reading) for cell in cells[shaped]], dtype=object)
            )
        elif possible and numeric.any():
            cell = cells[numeric][0]
            one, other = (f"{parse_number(_plain(cell, reading)):.12g}" for reading in READINGS)
            self.doubt = f"{cell!r} can be read as {one} and as {other}"
        elif numeric.any():
            one, other = (against[reading][0] for reading in (DECIMAL_POINT, DECIMAL_COMMA))
            self.doubt = f"{one!r} and {other!r} contradict each other: is the decimal mark a comma or a point?"

    def of_decimals(self, values: Array) -> Array:
        """The numbers of the column's cells with one dot, which are `values` where that is a decimal point."""
        if self.reading == DECIMAL_POINT or not (self.doubt or self.reading):
            return values
        grouped = np.array([_GROUPED.fullmatch(cell) is not None for cell in self.decimals], dtype=bool)
        if self.doubt:
            return np.where(grouped, np.nan, values)
        shaped = np.array([_SHAPES[DECIMAL_COMMA].fullmatch(cell) is not None for cell in self.decimals], dtype=bool)
        plain = np.array([_plain(cell, DECIMAL_COMMA) for cell in self.decimals], dtype=object)
        return np.where(shaped, _parsed(plain), np.nan)

    def conventions(self, counts: Any) -> list[str]:
        """What commas and dots were taken for, with the number of cells; `counts` are those of each cell."""
        comma = np.array(["," in cell for cell in self.cells], dtype=bool)
        read = np.isfinite(self.numbers)
        what = "decimal commas" if self.reading == DECIMAL_COMMA else "separators of thousands"
        told = (("commas", what, read & comma), ("dots", "separators of thousands", read & ~comma))
        return [f"{mark} are {what} in {plural(int(counts[of].sum()), 'cell')}" for mark, what, of in told if of.any()]


def _not_of(shape: re.Pattern[str], decimals: Any) -> list[str]:
    """The first cell that has not this shape, if any."""
    return next(([cell] for cell in decimals if not shape.fullmatch(cell)), [])


def _plain(cell: str, reading: str) -> str:
    """A cell with a decimal point and without commas and dots between thousands."""
    return cell.replace(",", "") if reading == DECIMAL_POINT else cell.replace(".", "").replace(",", ".")


def _parsed(cells: Any) -> Array:
    """Texts as numbers, NaN for what is none."""
    if not len(cells):
        return np.empty(0)
    values = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce").to_numpy(dtype=float, copy=True)
    for place in np.flatnonzero(np.isnan(values)):
        if cells[place][:1] in _BEGINNINGS:  # names are many, and slow to refuse one by one
            with contextlib.suppress(ValueError):
                values[place] = parse_number(cells[place])
    return values
