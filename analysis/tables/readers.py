"""Tables: a CSV, TSV, JSON, JSON lines or Parquet file as a frame."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.tables.json_tables import of_json
from analysis.tables.separated import alike_names, separated
from scaling.errors import InputError

_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
FORMATS = (*_TEXTS, *(f"{ending}.gz" for ending in _TEXTS), ".parquet")
_MOST_BYTES, _MOST_CELLS = 4 * 10**9, 10**9  # of a table that is read here
_MOST_PACKED = 200  # times the size of a compressed file; zeros pack a thousandfold, runs some tenfold
_PIECE = 2**24
_MAGIC = {
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"\x1f\x8b": "it is compressed: add .gz to its name",
    b"PK\x03\x04": "it is a zip archive or a spreadsheet: export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet: export the sheet as CSV",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
    b"%PDF": "it is a PDF: export the table as CSV",
    b"\x89PNG": "it is a picture",
    b"<!doctype": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
    b"version https://git-lfs": "it is the pointer to a file in Git LFS: fetch the file with `git lfs pull`",
}


def read_table(path: Path, is_name: Callable[[str], bool] = lambda name: False) -> pd.DataFrame:
    """The table in a file, one run per row, cells unchanged; row i of the file has label i - 1.

    `is_name` says which columns hold names: their numbers stay as they are written, 1.10 beside 1.1.
    The ending decides, in upper or lower case: .csv and .tsv (`analysis.tables.separated`), .json, .jsonl and .ndjson
    (`analysis.tables.json_tables`), all also as .gz, and .parquet. Text is UTF-8, with or without byte-order mark.
    Lists and objects in cells become JSON text. Raises InputError for a file that cannot be read as a table.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder, where a table is read; name a file in it")
    if not path.is_file():
        raise InputError(f"{path}: no such file or study folder")
    ending = next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise InputError(f"{path}: expected a study folder or a file ending in {', '.join(FORMATS)}")
    try:
        frame = _parquet(path, is_name) if ending == ".parquet" else _text_table(path, ending, is_name)
        return with_plain_cells(frame, str(path))
    except InputError:
        raise
    except RecursionError as error:
        raise _unreadable(path, "cells are nested too deeply") from error
    except MemoryError as error:
        raise _unreadable(path, "it does not fit into memory") from error
    except (
        ValueError,
        OSError,
        EOFError,
        zlib.error,
        csv.Error,
        pa.ArrowException,
    ) as error:  # pandas' are ValueErrors
        raise _unreadable(path, str(error)) from error


def with_plain_cells(frame: pd.DataFrame, place: str) -> pd.DataFrame:
    """A DataFrame with text as column names, rows labelled from 0, lists in cells as JSON text; a named index is a
    column.

    Raises InputError, naming `place`, where two columns have one name, or names that differ in case and spaces alone.
    """
    frame = frame.reset_index(drop=frame.index.names == [None])
    frame = frame.copy() if len(frame.columns) > 100 else frame  # pandas warns of many columns that lie apart
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    if alike := alike_names(frame.columns):
        raise InputError(f"{place}: {alike}")
    nested = {
        name: frame[name].map(lambda cell: _as_json(cell) if _is_nested(cell) else cell)
        for name in frame.columns
        if pd.api.types.is_object_dtype(frame[name]) and frame[name].map(_is_nested).any()
    }
    return frame.assign(**nested)


def _text_table(path: Path, ending: str, is_name: Callable[[str], bool]) -> pd.DataFrame:
    content = _text(path, packed=ending.endswith(".gz"))
    kind = ending.removesuffix(".gz")
    if kind in (".csv", ".tsv"):
        return separated(content, "," if kind == ".csv" else "\t", is_name)
    return of_json(content.decode(), is_name, lines=kind != ".json")


def _text(path: Path, *, packed: bool) -> bytes:
    """The UTF-8 text of a file, without byte-order mark. Raises ValueError for any other content, and for too much."""
    if packed:
        most = min(_MOST_BYTES, max(_PIECE, _MOST_PACKED * path.stat().st_size))
        with gzip.open(path) as handle:
            content = handle.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it holds more than {most:,} bytes, {len(content) // path.stat().st_size} times its size")
    else:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes; save it as Parquet, or the columns that matter")
        content = path.read_bytes()
    content = content.removeprefix(codecs.BOM_UTF8)
    start = content[:40].lstrip()
    remedy = next((say for magic, say in _MAGIC.items() if start.lower().startswith(magic.lower())), None)
    if remedy is None and not content.isascii():
        decoder = codecs.getincrementaldecoder("utf-8")()
        for place in range(0, len(content), _PIECE):
            try:
                decoder.decode(content[place : place + _PIECE], final=place + _PIECE >= len(content))
            except UnicodeDecodeError as error:
                raise ValueError(f"byte {place + error.start + 1} is not UTF-8 text; save it as UTF-8") from error
    if remedy is not None:
        raise ValueError(remedy)
    if b"\0" in content:
        raise ValueError("it contains zero bytes, so it is not text")
    if not content.strip():
        raise ValueError("the file is empty")
    return content


def _parquet(path: Path, is_name: Callable[[str], bool]) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:  # a folder called name=value adds no column to it
        cells = file.metadata.num_rows * file.metadata.num_columns
        if cells > _MOST_CELLS:
            raise ValueError(f"it has {cells:,} cells, and {_MOST_CELLS:,} are read here; save the columns that matter")
        table = file.read()
    try:
        frame = table.to_pandas()
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"what pandas noted of its columns is damaged: {error!r:.80}") from error
    named = any(name is not None for name in frame.index.names)  # pandas moved a column to a named index
    frame = frame.reset_index(drop=not named)
    names = [name for name in table.column_names if is_name(name) and name in frame]
    return frame.assign(**{name: table[name].to_pandas(integer_object_nulls=True).to_numpy() for name in names})


def _is_nested(cell: object) -> bool:
    return isinstance(cell, (list, tuple, Mapping, np.ndarray))


def _as_json(cell: Any) -> str:
    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)

    try:
        return json.dumps(cell, default=plain)
    except (TypeError, ValueError):  # keys that are no text, or a list that holds itself
        return str(cell)


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"{path}: not readable as a table ({why})")
