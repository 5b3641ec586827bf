"""The tables of a study on disk, its parts and packed tables read as one.

A part, `<table>/<run_id>.parquet`, holds the rows of one run; an import is a part under a name of its own with many
runs. A packed table, `<table>.parquet`, holds those of many. A run that has both a part and packed rows has run again
since: the part counts. Files that cannot be read are named and left out. Reading follows symbolic links; writing
(`scaling.files`) does not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scaling.errors import InputError
from scaling.files import require_file
from scaling.formatting import first_line, listed, plural
from scaling.schema import Table, arrow_schema

RUN = "run_id"
_LARGE = 1 << 24  # bytes; threads cost more than they save on the parts of cells
_UNREADABLE = (OSError, pa.ArrowException, ValueError, TypeError, KeyError, OverflowError)
_NEEDED: dict[Table, frozenset[str]] = {  # without which nothing can be made of a row; any other column may be missing
    "runs": frozenset(),
    "evals": frozenset({"document", "n_tokens", "loss"}),
    "curves": frozenset({"step", "tokens", "loss"}),
    "latency": frozenset({"phase", "batch", "context", "time_ms"}),
}


@dataclass(frozen=True)
class StudyTable:
    """A table of a study, with `run_id` in every row.

    tables: its rows by file, packed ones first, then those of parts by name.
    unreadable: the files that were left out, each with the reason.
    outdated: runs whose packed rows were left out because their part says something else.
    """

    table: Table
    tables: dict[Path, pa.Table]
    unreadable: dict[Path, str]
    outdated: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        """How many files the table has, readable or not."""
        return len(self.tables) + len(self.unreadable)

    @cached_property
    def rows(self) -> pa.Table:
        """All rows."""
        return _joined([*self.tables.values()]) if self.tables else _schema(self.table).empty_table()

    def left_out(self) -> list[str]:
        """Each file that cannot be read, with the reason."""
        return [f"{path} ({reason})" for path, reason in self.unreadable.items()]

    def notes(self) -> list[str]:
        """What was left out, as sentences."""
        notes = []
        if self.unreadable:
            notes.append(f"warning: left out because it cannot be read: {listed(self.left_out(), most=5)}")
        return [*notes, *self.notes_on_packed()]

    def notes_on_packed(self) -> list[str]:
        """That runs have both packed rows and another part."""
        if not self.outdated:
            return []
        runs, count = listed(self.outdated, most=3), plural(len(self.outdated), "run")
        return [f"of {count} the part counts and not what {self.table}.parquet says: {runs}"]


def part_path(study: Path, table: Table, run_id: str) -> Path:
    """The part of a run."""
    return study / table / f"{run_id}.parquet"


def packed_path(study: Path, table: Table) -> Path:
    """The packed table."""
    return study / f"{table}.parquet"


def files(study: Path, table: Table) -> list[Path]:
    """The files of a table, readable or not: the packed one first, then the parts by name."""
    packed = packed_path(study, table)
    try:
        parts = sorted(p for p in (study / table).glob("*.parquet") if not p.name.startswith((".", "_")))
    except OSError:  # no folder, or one that we may not list
        parts = []
    return [*([packed] if packed.exists() else []), *parts]


def read_study_table(study: Path, table: Table) -> StudyTable:
    """All rows of a table of a study, whatever their status."""
    packed, found = packed_path(study, table), files(study, table)
    read: dict[Path, pa.Table] = {}
    unreadable: dict[Path, str] = {}
    for path in found:
        try:
            read[path] = read_file(path, table)
        except ValueError as error:
            unreadable[path] = str(error)
    read = dict(zip(read, _alike([*read.values()]), strict=True))
    outdated: tuple[str, ...] = ()
    if packed in read and len(read) > 1:
        own = {path: rows for path, rows in read.items() if path != packed and of_one_run(path, rows)}
        imports = [rows for path, rows in read.items() if path != packed and path not in own]
        read[packed], outdated = _not_in_parts(read[packed], [*own.values()], imports)
    return StudyTable(table, read, unreadable, outdated)


def of_one_run(path: Path, rows: pa.Table) -> bool:
    """Whether a part is that of a run, whose name its file has, and not an import."""
    return pc.unique(rows[RUN]).to_pylist() == [path.stem]


def read_run(study: Path, table: Table, run_id: str) -> pa.Table:
    """The rows of one run, from its part or else from the packed table; none where it has none.

    Raises InputError naming the file that cannot be read.
    """
    part, packed = part_path(study, table, run_id), packed_path(study, table)
    path = part if part.exists() else packed
    if not path.exists():
        return _schema(table).empty_table()
    try:
        rows = read_file(part, table) if path == part else _packed(packed, table, packed.stat().st_mtime_ns)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return rows.filter(pc.equal(rows[RUN], run_id))


def runs_with(study: Path, table: Table) -> set[str]:
    """The runs with rows in a table of their parts, by their names alone, and of the packed table."""
    found = files(study, table)
    packed = packed_path(study, table)
    runs = {path.stem for path in found if path != packed and _is_sound(path, table)}
    if packed in found:
        try:
            runs |= set(_packed(packed, table, packed.stat().st_mtime_ns)[RUN].to_pylist())
        except ValueError:
            return runs
    return runs


def holds(study: Path, table: Table, run_id: str) -> bool:
    """Whether a run has rows in a table."""
    part = part_path(study, table, run_id)
    return _is_sound(part, table) if part.exists() else run_id in runs_with(study, table)


def _is_sound(path: Path, table: Table) -> bool:
    """Whether the end of a part can be read, which is written last, and names the columns that are needed."""
    try:
        require_file(path)
        return set(pq.read_schema(path).names) >= _NEEDED[table]
    except _UNREADABLE:
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
        return _in_our_types(read, path, table)
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise ValueError(reason or type(error).__name__) from error


@lru_cache(maxsize=8)
def _packed(path: Path, table: Table, written: int) -> pa.Table:
    return read_file(path, table)


def _in_our_types(read: pa.Table, path: Path, table: Table) -> pa.Table:
    fields, names = _fields(table), read.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"column {twice[0]} occurs twice")
    ours = [name for name in fields if name in names and name != RUN]
    if not ours:
        raise ValueError(f"no column of the table {table}; it has {listed(names, most=5) if names else 'none'}")
    if missing := sorted(_NEEDED[table] - set(names)):
        raise ValueError(f"column {missing[0]} is missing")
    if RUN not in names:  # the part of a run carries its name on the file
        named = path.stem if table != "runs" or len(read) == 1 else None
        read = read.append_column(RUN, pa.array([named] * len(read), pa.string()))
    columns = {name: _cast(read[name], fields[name].type, name) for name in (RUN, *ours)}
    found = [fields[name] for name in columns]
    for name in names:  # columns of other people's, to select runs by
        if name not in fields and (kind := _kind(read[name].type)) in _PLAIN:
            columns[name] = read[name].cast(_PLAIN[kind])
            found.append(pa.field(name, _PLAIN[kind]))
    return pa.table([*columns.values()], schema=pa.schema(found, metadata=_schema(table).metadata))


@cache
def _schema(table: Table) -> pa.Schema:
    """The schema of a table with `run_id`, which parts of evals and curves carry on the file alone."""
    schema = arrow_schema(table)
    return schema if RUN in schema.names else schema.insert(0, pa.field(RUN, pa.string()))


@cache
def _fields(table: Table) -> dict[str, pa.Field]:
    return {field.name: field for field in _schema(table)}


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


def _alike(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables without columns that differ in kind between them, which only columns of other people's do."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for one in tables:
        for column in one.schema:
            kinds[column.name].add(str(column.type))
    odd = {name for name, found in kinds.items() if len(found) > 1}
    return [one.drop_columns([name for name in one.column_names if name in odd]) for one in tables]


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default")


def _not_in_parts(archive: pa.Table, own: list[pa.Table], imports: list[pa.Table]) -> tuple[pa.Table, tuple[str, ...]]:
    """The packed rows that no part holds, and the runs of which their part says something else.

    The part of a run stands for all of its rows. An import stands for the rows that equal its own: two tables may name
    different runs alike.
    """
    outdated: tuple[str, ...] = ()
    if own:
        newer = _joined(own)
        again = pc.is_in(archive[RUN], pc.unique(newer[RUN]).drop_null())
        replaced, archive = archive.filter(again), archive.filter(pc.invert(again))
        newer = newer.filter(pc.is_in(newer[RUN], pc.unique(replaced[RUN])))
        outdated = tuple(sorted(set(_lacking(replaced, newer)[RUN].to_pylist())))
    if imports:
        imported = _joined(imports)
        alike = imported.filter(pc.is_in(imported[RUN], pc.unique(archive[RUN])))
        archive = _lacking(archive, alike) if len(alike) else archive
    return archive, outdated


def _lacking(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows that do not occur among others, compared in the columns that both tables have, the study's name apart:
    an import gives a row that of the folder."""
    names = [name for name in rows.column_names if name in others.column_names and name != "study"]
    number = "number of the row"
    ours = rows.select(names).append_column(number, pa.array(range(len(rows)), pa.int64()))
    theirs = others.select(names).append_column(number, pa.array([-1] * len(others), pa.int64()))
    groups = _joined([ours, theirs]).group_by(names).aggregate([(number, "min"), (number, "list")])
    ours_alone = groups.filter(pc.greater_equal(groups[f"{number}_min"], 0))
    numbers = pc.list_flatten(ours_alone[f"{number}_list"]).combine_chunks()
    return rows.take(numbers.take(pc.array_sort_indices(numbers)))
