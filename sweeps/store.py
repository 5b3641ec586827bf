"""Results on disk: one atomic Parquet part per table and cell, from which everything else is derived."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import pyarrow as pa

from scaling import parts
from scaling.errors import InputError, WorkError
from scaling.files import left_by_a_killed_writer, require_no_links, why_not_written, write_atomically
from scaling.formatting import listed, plural
from scaling.live import LIVE
from scaling.schema import TABLES, Table, to_arrow, write_parquet
from scaling.tasks import LANGUAGE_MODEL, TASKS
from scaling.yaml_text import YamlSource, parse_tree, plain, yaml_text
from sweeps.grid.grid import RECORD

LOCK = ".lock"
GRID = "grid.yaml"
CHECKPOINTS = "checkpoints"
_MOST_OF_LOCK = 10_000  # characters that are read


@dataclass(frozen=True)
class StoredCell:
    """A few columns of the row of a trained or failed cell."""

    run_id: str
    status: str
    code_version: str
    error: str = ""
    tokens: int = 0
    train_flops: float = 0.0
    wall_s: float = 0.0
    train_s: float = 0.0
    tokens_own: int = 0
    task: str = LANGUAGE_MODEL

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def share(self) -> float:
        """Share of its tokens that it did not take over from its trunk."""
        return self.tokens_own / self.tokens if self.tokens_own and self.tokens else 1.0


@dataclass(frozen=True)
class Survey:
    """The cells of a study by run_id, and what cannot be used: files of runs and of latency with the reason, and notes
    on packed rows."""

    cells: dict[str, StoredCell]
    unusable: dict[Path, str]
    notes: tuple[str, ...] = ()

    def missing(self, run_ids: Iterable[str], *, retry_failed: bool = False) -> list[str]:
        """The cells that need training: those without a row and, with `retry_failed`, those that are not ok."""
        return [run for run in run_ids if run not in self.cells or (retry_failed and not self.cells[run].ok)]

    def of_older_grids(self, run_ids: Iterable[str]) -> list[str]:
        """Cells on disk that are no longer in the grid; they are kept."""
        return sorted(set(self.cells) - set(run_ids))

    def code_versions(self) -> dict[str, int]:
        """Number of cells by code version."""
        return dict(Counter(part.code_version for part in self.cells.values()))


@dataclass(frozen=True)
class Store:
    """The folder of a study. Nothing in it is written through a symbolic link (`scaling.files`)."""

    out: Path

    def path(self, table: Table, run_id: str) -> Path:
        return parts.part_path(self.out, table, run_id)

    def checkpoints(self, trunk_ids: Iterable[str]) -> Path:
        """The checkpoint folder of a call that trains these trunks."""
        return self.out / CHECKPOINTS / "-".join(sorted(set(trunk_ids)))

    def write_cell(self, run: dict[str, Any], evals: list[dict[str, Any]], curves: list[dict[str, Any]]) -> None:
        """Write the parts of one cell; its `runs` part, written last, marks the cell as done. Raises WorkError."""
        run_id, task = run["run_id"], run.get("task") or LANGUAGE_MODEL
        if evals:
            self._write("evals", run_id, evals, task)
        if curves:
            self._write("curves", run_id, curves, task)
        self._write("runs", run_id, [run], task)

    def write_latency(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        """Write the latency part of one cell, each row with its `run_id`. Raises WorkError."""
        self._write("latency", run_id, [row | {"run_id": run_id} for row in rows])

    def write_grid(self, text: str) -> None:
        """Write the resolved grid. Raises WorkError."""
        write_atomically(self.out / GRID, text.encode(), self.out)

    def made_with(self) -> dict[str, Any] | None:
        """What the grid on disk says its cells were made with; None without one that can be read."""
        path = self.out / GRID
        try:
            document = plain(parse_tree(yaml_text(path), YamlSource(path), "the grid is empty"))
        except (OSError, InputError):
            return None
        found = document.get(RECORD) if isinstance(document, dict) else None
        return found if isinstance(found, dict) else None

    def _write(self, table: Table, run_id: str, rows: list[dict[str, Any]], task: str = LANGUAGE_MODEL) -> None:
        columns = None if task == LANGUAGE_MODEL else TASKS[task].columns(table)
        if columns and table == "curves":  # of the many that curves can have, those that this task tells
            told = {name for row in rows for name in row}
            columns = {name: column for name, column in columns.items() if name in told} or columns
        write_parquet(self.path(table, run_id), to_arrow(table, rows, columns), self.out)

    def read(self, table: Table, run_id: str) -> list[dict[str, Any]]:
        """The rows of one run. Raises WorkError if it has none or they cannot be read."""
        try:
            read = parts.read_run(self.out, table, run_id)
        except InputError as error:
            raise WorkError(str(error)) from error
        if not len(read):
            raise WorkError(f"{self.path(table, run_id)}: there is no such part")
        known = read.column_names if parts.is_of_other_task(read.schema) else TABLES[table]
        rows: list[dict[str, Any]] = read.select([name for name in read.column_names if name in known]).to_pylist()
        return rows

    def survey(self) -> Survey:
        """Every cell on disk, packed or in parts.

        A cell that is ok needs the other tables of its task as well: evals and curves of a language model. A part that
        cannot be read, or lacks these, does not count, and says why. Rows of other people's, which an import brings,
        are no cells.
        """
        table = parts.read_study_table(self.out, "runs")
        having = {name: parts.runs_with(self.out, name) for name in _BESIDE}
        cells: dict[str, StoredCell] = {}
        unusable = table.unreadable | parts.read_study_table(self.out, "latency").unreadable
        stored, row = _stored_cells(table.rows), 0
        notes = [*table.notes_on_packed()]
        for file in table.read:
            told = [cell for cell in stored[row : row + file.rows] if cell is not None]
            row += file.rows
            usable = [
                cell for cell in told if not cell.ok or all(cell.run_id in having[name] for name in _beside(cell.task))
            ]
            if told and not usable and file.of_one_run:
                unusable[file.path] = f"its {' or '.join(_beside(told[0].task))} are missing or cannot be read"
            elif len(usable) < len(told) and not file.of_one_run:
                notes.append(_not_counted(file.path, [cell for cell in told if cell not in usable], having))
            for cell in usable:
                if cell.run_id not in cells or file.path == self.path("runs", cell.run_id):
                    cells[cell.run_id] = cell
        return Survey(cells, unusable, tuple(notes))

    def part(self, run_id: str) -> StoredCell | None:
        """One cell, or None if it has no usable row."""
        try:
            cells = _stored_cells(parts.read_run(self.out, "runs", run_id))
        except InputError:
            return None
        cell = cells[-1] if cells else None
        if cell is None or not cell.ok:
            return cell
        return cell if all(parts.holds(self.out, table, run_id) for table in _beside(cell.task)) else None

    def latency_shapes(self) -> dict[str, str]:
        """run_id -> shape_id of every run with readable latency."""
        rows = parts.read_study_table(self.out, "latency").rows
        if "shape_id" not in rows.column_names:
            return {}
        pairs = zip(rows[parts.RUN].to_pylist(), rows["shape_id"].to_pylist(), strict=True)
        return {run_id: shape_id for run_id, shape_id in pairs if run_id and shape_id}

    def require_writable(self, run_ids: Iterable[str]) -> None:
        """Raise InputError where a sweep that trains these cells would have to write through a symbolic link."""
        places = [self.out / name for name in (*TABLES, LOCK, GRID, CHECKPOINTS, LIVE, ".ray", parts.MERGED)]
        places += [self.path(table, run_id) for run_id in run_ids for table in TABLES]
        for place in (*places, *(self.out / CHECKPOINTS).glob("*")):
            require_no_links(place, self.out)

    def require_packed(self) -> None:
        """Raise InputError where a packed table cannot be read: all of its cells may be done."""
        for table in TABLES:
            path = parts.packed_path(self.out, table)
            try:
                if path.exists():
                    parts.read_file(path, table)
            except ValueError as error:
                raise InputError(
                    f"{path}: cannot be read ({error}), so nobody can tell which cells are done; put a whole copy in "
                    "its place, or move it away to train its cells again"
                ) from error

    def tidy(self, survey: Survey) -> list[str]:
        """Rename unusable parts and remove temporary files of killed writers; returns a message for each part.

        Only for the driver that holds the lock.
        """
        messages = [
            f"{path} cannot be used: {reason}; renamed to {_set_aside(path)}, what it held counts as missing"
            for path, reason in survey.unusable.items()
        ]
        for folder in (self.out, *(self.out / name for name in (*TABLES, parts.MERGED))):
            for stray in folder.glob(".*.tmp"):
                if left_by_a_killed_writer(stray):
                    stray.unlink(missing_ok=True)
        return messages

    def merge(self) -> None:
        """Merge parts, so that a study of many cells is read soon (`scaling.parts.merged`).

        Only for the driver that holds the lock.
        """
        for table in TABLES:
            parts.merge_parts(self.out, table)

    def make_way(self, run_ids: Iterable[str]) -> list[str]:
        """Rename folders, pipes and devices that stand where cells to train will write; a message for each."""
        places = (self.path(table, run_id) for run_id in run_ids for table in TABLES)
        wrong = [path for path in places if path.exists() and not path.is_file()]
        return [f"{path} is no file; renamed to {_set_aside(path)}" for path in wrong]

    def pack(self, out: Path) -> list[Path]:
        """Write each table as one file, `<table>.parquet` with a `run_id` in every row, and the grid.

        For archiving a study in a fiftieth of the size; every command reads it as it reads parts, and a study that has
        both as one. Nothing is removed, and the runs are written last, so a killed packing loses nothing. Raises
        InputError if there is nothing to pack, a file cannot be read, or `out` holds runs that this study lacks;
        WorkError if a file cannot be written.
        """
        tables = {name: parts.read_study_table(self.out, name) for name in TABLES}  # runs first: they are written last
        for name, table in tables.items():
            if table.unreadable:
                raise InputError(
                    f"{self.out}: a file of {name} cannot be read: {listed(table.left_out(), most=3)}; `scaling sweep "
                    "run` sets such parts aside and trains their cells again, or move them away"
                )
        if not tables["runs"].files:
            raise InputError(f"{self.out}: no parts to pack; give a study folder written by `scaling sweep run`")
        self._require_no_other_runs(out, tables["runs"].rows)
        grid = self.out / GRID
        if grid.is_file() and out.resolve() != self.out.resolve():
            write_atomically(out / GRID, grid.read_bytes(), out)
        written = [(name, table.rows) for name, table in tables.items() if table.files]
        for name, rows in reversed(written):
            write_parquet(parts.packed_path(out, name), rows, out, compression="zstd")
        return [parts.packed_path(out, name) for name, _ in written]

    def _require_no_other_runs(self, out: Path, rows: pa.Table) -> None:
        """Raise InputError where packing into a folder would hide or replace runs of another study."""
        if out.resolve() == self.out.resolve():
            return
        there = parts.read_study_table(out, "runs")
        others = set(there.rows[parts.RUN].to_pylist()) - set(rows[parts.RUN].to_pylist())
        if others or there.unreadable or parts.files(out, "runs")[1:]:
            raise InputError(
                f"`out` {out}: holds runs of its own ({plural(len(there.rows), 'row')}), which packing {self.out} "
                "would replace; give a new folder"
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the study against other drivers while this process lives. Raises InputError naming the current driver.

        The kernel releases the lock however the process ends. Python opens files close-on-exec, so child processes,
        such as Ray's daemons, which outlive a killed driver, do not keep it.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            handle = _lock_file(self.out / LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise InputError(
                f"{self.out}: cannot be used as the study folder: {error.strerror}; `out` names another one"
            ) from error
        with handle:
            for attempt in range(5):  # `sweep status` may hold it briefly
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if attempt == 4:
                        raise InputError(
                            f"{self.out}: another sweep of this study is running ({self.driver() or 'unknown'}); wait "
                            "for it or stop it, `scaling sweep status` shows its progress"
                        ) from error
                    time.sleep(0.1)
                except OSError as error:
                    raise WorkError(
                        f"{self.out}: the file system does not support locks ({error.strerror}); use another folder"
                    ) from error
            started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())  # told to the user, compared with nothing
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started})
            try:
                os.ftruncate(handle.fileno(), 0)  # unbuffered: closing would write again what could not be written
                os.pwrite(handle.fileno(), holder.encode(), 0)
            except OSError as error:
                raise WorkError(f"{self.out / LOCK}: {why_not_written(error)} and run again") from error
            yield

    def driver(self) -> str:
        """Process, host and start of the driver that is sweeping this study, or ""."""
        try:
            with _lock_file(self.out / LOCK, os.O_RDONLY) as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return _holder(handle.read(_MOST_OF_LOCK))
        except OSError:
            return ""
        return ""


_BESIDE: tuple[Literal["evals", "curves"], ...] = ("evals", "curves")


def _beside(task: str) -> tuple[Literal["evals", "curves"], ...]:
    """The tables beside `runs` in which a cell that is ok has rows; none are asked of a task that is not installed."""
    return TASKS[task].tables if task in TASKS else ()


def _not_counted(
    packed: Path, cells: Sequence[StoredCell], having: Mapping[Literal["evals", "curves"], set[str]]
) -> str:
    """That cells of a packed table are not done, and what of them is not there."""
    lacking = {name for cell in cells for name in _beside(cell.task) if cell.run_id not in having[name]}
    return (
        f"{plural(len(cells), 'cell')} of {packed.name} {'does' if len(cells) == 1 else 'do'} not count as done: "
        f"{listed(sorted(lacking))} of them are not there"
    )


def _holder(text: str) -> str:
    """The driver that wrote this into the lock that it holds."""
    try:
        about = json.loads(text)
        return f"process {about['pid']} on {about['host']} since {about['started']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a process that has not said which"


def _lock_file(path: Path, flags: int) -> TextIO:
    """The lock, opened. Raises OSError for a link, pipe or device, and for a file with another name elsewhere."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(handle)
        raise OSError(errno.EINVAL, f"its {path.name} is a link, pipe or device", str(path))
    return os.fdopen(handle, "r+" if flags & os.O_RDWR else "r", encoding="utf-8")


def _stored_cells(rows: pa.Table) -> list[StoredCell | None]:
    """The cell of each row; None where the row does not say which it is, how it ended or of which code it is."""
    names = [name for name in StoredCell.__dataclass_fields__ if name in rows.column_names]
    needed = ("run_id", "status", "code_version")
    return [
        StoredCell(**{name: value for name, value in row.items() if value is not None})
        if all(row.get(name) for name in needed)
        else None
        for row in rows.select(names).to_pylist()
    ]


def _set_aside(path: Path) -> str:
    """Rename a file that cannot be used, and return its new name: it is kept, and so are those before it."""
    numbers = ("", *(f"-{number}" for number in range(2, 1000)))
    names = (path.with_name(f"{path.name}.unusable{number}") for number in numbers)
    aside = next(name for name in names if not os.path.lexists(name))
    os.replace(path, aside)
    return aside.name
