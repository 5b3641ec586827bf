"""A study folder: the parts of its tables, or the tables packed from them."""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.tables.reading_log import ReadingLog
from scaling.errors import InputError
from scaling.schema import Table


def evaluation(study: Path, run_id: str) -> pd.DataFrame:
    """Held-out loss of a run by document: `document`, `n_tokens`, `loss`. Raises InputError where there is none."""
    frame = _of_run(study, "evals", run_id)
    if frame.empty:
        raise InputError(f"{study}: no evaluation of run {run_id!r} (in evals/{run_id}.parquet or evals.parquet)")
    return frame[["document", "n_tokens", "loss"]]


def curve(study: Path, run_id: str) -> pd.DataFrame:
    """A run's `curves`, empty where there are none."""
    return _of_run(study, "curves", run_id)


def has(study: Path, table: Table) -> bool:
    """Whether a study folder has any part of a table."""
    return bool(_parts(study, table))


def rows(study: Path, table: Table) -> pd.DataFrame:
    """All readable parts of one table of a study folder, whatever their status."""
    return _concatenated(_parts(study, table), ReadingLog())


def read_study(study: Path, log: ReadingLog) -> pd.DataFrame:
    """The runs of a study folder, whatever their status; unreadable files are counted in the log.

    Raises InputError where there are none, or none that can be read.
    """
    parts = _parts(study, "runs")
    if not parts:
        raise InputError(
            f"{study}: no runs/*.parquet in this folder, and no runs.parquet; `scaling sweep run` writes a study folder"
        )
    frame = _concatenated(parts, log)
    if frame.columns.empty:
        raise InputError(f"{study}: none of its {len(parts)} run files is readable")
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
            tables.append(pq.read_table(part))
        except (OSError, pa.ArrowException):
            continue
    log.counts.append(("an unreadable file", len(parts) - len(tables)))
    return pa.concat_tables(tables, promote_options="permissive").to_pandas() if tables else pd.DataFrame()
