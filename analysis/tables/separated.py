"""Text with a row a line: what stands before the header, which sign separates cells, and rows that are none, by row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.numbers import Numbers, is_number, numbers
from scaling.formatting import listed, plural

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_SUMMARIES = frozenset(
    {"total", "totals", "grand total", "sum", "mean", "average", "avg", "median", "std", "min", "max"}
)
_PIECE = 2**24  # bytes
csv.field_size_limit(_PIECE)  # a configuration in a cell may be longer than the 131,072 that Python allows
_LAST_ROWS = 8  # `describe()` writes so many summaries
_GROUPED = re.compile(rb"(?:^|[;|,\t\n\"])[+-]?[1-9][0-9]{0,2}\.[0-9]{3}(?:[;|,\t\n\"]|$)")
_SEVERAL_DOTS = re.compile(rb"[0-9]\.[0-9]{3}\.[0-9]{3}")
_PREAMBLE = re.compile(r'"?sep=(?P<mark>[,;|\t])"?\s*', re.IGNORECASE)


def separated(content: bytes, usual: str, is_name: Callable[[str], bool] = lambda name: False) -> pd.DataFrame:
    """The table in UTF-8 text; `usual` is the separator of its ending, another one is taken where only it can be.
    Columns of names are texts.

    Blank lines, a line `sep=;` and lines that begin with # may stand before the header. Cells are as written: a word
    such as NA is text, a blank cell is missing. Raises ValueError, naming the row, for a row with another number of
    cells than the header, a quote that swallows rows, another header, a row of units and a row of totals.
    """
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    header = _header(content, usual)
    if alike := alike_names(name for name in header.names if name):
        raise ValueError(alike)
    _refuse_repeated(header, content)
    extra = _require_rectangle(content, header)
    names = [name or f"Unnamed: {place}" for place, name in enumerate(header.names)] + ["Unnamed: last"] * extra
    rest = io.BytesIO(content)
    if not content[header.end : header.end + _PIECE].strip() and not content[header.end :].strip():
        return pd.DataFrame(columns=names)
    rest.seek(header.end)
    # With low_memory pandas reads in pieces that may differ in type.
    frame = pd.read_csv(
        rest, sep=header.separator, names=names, header=None, index_col=False, low_memory=False,
        keep_default_na=False, na_values=[""], skipinitialspace=True,
        dtype={name: str for name in names if is_name(name)},
    )  # fmt: skip
    frame = frame.iloc[:, : len(header.names)]
    _refuse_words(frame)
    _refuse_summary(frame)
    _refuse_mixed_marks(frame, content, header)
    return frame


def alike_names(names: Iterable[str]) -> str:
    """Which two names are the same, or differ in case and spaces alone; empty where there are none."""
    seen: dict[str, str] = {}
    for name in names:
        # Symbols of one letter may differ in case alone: D and d, E and e.
        key = " ".join(name.lower().split()) if len(name) > 1 else name
        if key in seen:
            two = f"called {name!r}" if seen[key] == name else f"called {seen[key]!r} and {name!r}"
            return f"two columns are {two}; rename one"
        seen[key] = name
    return ""


@dataclass(frozen=True)
class _Header:
    """Names of the columns (blank ones too), the separator, and where in the text the header starts and ends."""

    names: list[str]
    separator: str
    start: int
    end: int


def _lines(content: bytes, place: int) -> Iterator[tuple[int, str]]:
    """Lines from a place on, each with where it ends."""
    while place < len(content):
        end = content.find(b"\n", place)
        end = len(content) if end < 0 else end + 1
        yield end, content[place:end].decode()
        place = end


def _header(content: bytes, usual: str) -> _Header:
    place, comment, said = 0, "", None
    for end, line in _lines(content, 0):
        if match := _PREAMBLE.fullmatch(line.strip("\n")):
            said = match["mark"]
        elif line.lstrip().startswith("#"):
            comment = line.lstrip().lstrip("#").strip()
        elif line.strip():
            break
        place = end
    separator = said or _separator(next(line for _, line in _lines(content, place)), usual)
    if comment and place:  # a header that is commented out, above the first row of numbers
        cells = _cells(next(line for _, line in _lines(content, place)), separator)
        names = _cells(comment, separator)
        if len(names) == len(cells) and all(is_number(cell) for cell in cells):
            return _Header(names, separator, place, place)
    ends: list[int] = []
    lines = (line for end, line in _lines(content, place) if not ends.append(end))  # type: ignore[func-returns-value]
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    names = [name.strip() for name in next(reader)]
    _require_separator(names, next((line for _, line in _lines(content, ends[-1]) if line.strip()), ""))
    if sum(map(is_number, names)) == len(names):
        raise ValueError(f"its first line holds numbers ({', '.join(names):.60}); name the columns in a first line")
    return _Header(names, separator, place, ends[-1])


def _separator(line: str, usual: str) -> str:
    """The separator of a header."""
    found = {mark: len(_cells(line, mark)) for mark in SEPARATORS if mark in line}
    if found.get(usual, 1) > 1 or not found:
        return usual
    if len(found) > 1 and sorted(found.values())[-2] > 1:
        signs = listed(SEPARATORS[mark] for mark in found)
        raise ValueError(f"its header is separated by {signs}; save it with {SEPARATORS[usual]} alone")
    return max(found, key=lambda mark: found[mark])


def _require_separator(names: list[str], first: str) -> None:
    """Raise ValueError where a header of one name is several, apart by something else, and so is the first row."""
    for mark, what in (("&", "&"), (None, "spaces")):
        words, cells = names[0].split(mark), first.split(mark)
        if len(names) == 1 < len(words) == len(cells) and sum(is_number(cell.strip()) for cell in cells) > 1:
            raise ValueError(f"its columns are separated by {what}; save it with commas")


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line. Raises ValueError for a quote that it does not close."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _refuse_repeated(header: _Header, content: bytes) -> None:
    """Raise ValueError where the header stands between rows: tables that were put one behind the other."""
    line = content[header.start : header.end].strip()
    place = content.find(b"\n" + line + b"\n", max(header.end - 1, 0)) if line else -1
    if place < 0 < len(line) and content.endswith(b"\n" + line) and len(content) - len(line) > header.end:
        place = len(content) - len(line) - 1
    if place >= 0:
        row = sum(1 for _, above in _lines(content[:place], header.end) if above.strip()) + 1
        raise ValueError(f"row {row} repeats the header: remove the line, or read the tables one by one")


def _require_rectangle(content: bytes, header: _Header) -> bool:
    """Raise ValueError for a row with more or fewer cells than the header has names, or with a quote left open.

    Whether every row ends in one separator more, with nothing after it.
    """
    width, mark, row = len(header.names), ord(header.separator), 0
    wrong: dict[int, int | str]
    extra: bool | None = None
    for piece in _pieces(content, header.end):
        text = np.frombuffer(piece, dtype=np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        starts = np.concatenate(([0], ends[:-1] + 1))
        cells = 1 + _in_lines(text, mark, ends)
        quotes = _in_lines(text, ord('"'), ends) if b'"' in piece else np.zeros(len(ends), dtype=np.int64)
        if (quotes % 2).any():
            _require_closed(content[header.end :], header)
            return False
        blank = ends == starts
        full = ~blank
        trailing = full.any() and (cells[full] == width + 1).all() and (text[ends[full] - 1] == mark).all()
        extra = bool(trailing) if extra is None else extra and bool(trailing)
        wrong = {int(line): int(cells[line]) for line in np.flatnonzero(full & (cells != width) & (quotes == 0))}
        quoted = np.flatnonzero(quotes)
        written = [piece[starts[line] : ends[line]].decode() for line in quoted]
        counts = zip(quoted.tolist(), _counts(written, header.separator), strict=False)  # ends where one is wrong
        wrong |= {line: count for line, count in counts if count != width}
        for line in () if extra else sorted(wrong):
            if not piece[starts[line] : ends[line]].strip():
                blank[line] = True
            else:
                _refuse(row + int((~blank[: line + 1]).sum()), wrong[line], width, header.separator)
        row += int((~blank).sum())
    return bool(extra)


def _pieces(content: bytes, place: int) -> Iterator[bytes]:
    """The text from a place on in pieces of whole lines."""
    while place < len(content):
        end = content.rfind(b"\n", place, place + _PIECE)
        end = content.find(b"\n", place) if end < 0 else end
        end = len(content) if end < 0 else end + 1
        piece = content[place:end]
        yield piece if piece.endswith(b"\n") else piece + b"\n"
        place = end


def _in_lines(text: Any, sign: int, ends: Any) -> Any:
    """How often a sign stands in each line."""
    return np.diff(np.searchsorted(np.flatnonzero(text == sign), ends), prepend=0)


def _counts(lines: list[str], separator: str) -> Iterator[int | str]:
    """The number of cells of each line, or what is wrong with its quotes, where it ends."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for number, cells in enumerate(reader, start=1):
            if reader.line_num != number:
                raise csv.Error("it is never closed")
            yield len(cells)
    except csv.Error as error:
        yield str(error)


