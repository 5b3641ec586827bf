"""The names and types of a task's columns."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator

import pyarrow as pa

from scaling.schema import SchemaColumn
from scaling.tasks.cell import Settings

RESERVED = (
    "study", "task", "settings", "grid", "where", "zip", "seed", "data", "model", "train", "bench", "resources",
    "cpus", "gpus", "expert_parallel", "checkpoint_minutes", "max_minutes",
    "tokens_per_parameter", "flops", "granularity", "lr_scale", "steps",
)  # fmt: skip
"""What grids say of every cell, or of the language model's: no setting or budget can have such a name."""


def error_of(metric: str) -> str:
    """The column of a metric's standard error."""
    return f"{metric}_se"


def setting_column(settings: type[Settings], name: str) -> SchemaColumn:
    """The column of one setting: a number, flag or text as it is, anything else as text in JSON.

    The meaning is the field's `description`, the unit that of its `json_schema_extra`.
    """
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


def _leaves(annotation: object) -> Iterator[object]:
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
