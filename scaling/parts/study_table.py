"""A table of a study, its parts and its packed table read as one."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scaling.errors import InputError
from scaling.formatting import listed, plural
from scaling.parts import merged
from scaling.parts.one_file import fields_of, is_of_other_task, is_sound, metadata_of, read_file, schema_of
from scaling.parts.places import RUN, packed_path, part_path, part_paths
from scaling.schema import Table

_AT_ONCE = 256  # parts whose rows are joined as they are read: ten thousand tables of one row take gigabytes
_THREADS = 8  # they wait for the file system most of the time where it is a network's
_One = TypeVar("_One")


@dataclass(frozen=True)
class FileRows:
    """A file of a table, its number of rows, and whether it is the part of one run, with its name, and no import."""

    path: Path
    rows: int
    of_one_run: bool


@dataclass(frozen=True)
class StudyTable:
    """A table of a study, with `run_id` in every row.

    rows: all rows, those of the packed table first, then those of the parts by name.
    read: the files that they are from, in that order.
    unreadable: the files that were left out, each with the reason.
    outdated: runs whose packed rows were left out because their part says something else.
    """

    table: Table
    rows: pa.Table
    read: tuple[FileRows, ...]
    unreadable: dict[Path, str]
    outdated: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        """How many files the table has, readable or not."""
        return len(self.read) + len(self.unreadable)

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


@dataclass(frozen=True)
class _Piece:
    """Rows, and which of them are whose: each file with the number of its first row."""

    rows: pa.Table
    read: tuple[tuple[FileRows, int], ...]


def read_study_table(study: Path, table: Table) -> StudyTable:
    """All rows of a table of a study, whatever their status."""
    packed, archive = packed_path(study, table), None
    unreadable: dict[Path, str] = {}
    if packed.exists():
        try:
            archive = read_file(packed, table)
        except ValueError as error:
            unreadable[packed] = str(error)
    pieces = _pieces(study, table, unreadable)
    alike = _alike([*([archive] if archive is not None else []), *(piece.rows for piece in pieces)])
    if archive is not None:
        archive = alike.pop(0)
    pieces = [replace(piece, rows=rows) for piece, rows in zip(pieces, alike, strict=True)]
    rows, read = _in_order(pieces, table)
    outdated: tuple[str, ...] = ()
    if archive is not None:
        if read:
            own = np.repeat([file.of_one_run for file in read], [file.rows for file in read])
            archive, outdated = _not_in_parts(archive, rows.filter(pa.array(own)), rows.filter(pa.array(~own)))
            rows = _joined([archive, rows])
        else:
            rows = archive
        read = (FileRows(packed, len(archive), False), *read)
    return StudyTable(table, _as_in_schema(rows, table), read, dict(sorted(unreadable.items())), outdated)


def _as_in_schema(rows: pa.Table, table: Table) -> pa.Table:
    """Its columns in the order of the schema with their units, then those of other people's, each as one chunk."""
    known, names = fields_of(table), rows.column_names
    fields = [known[name] for name in known if name in names]
    fields += [rows.schema.field(name) for name in names if name not in known]
    columns = [rows[field.name].combine_chunks() for field in fields]
    return pa.table(columns, schema=pa.schema(fields, metadata=metadata_of(table, rows.schema)))


def _pieces(study: Path, table: Table, unreadable: dict[Path, str]) -> list[_Piece]:
    """The rows of all parts, in no order: those of merged files, then those of the other parts, read here."""
    parts = part_paths(study, table)
    inside: dict[merged.MergedFile, list[tuple[FileRows, int]]] = defaultdict(list)
    for path, (file, number) in merged.in_merged(study, table, parts).items():
        inside[file].append((FileRows(path, file.entries[number].rows, True), file.starts[number]))
    pieces, done = [], set()
    for file, read in inside.items():
        try:
            pieces.append(_Piece(file.read(table), tuple(read)))
        except ValueError:  # its parts are read themselves
            continue
        done |= {one.path for one, _ in read}
    loose = [path for path in parts if path not in done]
    for start in range(0, len(loose), _AT_ONCE):
        pieces += _read_parts(loose[start : start + _AT_ONCE], table, unreadable)
    return pieces


def _read_parts(paths: Sequence[Path], table: Table, unreadable: dict[Path, str]) -> list[_Piece]:
    """The rows of these parts, those with equal columns as one piece; what cannot be read is added to `unreadable`."""

    def read(path: Path) -> pa.Table | str:
        try:
            return read_file(path, table)
        except ValueError as error:
            return str(error)

    tables: list[tuple[Path, pa.Table]] = []
    for path, rows in zip(paths, _at_once(read, paths), strict=True):
        if isinstance(rows, str):
            unreadable[path] = rows
        else:
            tables.append((path, rows))
    pieces = []
    for _, group in itertools.groupby(tables, lambda one: one[1].schema):
        some = list(group)
        starts = np.cumsum([0, *(len(rows) for _, rows in some)])
        of = [FileRows(path, len(rows), _of_one_run(path, rows)) for path, rows in some]
        joined = pa.concat_tables(rows for _, rows in some).combine_chunks()
        pieces.append(_Piece(joined, tuple(zip(of, starts.tolist(), strict=False))))
    return pieces


