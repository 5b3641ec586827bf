"""The task of a study, and how laws of the loss are fitted to a metric of another task than the language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.tables.study import Study
from scaling.columns import LOSS, TOKENS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.tasks import LANGUAGE_MODEL, TASKS
from scaling.tasks.task import Task


def other_task(runs: pd.DataFrame, source: object) -> str | None:
    """The task of these runs, None for language models and where no row says. Raises InputError for several."""
    found = _named(runs)
    if len(found) > 1:
        raise InputError(f"{source}: its runs are of several tasks ({listed(found)}): take one")
    return None if not found or found[0] == LANGUAGE_MODEL else found[0]


def is_of_other_task(runs: pd.DataFrame) -> bool:
    """Whether these runs are of one registered task that is not the language model; what a column `task` of other
    people's says is not."""
    found = _named(runs)
    return len(found) == 1 and found[0] != LANGUAGE_MODEL and found[0] in TASKS


def _named(runs: pd.DataFrame) -> list[str]:
    return sorted({str(task) for task in runs["task"].dropna()} if "task" in runs else ())


def with_target(source: str | Path | pd.DataFrame, mapping: Mapping[str, str], target: str | None) -> dict[str, str]:
    """The mapping by which a law of the loss is fitted to the column `target` instead.

    In a study of another task its budget stands for tokens, unless the mapping says otherwise. Raises InputError where
    the mapping names the loss too, for a metric that the task lacks, and for one that is better when higher: a law
    falls with size and data.
    """
    if target is None:
        return dict(mapping)
    if LOSS in mapping:
        raise InputError(f"`target` {target} and `map` {LOSS}={mapping[LOSS]}: give one of them")
    found = {LOSS: target, **mapping}
    if isinstance(source, pd.DataFrame):
        runs, place = source, "DataFrame"
    elif Path(source).is_dir():
        runs, place = Study(Path(source)).runs, str(source)
    else:
        return found
    if not is_of_other_task(runs):
        return found
    task = TASKS[_named(runs)[0]]
    _require_falling(task, target, place)
    return {TOKENS: task.budget.name, **found}


def _require_falling(task: Task, target: str, source: object) -> None:
    metric = task.metric.get(target)
    if metric is None:
        has = listed(task.metric)
        raise InputError(f"{source}: `target` {target}: task {task.name} has no such metric; it has {has}")
    if metric.better == "higher":
        raise InputError(
            f"`target` {target}: it is better when higher, and a law falls with size and data: map what falls, such as "
            f"`map` {LOSS}='1 - {target}'"
        )


def metrics_hint(runs: pd.DataFrame) -> str:
    """What `target` can name where a column of the language model's is missing; "" for language models."""
    if not is_of_other_task(runs):
        return ""
    (name,) = _named(runs)
    return f". These runs are of the task {name}: `target` names the metric to fit, one of {listed(TASKS[name].metric)}"
