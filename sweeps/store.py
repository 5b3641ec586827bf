"""Results on disk: one atomic Parquet part per table and cell, from which everything else is derived."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.errors import InputError, WorkError
from scaling.files import write_atomically
from scaling.formatting import first_line
from scaling.schema import TABLES, Table, to_arrow, write_parquet

LOCK = ".lock"
GRID = "grid.yaml"
_UNUSABLE = (OSError, pa.ArrowException, ValueError, TypeError)


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

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def share(self) -> float:
        """Share of its tokens that it did not take over from its trunk."""
        return self.tokens_own / self.tokens if self.tokens_own and self.tokens else 1.0


@dataclass(frozen=True)
class Survey:
    """The parts of a study: cells by run_id, and unusable files with the reason."""

    cells: dict[str, StoredCell]
    unusable: dict[Path, str]

    def missing(self, run_ids: Iterable[str], *, retry_failed: bool = False) -> list[str]:
        """The cells that need training: those without a part and, with `retry_failed`, those that are not ok."""
        return [run for run in run_ids if run not in self.cells or (retry_failed and not self.cells[run].ok)]

    def of_older_grids(self, run_ids: Iterable[str]) -> list[str]:
        """Cells on disk that are no longer in the grid; they are kept."""
        return sorted(set(self.cells) - set(run_ids))

    def code_versions(self) -> dict[str, int]:
        """Number of cells by code version."""
        return dict(Counter(part.code_version for part in self.cells.values()))


@dataclass(frozen=True)
class Store:
    """The folder of a study."""

    out: Path

    def path(self, table: Table, run_id: str) -> Path:
        return self.out / table / f"{run_id}.parquet"

    def checkpoints(self, trunk_ids: Iterable[str]) -> Path:
        """The checkpoint folder of a call that trains these trunks."""
        return self.out / "checkpoints" / "-".join(sorted(set(trunk_ids)))

    def write_cell(self, run: dict[str, Any], evals: list[dict[str, Any]], curves: list[dict[str, Any]]) -> None:
        """Write the parts of one cell; its `runs` part, written last, marks the cell as done. Raises WorkError."""
        run_id = run["run_id"]
        if evals:
            self._write("evals", run_id, evals)
        if curves:
            self._write("curves", run_id, curves)
        self._write("runs", run_id, [run])

    def write_latency(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        """Write the latency part of one cell, each row with its `run_id`. Raises WorkError."""
        self._write("latency", run_id, [row | {"run_id": run_id} for row in rows])

    def write_grid(self, text: str) -> None:
        """Write the resolved grid. Raises WorkError."""
        write_atomically(self.out / GRID, text.encode())

    def _write(self, table: Table, run_id: str, rows: list[dict[str, Any]]) -> None:
        write_parquet(self.path(table, run_id), to_arrow(table, rows))

    def read(self, table: Table, run_id: str) -> list[dict[str, Any]]:
        """The rows of one part. Raises WorkError if it is missing or cannot be read."""
        path = self.path(table, run_id)
        try:
            rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise WorkError(f"{path}: cannot be read: {error}") from error
        return rows

    def survey(self) -> Survey:
        """Read every cell on disk. A truncated, foreign or incomplete part counts as missing, with a reason."""
        cells: dict[str, StoredCell] = {}
        unusable: dict[Path, str] = {}
        for path in self._parts("runs"):
            try:
                cells[path.stem] = self._cell(path)
            except _UNUSABLE as error:
                unusable[path] = f"cannot be used: {first_line(error)}"
        return Survey(cells, unusable)

    def part(self, run_id: str) -> StoredCell | None:
        """One cell, or None if it has no usable part."""
        try:
            return self._cell(self.path("runs", run_id))
        except _UNUSABLE:
            return None

    def _cell(self, path: Path) -> StoredCell:
        """The cell of one `runs` part; an ok cell needs its evals and curves too. Raises one of `_UNUSABLE`."""
        rows = pq.ParquetFile(path).read(columns=list(StoredCell.__dataclass_fields__)).to_pylist()
        if len(rows) != 1 or rows[0].get("run_id") != path.stem:
            raise ValueError("not exactly one row with the run_id of the file name")
        row = rows[0]
        if row.get("status") == "ok":
            for table in ("evals", "curves"):
                pq.read_metadata(self.out / table / path.name)
        return StoredCell(**{name: value for name, value in row.items() if value is not None})

    def latency_shapes(self) -> dict[str, str]:
        """run_id -> shape_id of every readable latency part."""
        shapes = {}
        for path in self._parts("latency"):
            try:
                column = pq.ParquetFile(path).read(columns=["shape_id"]).column("shape_id")
            except (OSError, pa.ArrowException):
                continue
            if len(column):
                shapes[path.stem] = str(column[0])
        return shapes

    def tidy(self, survey: Survey) -> list[str]:
        """Rename unusable parts and remove temporary files of killed writers; returns a message for each part.

        Only for the driver that holds the lock.
        """
        messages = []
        for path, reason in survey.unusable.items():
            aside = path.with_name(path.name + ".unusable")
            os.replace(path, aside)
            messages.append(f"{path} {reason}; renamed to {aside.name}, the cell counts as missing")
        for table in TABLES:
            for stray in (self.out / table).glob(".*.tmp"):
                stray.unlink(missing_ok=True)
        return messages

    def pack(self, out: Path) -> list[Path]:
        """Write each table as one file, `<table>.parquet` with a `run_id` in every row, and the grid.

        For archiving a study in a fiftieth of the size; the analysis reads either form, a sweep only parts. Raises
        InputError if there is nothing to pack or a part cannot be read, WorkError if a file cannot be written.
        """
        written = []
        for table in TABLES:
            parts = self._parts(table)
            if not parts:
                continue
            try:
                tables = [pq.ParquetFile(path).read() for path in parts]
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{self.out}: a part of {table} cannot be read: {first_line(error)}") from error
            if table in ("evals", "curves"):
                run_id = pa.field("run_id", pa.string())
                tables = [
                    rows.add_column(0, run_id, [[path.stem] * len(rows)])
                    for rows, path in zip(tables, parts, strict=True)
                ]
            written.append(out / f"{table}.parquet")
            write_parquet(written[-1], pa.concat_tables(tables, promote_options="permissive"), compression="zstd")
        if not written:
            raise InputError(f"{self.out}: no parts to pack; give a study folder written by `scaling sweep run`")
        if (self.out / GRID).is_file():
            write_atomically(out / GRID, (self.out / GRID).read_bytes())
        return written

    def _parts(self, table: Table) -> list[Path]:
        return sorted((self.out / table).glob("*.parquet"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the study against other drivers while this process lives. Raises InputError naming the current driver.

        The kernel releases the lock however the process ends. Python opens files close-on-exec, so child processes,
        such as Ray's daemons, which outlive a killed driver, do not keep it.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            handle = open(self.out / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - held until the end of the sweep
        except OSError as error:
            raise InputError(f"{self.out}: cannot be used as the study folder: {error.strerror}") from error
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
            handle.truncate(0)
            started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
            handle.flush()
            yield

    def driver(self) -> str:
        """Process, host and start of the driver that is sweeping this study, or ""."""
        try:
            with open(self.out / LOCK, encoding="utf-8") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = json.loads(handle.read() or "{}")
                    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('started')}"
        except (OSError, ValueError):
            return ""
        return ""