def _at_once(function: Callable[[Path], _One], paths: Sequence[Path]) -> Iterable[_One]:
    """What a function gives for each path, in several threads where there are many."""
    if len(paths) < _THREADS:
        return [function(path) for path in paths]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, paths))


def _in_order(pieces: Sequence[_Piece], table: Table) -> tuple[pa.Table, tuple[FileRows, ...]]:
    """The rows of all parts by the names of the parts."""
    if not pieces:
        return schema_of(table).empty_table(), ()
    offsets = np.cumsum([0, *(len(piece.rows) for piece in pieces)])
    placed = [
        (file, offset + start) for piece, offset in zip(pieces, offsets, strict=False) for file, start in piece.read
    ]
    placed.sort(key=lambda one: one[0].path.name)
    starts, counts = np.array([start for _, start in placed]), np.array([file.rows for file, _ in placed])
    rows = _joined([piece.rows for piece in pieces])
    before = np.cumsum(counts) - counts
    wanted = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    if len(wanted) != len(rows) or (np.diff(wanted) != 1).any():
        rows = rows.combine_chunks().take(pa.array(wanted))
    return rows, tuple(file for file, _ in placed)


def _of_one_run(path: Path, rows: pa.Table) -> bool:
    return bool(pc.unique(rows[RUN]).to_pylist() == [path.stem])


def merge_parts(study: Path, table: Table) -> None:
    """Merge the parts of runs that are not merged yet (`scaling.parts.merged`). Only for the driver with the lock."""
    known = {*fields_of(table)}

    def of_a_run(path: Path) -> pa.Table | None:
        try:
            rows = read_file(path, table)
        except ValueError:
            return None
        ours = is_of_other_task(rows.schema) or known.issuperset(rows.column_names)
        return rows if _of_one_run(path, rows) and ours else None

    merged.merge(study, table, part_paths(study, table), of_a_run)


def read_run(study: Path, table: Table, run_id: str) -> pa.Table:
    """The rows of one run, from its part or else from the packed table; none where it has none.

    Raises InputError naming the file that cannot be read.
    """
    part, packed = part_path(study, table, run_id), packed_path(study, table)
    path = part if part.exists() else packed
    if not path.exists():
        return schema_of(table).empty_table()
    try:
        if path == packed:
            rows, places = _packed(packed, table, packed.stat().st_mtime_ns)
            return pa.concat_tables([rows.slice(0, 0), *(rows.slice(*place) for place in places.get(run_id, []))])
        rows = read_file(part, table)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return rows.filter(pc.equal(rows[RUN], run_id))


def runs_with(study: Path, table: Table) -> set[str]:
    """The runs with rows in a table of their parts, by their names alone, and of the packed table."""
    parts = part_paths(study, table)
    known = merged.in_merged(study, table, parts)  # these were read as a whole
    loose = [path for path in parts if path not in known]
    sound = _at_once(lambda path: is_sound(path, table), loose)
    runs = {path.stem for path in known} | {path.stem for path, is_so in zip(loose, sound, strict=True) if is_so}
    return runs | _packed_runs(study, table)


def holds(study: Path, table: Table, run_id: str) -> bool:
    """Whether a run has rows in a table."""
    part = part_path(study, table, run_id)
    return is_sound(part, table) if part.exists() else run_id in _packed_runs(study, table)


def _packed_runs(study: Path, table: Table) -> set[str]:
    packed = packed_path(study, table)
    try:
        return set(_packed(packed, table, packed.stat().st_mtime_ns)[1])
    except (OSError, ValueError):
        return set()


@lru_cache(maxsize=8)
def _packed(path: Path, table: Table, written: int) -> tuple[pa.Table, dict[str, list[tuple[int, int]]]]:
    """A packed table, and for every run where its rows are: the first of each stretch of them, and how many."""
    rows = read_file(path, table)
    runs = rows[RUN].combine_chunks().dictionary_encode()
    codes = runs.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.diff(codes, prepend=-2))
    lengths = np.diff(starts, append=len(codes))
    names, places = runs.dictionary.to_pylist(), defaultdict(list)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if codes[start] >= 0:
            places[names[codes[start]]].append((start, length))
    return rows, dict(places)


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


def _not_in_parts(archive: pa.Table, own: pa.Table, imports: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """The packed rows that no part holds, and the runs of which their part says something else.

    The part of a run stands for all of its rows. An import stands for the rows that equal its own: two tables may name
    different runs alike.
    """
    outdated: tuple[str, ...] = ()
    if len(own):
        again = pc.is_in(archive[RUN], pc.unique(own[RUN]).drop_null())
        replaced, archive = archive.filter(again), archive.filter(pc.invert(again))
        newer = own.filter(pc.is_in(own[RUN], pc.unique(replaced[RUN])))
        outdated = tuple(sorted(set(_lacking(replaced, newer)[RUN].to_pylist())))
    if len(imports):
        alike = imports.filter(pc.is_in(imports[RUN], pc.unique(archive[RUN])))
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
