"""One file of a study, a part or a packed table: its rows in the types of the schema, or what is wrong with it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scaling.files import require_file
from scaling.formatting import first_line, listed
from scaling.parts.places import RUN
from scaling.schema import OTHER_TASK, REPLICATES, Table, arrow_schema

_LARGE = 1 << 24  # bytes; threads cost more than they save on the parts of cells
UNREADABLE = (OSError, pa.ArrowException, ValueError, TypeError, KeyError, OverflowError)
_NEEDED: dict[Table, frozenset[str]] = {  # without which nothing can be made of a row; any other column may be missing
    "runs": frozenset(),
    "evals": frozenset({"document", "n_tokens", "loss"}),
    "curves": frozenset({"step", "tokens", "loss"}),
    "latency": frozenset({"phase", "batch", "context", "time_ms"}),
}
_NEEDED_OF_TASKS = _NEEDED | {"evals": frozenset(REPLICATES), "curves": frozenset({"step"})}


def is_sound(path: Path, table: Table) -> bool:
    """Whether the end of a part can be read, which is written last, and names the columns that are needed."""
    try:
        require_file(path)
        schema = pq.read_schema(path)
        return set(schema.names) >= _needed(schema, table)
    except UNREADABLE:
        return False


def read_file(path: Path, table: Table) -> pa.Table:
    """A part or a packed table in the types of the schema, with `run_id` first. Raises ValueError saying what is wrong.

    Numbers of another width, and texts in another encoding, are taken for what they are; a text is no number.
    """
    try:
        require_file(path)
        with pq.ParquetFile(path) as file:
            read = file.read(use_threads=path.stat().st_size > _LARGE)
        read.validate(full=True)  # offsets and UTF-8, which reading does not check
        return in_our_types(read, path, table)
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise ValueError(reason or type(error).__name__) from error


def in_our_types(read: pa.Table, path: Path, table: Table) -> pa.Table:
    """Rows in the types of the schema, with `run_id` first. Raises ValueError saying what is wrong with them."""
    if read.schema.equals(_written(table)):  # as we write it
        return read if RUN in read.column_names else read.add_column(0, RUN, pa.repeat(path.stem, len(read)))
    fields, names, other_task = fields_of(table), read.column_names, is_of_other_task(read.schema)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"column {twice[0]} occurs twice")
    ours = [name for name in fields if name in names and name != RUN]
    if not ours and not other_task:
        raise ValueError(f"no column of the table {table}; it has {listed(names, most=5) if names else 'none'}")
    if missing := sorted(_needed(read.schema, table) - set(names)):
        raise ValueError(f"column {missing[0]} is missing")
    if RUN not in names:  # the part of a run carries its name on the file
        named = path.stem if table != "runs" or len(read) == 1 else None
        read = read.append_column(RUN, pa.array([named] * len(read), pa.string()))
    columns = {name: _cast(read[name], fields[name].type, name) for name in (RUN, *ours)}
    found = [fields[name] for name in columns]
    for name in names:  # columns of other people's, to select runs by, or of another task, in its types
        if name not in fields and (kind := _kind(read[name].type)) in _PLAIN:
            field = read.schema.field(name) if other_task else pa.field(name, _PLAIN[kind])
            columns[name] = read[name].cast(field.type)
            found.append(field)
    return pa.table([*columns.values()], schema=pa.schema(found, metadata=metadata_of(table, read.schema)))


def is_of_other_task(schema: pa.Schema) -> bool:
    """Whether a table of this schema is of another task than the language model."""
    return OTHER_TASK.encode() in (schema.metadata or {})


def metadata_of(table: Table, schema: pa.Schema) -> dict[bytes, bytes]:
    """What a table of this schema says of itself."""
    said: dict[bytes, bytes] = dict(schema_of(table).metadata)
    return said | ({OTHER_TASK.encode(): b"1"} if is_of_other_task(schema) else {})


def _needed(schema: pa.Schema, table: Table) -> frozenset[str]:
    return (_NEEDED_OF_TASKS if is_of_other_task(schema) else _NEEDED)[table]


@cache
def _written(table: Table) -> pa.Schema:
    return arrow_schema(table)


@cache
def schema_of(table: Table) -> pa.Schema:
    """The schema of a table with `run_id`, which parts of evals and curves carry on the file alone."""
    schema = _written(table)
    return schema if RUN in schema.names else schema.insert(0, pa.field(RUN, pa.string()))


@cache
def fields_of(table: Table) -> dict[str, pa.Field]:
    """Its columns by name."""
    return {field.name: field for field in schema_of(table)}


_PLAIN = {"number": pa.float64(), "text": pa.string(), "true or false": pa.bool_()}


def _kind(of: pa.DataType) -> str:
    """What a column holds, in a word."""
    if pa.types.is_dictionary(of):
        return _kind(of.value_type)
    if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of):
        return "number"
    if pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return "text"
    return "true or false" if pa.types.is_boolean(of) else str(of)


def _cast(column: pa.ChunkedArray, to: pa.DataType, name: str) -> pa.ChunkedArray:
    """A column in the type of the schema. Raises ValueError where that would read one kind as another."""
    if column.type == to or pa.types.is_null(column.type):
        return column.cast(to)
    if _kind(column.type) != _kind(to):
        raise ValueError(f"column {name} holds {_kind(column.type)} where the schema has {_kind(to)}")
    if pa.types.is_floating(column.type) and pa.types.is_integer(to):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)  # as pandas writes missing counts
    try:
        return column.cast(to)
    except pa.ArrowException as error:
        raise ValueError(f"column {name}: {first_line(error)}") from error
