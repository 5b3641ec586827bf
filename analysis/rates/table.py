"""The values of a metric by replicate, with the settings of their runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.tables.expressions import where_selected
from analysis.tables.readers import read_table, with_plain_cells
from analysis.tables.reading_log import CheckedTable, ReadingLog
from analysis.tables.study import read_study, table_rows
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.tasks import TASKS
from scaling.tasks.task import Task

VALUE, IDENTITY = "value of the metric", "replicate of the seed"  # columns that no table of runs has
_SAMPLING = ("seed", "replicates")  # settings that choose the replicates, and not what is measured
_BUDGET = ("budget", "steps")  # what a configuration calls the budget, which is a column under a name of the task


@dataclass(frozen=True, repr=False)
class ReplicateTable(CheckedTable):
    """One row a replicate: the columns of its run, `VALUE` of the metric, and its `IDENTITY`, which the replicates of
    other runs share where seed and number are the same.

    `settings` are the columns that shape what is measured, empty where the table does not say; `better` is the
    direction of the metric, `unit` its unit. `blank` values, which are no finite number, were left out.
    """

    metric: str = ""
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    settings: tuple[str, ...] = ()
    blank: int = 0

    @property
    def columns(self) -> list[str]:
        """The columns of the runs."""
        return [str(name) for name in self.frame if name not in (VALUE, IDENTITY)]


def read_replicates(source: str | Path | pd.DataFrame, metric: str, where: str | None = None) -> ReplicateTable:
    """The values of a metric in a study folder, in a file (`analysis.tables.readers.read_table`) or in a frame.

    In a study folder they are the rows of `evals` with that `metric`; a metric that has none there, and that of a file
    or a frame, is a column: one value a row, whose replicate is its `seed` and `replicate`, or the row itself. Runs
    that did not finish are left out and counted, and so are values that are no finite number. Raises InputError for a
    source that cannot be read, for a metric that it lacks, naming those there are, and where no value is left.
    """
    log, name = ReadingLog(), "DataFrame" if isinstance(source, pd.DataFrame) else str(source)
    of_study = not isinstance(source, pd.DataFrame) and Path(source).is_dir()
    if isinstance(source, pd.DataFrame):
        runs = with_plain_cells(source, name)
    else:
        runs = read_study(Path(source), log) if of_study else read_table(Path(source))
    runs = _finished(runs, log)
    runs = where_selected(runs, where, log)
    evals = table_rows(Path(str(source)), "evals", log) if of_study else pd.DataFrame()
    frame = _valued(runs, evals, metric, name)
    blank = ~np.isfinite(frame[VALUE])
    frame = log.drop(frame, blank, f"{metric} that is no finite number")
    if frame.empty:
        reasons = "; ".join(f"{count} with {reason}" for reason, count in log.dropped) or "the table has no rows"
        raise InputError(f"{name}: no value of {metric} is left ({reasons})")
    table = ReplicateTable(
        frame.reset_index(drop=True), name, log.dropped, tuple(log.notes), metric=metric, blank=int(blank.sum())
    )
    return _described(table)


def metrics_of(runs: pd.DataFrame, evals: pd.DataFrame) -> list[str]:
    """The metrics that a study has: those of its replicates, and those that its task declares as columns of runs."""
    named = list(evals["metric"].dropna().unique()) if "metric" in evals else []
    declared = [metric.name for task in _tasks(runs) for metric in task.metrics]
    return [*dict.fromkeys([*named, *(name for name in declared if name in runs)])]


def _finished(runs: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The runs that ended well; the others are counted by status."""
    if "status" not in runs:
        return runs
    for status in sorted(set(runs["status"].dropna().astype(str)) - {"ok"}):
        runs = log.drop(runs, runs["status"].eq(status), f"status {status}")
    return runs


def _valued(runs: pd.DataFrame, evals: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    """A row for each value of the metric."""
    if {"metric", "replicate", "value"} <= set(evals.columns):
        own = evals.loc[evals["metric"] == metric, ["run_id", "replicate", "value"]]
        if len(own):
            joined = runs.merge(own.rename(columns={"value": VALUE}), on="run_id", suffixes=("", " in evals"))
            number = joined["replicate in evals" if "replicate in evals" in joined else "replicate"]
            return joined.assign(**{IDENTITY: _identities(joined, number)})
    if metric not in runs:
        known = metrics_of(runs, evals) or [*runs.columns[runs.dtypes.map(pd.api.types.is_numeric_dtype)]]
        raise InputError(f"{name}: no metric {metric!r}; it has {listed(known, most=40)}")
    values = pd.to_numeric(runs[metric], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return runs.assign(**{VALUE: values}, **{IDENTITY: _identities(runs, runs.get("replicate"))})


def _identities(rows: pd.DataFrame, numbers: pd.Series[Any] | None) -> list[str]:
    """Seed and number of each replicate; the row itself where neither is known."""
    parts = [column.astype(str) for column in (rows.get("seed"), numbers) if column is not None]
    if not parts:
        return [f"row {row}" for row in range(len(rows))]
    return ["/".join(of_row) for of_row in zip(*parts, strict=True)]


def _described(table: ReplicateTable) -> ReplicateTable:
    """The table with what its task, if that is installed, says of settings and metric."""
    tasks = _tasks(table.frame)
    metric = next((task.metric[table.metric] for task in tasks if table.metric in task.metric), None)
    shaping = [name for config in _unique(table.frame, "config") for name in _leaves(config)]
    shaping += [task.budget.name for task in tasks]
    others = (*_SAMPLING, *_BUDGET)
    settings = [name for name in dict.fromkeys(shaping) if name in table.frame and name not in others]
    if metric is None:
        return replace(table, settings=tuple(settings))
    return replace(table, unit=metric.unit, better=metric.better, settings=tuple(settings))


def _tasks(runs: pd.DataFrame) -> list[Task]:
    """The declarations of the tasks of these runs, as far as they are installed."""
    return [TASKS[name] for name in _unique(runs, "task") if name in TASKS]


def _unique(frame: pd.DataFrame, column: str) -> list[str]:
    return [str(value) for value in frame[column].dropna().unique()] if column in frame else []


def _leaves(config: str) -> list[str]:
    """The names of the fields of a run's configuration, its sections opened."""
    try:
        document = json.loads(config)
    except ValueError:
        return []
    names = []
    for name, value in document.items() if isinstance(document, dict) else ():
        names += [*value] if isinstance(value, dict) else [name]
    return names
