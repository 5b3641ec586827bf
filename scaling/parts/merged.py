"""Parts of a study merged into few files, which are read in their place: ten thousand parts take minutes to open.

A merged file, `.merged/<table>-<name>.parquet`, holds the rows of some parts, and of each part its name and how the
file system described it before it was read: size, time of change and inode. A part whose description is still the same
is read from the merged file, and every other part itself: one that was written again since (its rename gives it another
inode), damaged, or never merged. What a merged file says of a part that is gone counts for nothing. So the parts stay
the truth, merged files can be removed at any time, and one that cannot be read, or came from another computer with its
study, costs time alone.

Only the driver of a sweep writes them, under its lock and as `scaling.files` writes everything; readers need no lock,
because a merged file never changes and one that vanishes while it is looked for is one that is not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.errors import InputError, WorkError
from scaling.files import require_file, write_atomically
from scaling.parts.one_file import UNREADABLE, in_our_types, is_of_other_task
from scaling.schema import OTHER_TASK, Table

FOLDER = ".merged"
LEAST, MOST = 256, 4096  # parts of a merged file: fewer are soon read themselves, more would take long to write
_PARTS = b"parts"

Description = tuple[int, int, int]
"""Size, time of change in nanoseconds, and inode."""


@dataclass(frozen=True)
class Entry:
    """A part in a merged file."""

    name: str
    description: Description
    rows: int


@dataclass(frozen=True, eq=False)
class MergedFile:
    """A merged file and its parts, in the order of their rows."""

    path: Path
    entries: tuple[Entry, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The number of the first row of each part."""
        starts, row = [], 0
        for entry in self.entries:
            starts.append(row)
            row += entry.rows
        return starts

    def read(self, table: Table) -> pa.Table:
        """All rows in the types of the schema. Raises ValueError where they cannot be read, or are not what it says."""
        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                rows = file.read()
            rows.validate(full=True)
            if len(rows) != sum(entry.rows for entry in self.entries):
                raise ValueError("it has other rows than it says")
            return in_our_types(rows, self.path, table)
        except UNREADABLE as error:
            raise ValueError(str(error)) from error


def described(path: Path) -> Description | None:
    """How the file system describes a regular file; None where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return (about.st_size, about.st_mtime_ns, about.st_ino) if stat.S_ISREG(about.st_mode) else None


def merged_files(study: Path, table: Table) -> list[MergedFile]:
    """The merged files of a table whose list of parts can be read."""
    found = []
    for path in _paths(study, table):
        with contextlib.suppress(*UNREADABLE, RecursionError):
            require_file(path)
            listed = json.loads(pq.read_schema(path).metadata[_PARTS])
            found.append(MergedFile(path, tuple(_entry(*one) for one in listed)))
    return found


def _paths(study: Path, table: Table) -> list[Path]:
    """The merged files of a table; none where there is no folder that we may list."""
    with contextlib.suppress(OSError):
        return sorted((study / FOLDER).glob(f"{table}-*.parquet"))
    return []


def _entry(name: str, size: int, changed: int, inode: int, rows: int) -> Entry:
    return Entry(str(name), (int(size), int(changed), int(inode)), int(rows))


def in_merged(study: Path, table: Table, parts: Sequence[Path]) -> dict[Path, tuple[MergedFile, int]]:
    """Which of these parts are in a merged file as they are now, and as which of its parts."""
    known = {
        (entry.name, entry.description): (merged, number)
        for merged in merged_files(study, table)
        for number, entry in enumerate(merged.entries)
    }
    if not known:
        return {}
    places = {path: known.get((path.name, described(path) or (-1, -1, -1))) for path in parts}
    return {path: place for path, place in places.items() if place is not None}


def merge(study: Path, table: Table, parts: Sequence[Path], read: Callable[[Path], pa.Table | None]) -> None:
    """Merge the parts that are not merged yet, if there are enough of them; remove merged files that hardly count.

    `read` gives the rows of a part, or None for one that stays as it is. Only for the driver that holds the lock. A
    full or read-only disk is no error here: parts are read where nothing could be merged.
    """
    with contextlib.suppress(OSError, WorkError, InputError):
        found = in_merged(study, table, parts)
        for path in _paths(study, table):
            live = [part for part, (merged, _) in found.items() if merged.path == path]
            if len(live) < LEAST // 2:
                path.unlink(missing_ok=True)
                found = {part: place for part, place in found.items() if place[0].path != path}
        loose = [path for path in parts if path not in found]
        for start in range(0, len(loose) - LEAST + 1, MOST):
            _merge(study, table, loose[start : start + MOST], read)


def _merge(study: Path, table: Table, parts: Sequence[Path], read: Callable[[Path], pa.Table | None]) -> None:
    """One merged file of these parts, unless too few of them can be merged. A part that is of another kind of task than
    the first, or whose columns hold something else, stays as it is."""
    entries: list[Entry] = []
    tables: list[pa.Table] = []
    kinds: dict[str, pa.DataType] = {}
    for path in parts:
        description = described(path)  # before it is read: a part that is written again meanwhile counts as changed
        rows = read(path) if description else None
        if description and rows is not None and _alike(rows, tables, kinds):
            entries.append(Entry(path.name, description, len(rows)))
            tables.append(rows)
    if len(entries) < LEAST:
        return
    about: dict[bytes, str | bytes] = {
        _PARTS: json.dumps([[entry.name, *entry.description, entry.rows] for entry in entries])
    }
    about |= {OTHER_TASK.encode(): b"1"} if is_of_other_task(tables[0].schema) else {}
    joined = pa.concat_tables(tables, promote_options="default")
    sink = pa.BufferOutputStream()
    pq.write_table(joined.replace_schema_metadata(about), sink, compression="zstd", write_page_checksum=True)
    name = f"{table}-{uuid.uuid4().hex[:12]}.parquet"
    write_atomically(study / FOLDER / name, memoryview(sink.getvalue()), study)


def _alike(rows: pa.Table, others: list[pa.Table], kinds: dict[str, pa.DataType]) -> bool:
    """Whether rows can be joined with others, whose columns are of these `kinds`; those of new columns are added."""
    if others and is_of_other_task(rows.schema) != is_of_other_task(others[0].schema):
        return False
    if any(kinds.get(field.name, field.type) != field.type for field in rows.schema):
        return False
    kinds |= {field.name: field.type for field in rows.schema}
    return True
