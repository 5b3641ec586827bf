"""Tables: a CSV, TSV, JSON, JSON lines or Parquet file as a frame."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.tables.numbers import numbers  # noqa: F401
from scaling.errors import InputError

_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
FORMATS = (*_TEXTS, *(f"{ending}.gz" for ending in _TEXTS), ".parquet")
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_MAGIC = {
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"\x1f\x8b": "it is compressed: add .gz to its name",
    b"PK": "it is a zip archive or a spreadsheet: export the sheet as CSV",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
}


def read_table(path: Path) -> pd.DataFrame:
    """The table in a file, one run per row, cells unchanged; row i of the file has label i - 1.

    The ending decides: comma-separated .csv, tab-separated .tsv, a .json array of objects, .jsonl or .ndjson with one
    object per line (all also as .gz), .parquet. Text is UTF-8, with or without byte-order mark. Lists and objects in
    cells become JSON text. Raises InputError for a file that cannot be read as a table.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file or study folder")
    if not path.name.endswith(FORMATS):
        raise InputError(f"{path}: expected a study folder or a file ending in {', '.join(FORMATS)}")
    try:
        frame = _parquet(path) if path.suffix == ".parquet" else _text_table(path)
    except RecursionError as error:
        raise _unreadable(path, "cells are nested too deeply") from error
    except (
        ValueError,
        OSError,
        EOFError,
        zlib.error,
        csv.Error,
        pa.ArrowException,
    ) as error:  # pandas' are ValueErrors
        raise _unreadable(path, str(error)) from error
    return with_plain_cells(frame, str(path))


def with_plain_cells(frame: pd.DataFrame, place: str) -> pd.DataFrame:
    """A DataFrame with text as column names, rows labelled from 0, lists in cells as JSON text; a named index is a
    column.

    Raises InputError, naming `place`, where two columns have one name.
    """
    frame = frame.reset_index(drop=frame.index.names == [None])
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    _require_distinct(place, frame.columns)
    nested = {
        name: frame[name].map(lambda cell: json.dumps(cell, default=list) if _is_nested(cell) else cell)
        for name in frame.columns
        if pd.api.types.is_object_dtype(frame[name]) and frame[name].map(_is_nested).any()
    }
    return frame.assign(**nested)


def _text_table(path: Path) -> pd.DataFrame:
    text, ending = _text(path), path.name.removesuffix(".gz").rpartition(".")[2]
    if not text.strip():
        raise _unreadable(path, "the file is empty")
    if ending in ("csv", "tsv"):
        return _separated(path, text, "," if ending == "csv" else "\t")
    records = _json_array(path, text) if ending == "json" else _json_lines(path, text)
    for place, record in records:
        if not isinstance(record, dict):
            raise _unreadable(path, f"{place} is not a JSON object: {json.dumps(record):.40}")
    return pd.DataFrame([record for _, record in records])


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = next((remedy for magic, remedy in _MAGIC.items() if content.startswith(magic)), "save it as UTF-8")
        raise _unreadable(path, f"byte {error.start + 1} is not UTF-8 text; {remedy}") from error
    if "\0" in text:
        raise _unreadable(path, "it contains zero bytes, so it is not text")
    return text


def _separated(path: Path, text: str, separator: str) -> pd.DataFrame:
    header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    names = [name.strip() for name in header]
    other = next((mark for mark in _SEPARATORS if mark in names[0]), None) if len(names) == 1 else None
    if other is not None:
        remedy = {"\t": "name it .tsv", ",": "name it .csv"}.get(other, "save it with commas and decimal points")
        separated = f"it is separated by {_SEPARATORS[other]}, not by {_SEPARATORS[separator]}"
        raise _unreadable(path, f"its header is the one column {names[0]!r}: {separated}; {remedy}")
    _require_distinct(path, pd.Index([name for name in names if name]))  # pandas would number them
    # With low_memory pandas reads in pieces that may differ in type.
    frame = pd.read_csv(io.StringIO(text), sep=separator, low_memory=False)
    if not isinstance(frame.index, pd.RangeIndex):
        raise _unreadable(path, "rows have more cells than the header has names; quote numbers with commas in them")
    return frame


def _json_lines(path: Path, text: str) -> list[tuple[str, Any]]:
    """The JSON value of every line that is not blank, with its line number."""
    values = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append((f"line {number}", json.loads(line)))
            except ValueError as error:
                raise _unreadable(path, f"line {number} is not JSON: {error}") from error
    return values


def _json_array(path: Path, text: str) -> list[tuple[str, Any]]:
    """The items of a JSON array, with their places."""
    document = json.loads(text)
    if not isinstance(document, list):
        raise _unreadable(path, "expected an array of objects; name a file with one object per line .jsonl")
    return [(f"item {number}", item) for number, item in enumerate(document, start=1)]


def _parquet(path: Path) -> pd.DataFrame:
    frame = pq.read_table(path).to_pandas()
    named = any(name is not None for name in frame.index.names)  # pandas moved a column to a named index
    return frame.reset_index(drop=not named)


def _is_nested(cell: object) -> bool:
    return isinstance(cell, (list, tuple, Mapping, np.ndarray))


def _require_distinct(place: str | Path, names: pd.Index[Any]) -> None:
    repeated = names[names.duplicated()]
    if len(repeated):
        raise InputError(f"{place}: two columns are called {repeated[0]!r}; rename one")


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"{path}: not readable as a table ({why})")
