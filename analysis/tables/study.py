"""A study folder: its tables in parts, or packed into one file each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.tables.reading_log import ReadingLog
from scaling import table
from scaling.errors import InputError
from scaling.formatting import plural
from scaling.schema import TABLES, Table
from scaling.summary import Summarised, summary_table

_RUN = "run_id"


def evaluation(study: Path, run_id: str) -> pd.DataFrame:
    """Held-out loss of a run by document: `document`, `n_tokens`, `loss`. Raises InputError without an evaluation."""
    frame = _of_run(study, "evals", run_id)
    if frame.empty:
        raise InputError(f"{study}: no evaluation of run {run_id!r} (in evals/{run_id}.parquet or evals.parquet)")
    return frame[["document", "n_tokens", "loss"]]


def curve(study: Path, run_id: str) -> pd.DataFrame:
    """A run's training curve; empty where there is none."""
    return _of_run(study, "curves", run_id)


def has(study: Path, table: Table) -> bool:
    """Whether a study folder has any part of a table."""
    return bool(_parts(study, table))


def table_rows(study: Path, table: Table) -> pd.DataFrame:
    """All readable parts of one table of a study folder, whatever their status, with `run_id` in every row."""
    return _concatenated(_parts(study, table), ReadingLog())


@dataclass(frozen=True, repr=False)
class Study(Summarised):
    """The tables of a study folder as DataFrames, in the columns of `scaling.schema` and with `run_id` in each.

    `runs`: one row per cell, whatever its status; `evals`: held-out loss by document; `curves`: training, step by step;
    `latency`: measured times. Each is read when it is first asked for.
    """

    path: Path

    @cached_property
    def runs(self) -> pd.DataFrame:
        return read_study(self.path, ReadingLog())

    @cached_property
    def evals(self) -> pd.DataFrame:
        return self._rows("evals")

    @cached_property
    def curves(self) -> pd.DataFrame:
        return self._rows("curves")

    @cached_property
    def latency(self) -> pd.DataFrame:
        return self._rows("latency")

    def _rows(self, table: Table) -> pd.DataFrame:
        frame = table_rows(self.path, table)
        return pd.DataFrame(columns=[*dict.fromkeys((_RUN, *TABLES[table]))]) if frame.empty else frame

    def summary(self) -> table.Table:
        """How many runs ended how, and the number of files of each table."""
        counts = self.runs["status"].value_counts().sort_index()
        rows = [(str(status), str(count)) for status, count in counts.items()]
        files = ", ".join(f"{name} {len(_parts(self.path, name))}" for name in TABLES)
        title = f"Study {self.path}: {plural(len(self.runs), 'run')} (files: {files})"
        return summary_table(title, ("status", "runs"), rows, ())


def read_study(study: Path, log: ReadingLog) -> pd.DataFrame:
    """The runs of a study folder, whatever their status; unreadable files are counted in the log.

    Raises InputError for a folder without readable runs.
    """
    parts = _parts(study, "runs")
    if not parts:
        raise InputError(
            f"{study}: no runs/*.parquet or runs.parquet in this folder; `scaling sweep run` writes a study folder"
        )
    frame = _concatenated(parts, log)
    if frame.columns.empty:
        raise InputError(f"{study}: none of the {len(parts)} run files is readable")
    return frame


def _of_run(study: Path, table: Table, run_id: str) -> pd.DataFrame:
    """The rows of one run, from its part or from a packed study; empty where there are none."""
    part, packed = study / table / f"{run_id}.parquet", study / f"{table}.parquet"
    if part.is_file():
        return pq.read_table(part).to_pandas()
    if not packed.is_file():
        return pd.DataFrame()
    frame = _packed(packed, packed.stat().st_mtime_ns)
    return frame[frame["run_id"] == run_id].reset_index(drop=True)


@functools.lru_cache(maxsize=8)
def _packed(path: Path, written: int) -> pd.DataFrame:
    return pq.read_table(path).to_pandas()


def _parts(study: Path, table: Table) -> list[Path]:
    """The files of a table: one per cell as a sweep writes them, else the one that `scaling sweep pack` makes."""
    parts = sorted(p for p in (study / table).glob("*.parquet") if not p.name.startswith((".", "_")))
    packed = study / f"{table}.parquet"
    return parts or ([packed] if packed.is_file() else [])


def _concatenated(parts: list[Path], log: ReadingLog) -> pd.DataFrame:
    tables = []
    for part in parts:
        try:
            table = pq.read_table(part)
        except (OSError, pa.ArrowException):
            continue
        if _RUN not in table.column_names:  # the part of a cell carries its name on the file
            table = table.add_column(0, _RUN, [[part.stem] * len(table)])
        tables.append(table)
    log.counts.append(("an unreadable file", len(parts) - len(tables)))
    return pa.concat_tables(tables, promote_options="permissive").to_pandas() if tables else pd.DataFrame()
