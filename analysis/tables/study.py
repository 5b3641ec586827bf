"""A study folder as data frames, whether its tables are in parts, packed, or both (`scaling.parts`)."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.tables.reading_log import ReadingLog
from scaling import parts, table
from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import listed, plural
from scaling.schema import TABLES, Table
from scaling.summary import Summarised, summary_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def evaluation(study: Path, run_id: str) -> pd.DataFrame:
    """Held-out loss of a run by document: `document`, `n_tokens`, `loss`.

    Raises InputError where there is none, and where its file cannot be read.
    """
    frame = parts.read_run(study, "evals", run_id).to_pandas()
    if frame.empty:
        raise InputError(f"{study}: no evaluation of run {run_id!r} (in evals/{run_id}.parquet or evals.parquet)")
    usable = frame["document"].notna() & np.isfinite(frame["loss"]) & (frame["n_tokens"] > 0)
    if not usable.all() or frame["document"].duplicated().any():
        raise InputError(
            f"{study}: the evaluation of run {run_id!r} has a document twice, or one without name, tokens or loss"
        )
    return frame[["document", "n_tokens", "loss"]]


def curve(study: Path, run_id: str) -> pd.DataFrame:
    """A run's training curve; empty where there is none. Raises InputError where its file cannot be read."""
    return parts.read_run(study, "curves", run_id).to_pandas()


def left_out(study: Path, table: Table) -> list[str]:
    """What is left out of a table because it cannot be read, as sentences."""
    return parts.read_study_table(study, table).notes()


def table_rows(study: Path, table: Table, log: ReadingLog | None = None) -> pd.DataFrame:
    """All rows of one table of a study folder, whatever their status, with `run_id` in each.

    Files that cannot be read are left out and named in the log.
    """
    read = parts.read_study_table(study, table)
    if log is not None:
        log.counts.append(("an unreadable file", len(read.unreadable)))
        log.notes += read.notes()
    return read.rows.to_pandas()


@dataclass(frozen=True, repr=False)
class Study(Summarised):
    """The tables of a study folder as DataFrames, in the columns of `scaling.schema` and with `run_id` in each.

    `runs`: one row per cell, whatever its status; `evals`: held-out loss by document, or, of a task whose cells are
    many replicates, each metric by replicate; `curves`: training, step by step; `latency`: measured times. Each is read
    when it is first asked for.
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
        rows = parts.read_study_table(self.path, table).rows
        columns = rows.column_names if parts.is_of_other_task(rows.schema) else TABLES[table]
        return rows.to_pandas().reindex(columns=[*dict.fromkeys((parts.RUN, *columns))])

    def plot_curves(self, where: str | None = None, by: str | None = None) -> Figure:
        """Training loss, learning rate, gradient norm and expert load against tokens, of finished and running cells.

        `where` selects runs by their columns, "d_model == 64"; `running` is one of them. `by` names the column whose
        values have colours, by default the first in which the runs differ. Live files are read at each call. Raises
        InputError where there are no such curves, and where matplotlib is missing.
        """
        require_installed("a figure", "matplotlib")
        curves = pkgutil.resolve_name("analysis.tables.curves:training_curves")(self.path, where)
        figure: Figure = pkgutil.resolve_name("analysis.figures.curves:curves_figure")(curves, by)
        return figure

    def summary(self) -> table.Table:
        """How many runs ended how, and the number of files of each table."""
        counts = self.runs["status"].value_counts().sort_index()
        rows = [(str(status), str(count)) for status, count in counts.items()]
        files = ", ".join(f"{name} {len(parts.files(self.path, name))}" for name in TABLES)
        title = f"Study {self.path}: {plural(len(self.runs), 'run')} (files: {files})"
        return summary_table(title, ("status", "runs"), rows, ())


def read_study(study: Path, log: ReadingLog) -> pd.DataFrame:
    """The runs of a study folder, whatever their status; files that cannot be read are named in the log.

    Raises InputError for a folder without readable runs.
    """
    read = parts.read_study_table(study, "runs")
    if not read.files:
        raise InputError(
            f"{study}: no runs/*.parquet or runs.parquet in this folder; `scaling sweep run` writes a study folder"
        )
    if len(read.unreadable) == read.files:
        raise InputError(f"{study}: no file of its runs can be read ({listed(read.left_out(), most=3)})")
    log.counts.append(("an unreadable file", len(read.unreadable)))
    log.notes += read.notes()
    return read.rows.to_pandas()
