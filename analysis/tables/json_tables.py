"""JSON as a table: a list of runs, one a line, runs by name, columns, or any of them within an object."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from scaling.formatting import listed
from scaling.json_text import half_a_character, repeated_key

_Records = list[dict[str, Any]]
_NAME = "run_id"  # of a run that is called by its key


def of_json(text: str, is_name: Callable[[str], bool] = lambda name: False, *, lines: bool) -> pd.DataFrame:
    """The table in JSON text, which has an object on each line or, without `lines`, is one document.

    A text that is only the other of them is read as that. In columns of names whole numbers stay whole. Raises
    ValueError, naming the line, item or key, for what is no table, and for a key that stands twice in one object.
    """
    frame = _frame(text, lines and not text.lstrip().startswith("["))
    names = {name: frame[name] for name in frame.columns if is_name(str(name))}
    return frame.infer_objects().assign(**names)


def _frame(text: str, lines: bool) -> pd.DataFrame:
    """The table, its cells as Python objects."""
    try:
        return _of_records(_of_lines(text)) if lines else _of_document(_parsed(text, "it"))
    except _NotJson:
        with contextlib.suppress(_NotJson):
            return _of_document(_parsed(text, "it")) if lines else _of_records(_of_lines(text))
        raise


class _NotJson(ValueError):
    """Text that is no JSON at all."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = repeated_key(pairs)
    if twice is not None:
        raise ValueError(f"has the key {twice!r} twice in one object; remove one")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _parsed(text: str, place: str) -> Any:
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _NotJson(f"{place} is not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{place} {error}") from error
    if half := half_a_character(text, document):
        raise ValueError(f"{place} has half of a character, {half!a}, in a text")
    return document


def _of_lines(text: str) -> _Records:
    values = (
        (f"line {number}", _parsed(line, f"line {number}"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    )
    return [_record(value, place) for place, value in values]


def _of_records(records: _Records) -> pd.DataFrame:
    return pd.DataFrame(records, dtype=object)


def _record(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is not a JSON object: {json.dumps(value):.40}")
    return value


def _of_document(document: Any) -> pd.DataFrame:
    if isinstance(document, list):
        return _of_records([_record(value, f"item {number}") for number, value in enumerate(document, start=1)])
    if not isinstance(document, dict) or not document:
        raise ValueError(f"expected a list of objects, one a run, found {json.dumps(document):.40}")
    if set(document) >= {"columns", "data"} and _is_list_of(document["data"], list):
        return _of_rows(document["columns"], document["data"])
    tables = [name for name, value in document.items() if _is_list_of(value, dict)]
    if len(tables) > 1:
        raise ValueError(f"the keys {listed(tables, most=5)} each hold a list of objects; save the one with the runs")
    if tables:
        return _of_document(document[tables[0]])
    only = next(iter(document.values()))
    if len(document) == 1 and isinstance(only, dict) and only and all(isinstance(one, dict) for one in only.values()):
        return _of_document(only)
    if all(isinstance(value, dict) for value in document.values()):
        return _of_objects(document)
    if all(_is_list_of(value, (str, int, float, type(None))) for value in document.values()):
        return _of_columns(document)
    return _of_records([document])  # one run


def _of_rows(columns: Any, rows: list[Any]) -> pd.DataFrame:
    """What pandas writes as `split`."""
    wrong = next((number for number, row in enumerate(rows, start=1) if len(row) != len(columns)), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} of `data` has {len(rows[wrong - 1])} cells, and `columns` {len(columns)}")
    return pd.DataFrame(rows, columns=pd.Index(columns), dtype=object)


def _of_columns(document: Mapping[str, list[Any]]) -> pd.DataFrame:
    lengths = {name: len(values) for name, values in document.items()}
    if len(set(lengths.values())) > 1:
        told = listed(f"{name} {length}" for name, length in list(lengths.items())[:5])
        raise ValueError(f"its columns have different numbers of rows ({told})")
    return pd.DataFrame(dict(document), dtype=object)


def _of_objects(document: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Runs by their names, or columns by row as pandas writes them."""
    inner = list(document.values())
    rows = set(inner[0])
    if len(inner) > 1 and rows and all(key.isdecimal() for key in rows) and all(set(one) == rows for one in inner):
        order = sorted(rows, key=int)
        return pd.DataFrame({name: [values[row] for row in order] for name, values in document.items()}, dtype=object)
    if len(inner) > 1 and not set.intersection(*map(set, inner)):
        keys = listed(document, most=5)
        raise ValueError(f"its keys {keys} hold objects that share no key, so they are no runs; save a list of runs")
    key = _NAME if not any(_NAME in one for one in inner) else "key"
    return _of_records([{key: name, **run} for name, run in document.items()])


def _is_list_of(value: Any, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kinds) for item in value)