def _refuse(row: int, count: int | str, width: int, separator: str) -> None:
    if isinstance(count, str):
        raise ValueError(f"row {row} has a stray quote ({count}); remove it, or double quotes within a quoted cell")
    if count > width:
        remedy = f"; quote cells with {SEPARATORS[separator]} in them" if separator in SEPARATORS else ""
        raise ValueError(f"row {row} has {count} cells, more than the header has names ({width}){remedy}")
    raise ValueError(
        f"row {row} has {plural(count, 'cell')}, and the header has {width} names; complete the row or remove it"
    )


def _require_closed(body: bytes, header: _Header) -> None:
    """Raise ValueError for a quote that swallows rows; other cells may go over several lines."""
    width, lines = len(header.names), body.decode().split("\n")
    reader = csv.reader((line + "\n" for line in lines), delimiter=header.separator, skipinitialspace=True, strict=True)
    row = begins = 0
    try:
        for cells in reader:
            written, begins = lines[begins : reader.line_num], reader.line_num
            if not cells or (len(cells) == 1 < width and not cells[0].strip()):
                continue
            row += 1
            if len(cells) != width:
                _refuse(row, len(cells), width, header.separator)
            ends = (written[0], written[-1])
            if any(_looks_like_a_row(line, header) for line in written[1:-1]) or (
                len(written) > 1 and all(_looks_like_a_row(line.replace('"', ""), header) for line in ends)
            ):
                raise ValueError(f"row {row} has a quote that swallows the rows after it; remove or close it")
    except csv.Error as error:
        raise ValueError(f"row {row + 1} has a quote that is not closed, or a stray one ({error})") from error


