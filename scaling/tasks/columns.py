"""The columns of a task's tables, from what it declares."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scaling.schema import CURVES, EVERY_TASK, REPLICATES, RUNS, TABLES, SchemaColumn, Table

if TYPE_CHECKING:
    from scaling.tasks.task import Task

RESERVED = (
    "study", "task", "settings", "grid", "where", "zip", "seed", "data", "model", "train", "bench", "resources",
    "cpus", "gpus", "expert_parallel", "checkpoint_minutes", "max_minutes",
    "tokens_per_parameter", "flops", "granularity", "lr_scale", "steps",
)  # fmt: skip
"""What grids say of every cell, or of the language model's: no setting or budget can have such a name."""


def task_columns(task: Task, table: Table) -> dict[str, SchemaColumn]:
    """The columns of one table of a task, as its cells write it."""
    if task.settings is None or table == "latency":
        return TABLES[table]
    if table == "evals":
        return REPLICATES
    budget = SchemaColumn(pa.int64(), task.budget.unit, task.budget.meaning)
    if table == "curves":
        metrics = {metric.name: _metric(metric) for metric in task.metrics}
        return {"step": CURVES["step"], task.budget.name: budget, **metrics}
    columns = {name: RUNS[name] for name in EVERY_TASK}
    columns |= {name: setting_column(task.settings, name) for name in task.settings.model_fields}
    columns[task.budget.name] = budget
    for metric in task.metrics:
        columns[metric.name] = _metric(metric)
        columns[error_of(metric.name)] = SchemaColumn(
            pa.float64(), metric.unit, f"standard error of {metric.name} over replicates; null without them"
        )
    return columns


def error_of(metric: str) -> str:
    """The column of a metric's standard error."""
    return f"{metric}_se"


def setting_column(settings: Any, name: str) -> SchemaColumn:
    """The column of one setting: a number, flag or text as it is, anything else as text in JSON."""
    field = settings.model_fields[name]
    kinds = {*_leaves(field.annotation)} - {type(None)}
    extra = field.json_schema_extra
    unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
    if kinds <= {bool}:
        kind = pa.bool_()
    elif kinds <= {int}:
        kind = pa.int64()
    elif kinds <= {int, float}:
        kind = pa.float64()
    else:
        kind = pa.string()
    return SchemaColumn(kind, unit, field.description or "")


def _metric(metric: Any) -> SchemaColumn:
    return SchemaColumn(pa.float64(), metric.unit, metric.meaning, metric.better)


def _leaves(annotation: Any) -> Iterator[Any]:
    """The plain types that an annotation is made of; a literal's are those of its values."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _leaves(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _leaves(part)
    elif origin is typing.Literal:
        yield from map(type, typing.get_args(annotation))
    else:
        yield origin or annotation


def faults(task: Task) -> list[str]:
    """What a task declares that grids and tables cannot have."""
    if task.settings is None:
        return []
    found = []
    fields = task.settings.model_fields
    for name, field in fields.items():
        if field.is_required() or not field.description:
            found.append(f"setting `{name}` needs a default and a description")
    names = [*fields, task.budget.name, *(metric.name for metric in task.metrics)]
    errors = [error_of(metric.name) for metric in task.metrics]
    for name in sorted({name for name in names if names.count(name) > 1 or name in errors}):
        found.append(f"`{name}` names two columns")
    for name in names:
        if not name.isidentifier() or name in (*RESERVED, *EVERY_TASK):
            found.append(f"`{name}` is no name for a setting, metric or budget: take another word")
    for name, column in task_columns(task, "runs").items():
        if name in RUNS and RUNS[name].type != column.type:
            found.append(f"column `{name}` holds {RUNS[name].type} in the table runs, and {column.type} here")
    if not task.metrics:
        found.append("it has no metric")
    return found
