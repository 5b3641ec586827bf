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
    found = sorted({str(task) for task in runs["task"].dropna()} if "task" in runs else ())
    if len(found) > 1:
        raise InputError(f"{source}: its runs are of several tasks ({listed(found)}): take one")
    return None if not found or found[0] == LANGUAGE_MODEL else found[0]


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
    name = other_task(runs, place)
    if name is None or name not in TASKS:
        return found
    task = TASKS[name]
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


def metrics_hint(runs: pd.DataFrame, source: object) -> str:
    """What `target` can name where a column of the language model's is missing; "" for language models."""
    name = other_task(runs, source)
    if name is None:
        return ""
    of = f", one of {listed(TASKS[name].metric)}" if name in TASKS else ""
    return f". These runs are of the task {name}: `target` names the metric to fit{of}"