def _looks_like_a_row(line: str, header: _Header) -> bool:
    cells = _cells(line, header.separator) if line.count(header.separator) >= len(header.names) - 1 > 0 else []
    return len(cells) == len(header.names) and any(map(is_number, cells))


def _refuse_words(frame: pd.DataFrame) -> None:
    """Raise ValueError for a row of words over columns of numbers: units, or the header of another table."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    without = np.ones(len(frame), dtype=bool)  # any number
    for name in frame.columns.drop(texts):
        without &= frame[name].isna().to_numpy(dtype=bool)
        if not without.any():
            return
    words = np.zeros(len(frame), dtype=int)
    for read in _of_numbers(frame[texts]):
        without &= read.missing | read.unreadable
        words += read.unreadable
    found = np.flatnonzero(without & (words > 1))
    if len(found) and len(frame) > 1:
        cells = listed((repr(cell) for cell in frame.iloc[found[0]].dropna()), most=4)
        what = "units? Remove it, and convert with `map`" if found[0] == 0 else "another header? Read the tables apart"
        raise ValueError(f"row {found[0] + 1} holds no number ({cells}) over columns of numbers: {what}")


def _of_numbers(frame: pd.DataFrame) -> list[Numbers]:
    """The columns of text in which most cells are numbers, as numbers; commas that are in doubt are some."""
    columns = []
    for name in frame:
        read = numbers(frame[name])
        if read.doubt:
            marked = frame[name].astype(str).str.contains("[.,]").to_numpy(dtype=bool)
            read = replace(read, unreadable=read.unreadable & ~marked)
        if 2 * read.unreadable.sum() < (~read.missing).sum():
            columns.append(read)
    return columns


def _refuse_summary(frame: pd.DataFrame) -> None:
    """Raise ValueError where the last row is the total or the mean of the others."""
    labels = frame.iloc[-1 - _LAST_ROWS :, 0] if frame.shape[1] > 1 else frame.iloc[:0, 0]
    words = [str(cell).strip().rstrip(":").lower() if isinstance(cell, str) else "" for cell in labels]
    if len(words) > 1 and words[-1] in _SUMMARIES and words[0] not in _SUMMARIES:
        row = len(frame) - len(words) + next(place for place, word in enumerate(words) if word in _SUMMARIES) + 1
        raise ValueError(f"row {row} ({frame.iloc[row - 1, 0]!r}) sums rows up and is no run; remove it")


def _refuse_mixed_marks(frame: pd.DataFrame, content: bytes, header: _Header) -> None:
    """Raise ValueError where a dot may stand between thousands in one column, as another one shows: by its decimal
    commas or by several dots in one number."""
    quote = b'"' if header.separator == "," else b""
    commas, dots = re.search(quote + rb"[0-9],[0-9]+" + quote, content), _SEVERAL_DOTS.search(content)
    if not (commas or dots) or not _GROUPED.search(content):
        return
    because = next((f"{name}: {told[0]}" for name in frame if (told := _told(frame[name]))), None)
    if because is None:
        return
    for place, name in enumerate(frame.columns):
        if frame[name].dtype.kind != "f":
            continue
        rest = io.BytesIO(content)
        rest.seek(header.end)
        written = pd.read_csv(rest, sep=header.separator, header=None, usecols=[place], dtype=str)
        cells = written.iloc[:, 0].dropna().str.strip()
        dotted = cells[cells.str.contains(".", regex=False)]
        if len(dotted) and dotted.str.fullmatch(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}").all():
            raise ValueError(
                f"row {dotted.index[0] + 1}: {name} = {dotted.iloc[0]!r} can be read as a decimal and as more than a "
                f"thousand ({because}); save the file with decimal points and without marks between thousands"
            )


def _told(column: pd.Series[Any]) -> list[str]:
    """What commas and dots of a column were read as, where a dot is no decimal point."""
    told = () if pd.api.types.is_numeric_dtype(column) else numbers(column).conventions
    return [convention for convention in told if convention.startswith(("commas are decimal", "dots are"))]
