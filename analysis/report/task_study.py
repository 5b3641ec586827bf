"""A study of another task than the language model, as its report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_origin

import pandas as pd

from analysis.rates.rates import Rates, read_rates
from analysis.report.study import readable, text_of
from analysis.report.subject import Subject
from analysis.returns.arms import first_arm
from analysis.returns.comparison import ReturnsComparison, compare, read_returns
from analysis.returns.question import ReturnsQuestion
from analysis.tables.study import Study
from analysis.tables.tasks import other_task
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.json_text import parse_json
from scaling.tasks import TASKS
from scaling.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TaskStudy(Subject):
    """A folder as read: the cells that are ok, those that are not, and the rates and comparisons of returns that are
    kept there.

    varied: the settings in which the cells differ, in the order of the task.
    """

    path: Path
    task: Task
    runs: pd.DataFrame
    failed: pd.DataFrame
    varied: tuple[str, ...]
    grid: str
    rates: Mapping[str, Rates]
    returns: Mapping[str, ReturnsComparison]


def load_task_study(path: Path) -> TaskStudy:
    """Read the study folder of another task. Raises InputError for a task that is not installed, and without a cell
    that is ok."""
    runs = Study(path).runs
    name = other_task(runs, path)
    if name is None or name not in TASKS:
        raise InputError(f"{path}: the task {name} is not installed; there are {listed(TASKS)}")
    task, notes = TASKS[name], list[str]()
    runs = _with_plain_lists(runs, task)
    ok = runs[runs["status"] == "ok"].reset_index(drop=True)
    if ok.empty:
        raise InputError(f"{path}: no cell of this study is ok: {listed(runs['error'], most=3)}")
    settings = [] if task.settings is None else [*task.settings.model_fields]
    started = ok["started_at"].dropna()
    return TaskStudy(
        name=str(ok["study"].iloc[0]),
        answers={},
        fits={},
        made=datetime.fromisoformat(started.max()) if len(started) else None,
        path=path,
        task=task,
        runs=ok.sort_values([one for one in (*settings, task.budget.name, "seed") if one in ok], kind="stable"),
        failed=runs[runs["status"] != "ok"],
        varied=tuple(one for one in settings if one in ok and len(ok[one].unique()) > 1),
        grid=text_of(path / "grid.yaml", notes),
        rates=readable(path / "rates", read_rates, notes),
        returns=_returns(path, task, notes),
        notes=tuple(notes),
    )


def _with_plain_lists(runs: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The rows with settings that are lists, JSON in a table, as a report writes them: breakout + asterix."""
    fields = {} if task.settings is None else task.settings.model_fields
    lists = [name for name, one in fields.items() if get_origin(one.annotation) in (tuple, list) and name in runs]

    def plain(cell: object) -> object:
        return " + ".join(map(str, parse_json(cell, "a setting"))) if isinstance(cell, str) else cell

    return runs.assign(**{name: runs[name].map(plain) for name in lists})


def _returns(path: Path, task: Task, notes: list[str]) -> dict[str, ReturnsComparison]:
    """The comparisons that `scaling returns` left in the folder; without one, and where the primary metric is better
    when higher, all arms against the first."""
    stored = readable(path / "returns", read_returns, notes)
    if stored or task.primary.better == "lower":
        return stored
    try:
        baseline = first_arm(path)
        made = compare(path, ReturnsQuestion(baseline=baseline))
    except InputError as error:
        notes.append(f"Arms were not compared: {error}.")
        return {}
    if len(made.arms) == 1:
        return {}
    notes.append(
        f"The folder has no comparison of returns: this report compares all arms with {baseline}; `scaling returns` "
        f"with `out` in {path / 'returns'} keeps another."
    )
    return {"arms": made}
