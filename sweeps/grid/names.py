"""The names of a grid: fields by section, shorthands that fix a field, and what expressions may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from scaling.config.bench import BenchConfig, Resources
from scaling.config.data import DataConfig
from scaling.config.fields import Frozen, Real
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.numbers import parse_number
from scaling.tasks import TASKS
from scaling.tasks.cell import TaskCell
from scaling.tasks.task import Task

SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "bench": BenchConfig,
    "resources": Resources,
}
# The fields that may be axes: name -> section, or None for a field of the cell itself.
AXES: dict[str, str | None] = {
    **{name: section for section in ("model", "data", "train") for name in SECTIONS[section].model_fields},
    "seed": None,
    "tokens": None,
}


class Shorthand(Frozen):
    """What fixes a field by a rule. A grid says it beside the fields; the cell has the field alone.

    tokens_per_parameter: tokens = x n_active, rounded to a whole token; n_active has embeddings and head in and routers
    out, as the column of that name and N of arXiv 2203.15556.
    flops: the training FLOPs of a cell as counted (`scaling.config.counts.train_flops`); tokens are the whole number of
    batches whose count is nearest, so at most half a step off.
    granularity: G = 2 d_model / d_expert, the number of experts that the dense width is split into; 2 d_model / G must
    be whole.
    lr_scale: lr = x times the default rate of the cell (`RunConfig.learning_rate`).
    """

    tokens_per_parameter: Annotated[Real, Field(gt=0)] | None = None
    flops: Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=1e30)] | None = None
    granularity: Annotated[Real, Field(gt=0)] | None = None
    lr_scale: Annotated[Real, Field(gt=0)] | None = None


FIXES = {"tokens_per_parameter": "tokens", "flops": "tokens", "granularity": "d_expert", "lr_scale": "lr"}
"""The field that each shorthand fixes. No field of another task has the name of one."""
WHERE, ZIP = "where", "zip"
AS_AXIS = "; `{}` is an axis: put it under `grid:`"
COUNTS = ("n_active", "n_total", "n_active_nonembed", "n_total_nonembed", "n_dense_nonembed", "n_router")
"""What expressions may read of a model beside its fields, by the names of the run table."""
OF_TRAINING = ("steps", "train_flops")
_LISTS = ("paths", "packages", "batch", "context")


SECTION_OF: dict[str, str | None] = {
    **AXES,
    **{name: section for section in ("bench", "resources") for name in SECTIONS[section].model_fields},
}


@dataclass(frozen=True)
class Names:
    """The names that a grid of one task may use.

    sections: the settings of each section.   axes: the fields that may be axes, each with its section, or None for a
    field of the cell itself.   section_of: the same of all fields.   cell: what has those without a section.
    fixes: shorthands, each with the field that it fixes.   budget: the axis that says how much a cell learns from, as
    the grid names it and as the cell does.   readable: what expressions may read.
    """

    task: str
    sections: Mapping[str, type[BaseModel]]
    axes: Mapping[str, str | None]
    section_of: Mapping[str, str | None]
    cell: type[BaseModel]
    fixes: Mapping[str, str]
    budget: tuple[str, str]
    readable: tuple[str, ...]

    def home(self, name: str) -> str | None:
        """The section that a field, or a shorthand of it, stands in; None where it is an axis alone."""
        return self.section_of[as_field(name)]

    def kind_of(self, name: str) -> type[BaseModel]:
        """The configuration that a field or shorthand belongs to."""
        if name in self.fixes:
            return Shorthand
        section = self.section_of[name]
        return self.sections[section] if section else self.cell

    def in_cell(self, name: str) -> str:
        """The name that a cell, or its section, gives the field of this name."""
        return self.budget[1] if name == self.budget[0] else name

    def elsewhere(self, key: str) -> str:
        """Where a key belongs that is unknown here; "" for one that belongs nowhere."""
        owners = [section for section, kind in self.sections.items() if key in kind.model_fields]
        owners += [str(self.home(short)) for short in self.fixes if short == key and self.home(short)]
        if owners:
            return f"; `{key}` belongs under `{owners[0]}:`"
        return AS_AXIS.format(key) if key in (*self.axes, *self.fixes, WHERE, ZIP) else ""


def as_field(name: str) -> str:
    """The field that an axis sets: itself, or the one that a shorthand fixes."""
    return FIXES.get(name, name)


def names_of(task: str) -> Names:
    """The names of a task's grids. Raises KeyError for a task that is not registered."""
    declared = TASKS[task]
    known = _KNOWN.get(task)
    if known is None or known[0] is not declared:
        known = _KNOWN[task] = (declared, _names(declared))
    return known[1]


_KNOWN: dict[str, tuple[Task, Names]] = {}


def _names(task: Task) -> Names:
    if task.settings is None:
        fields = (*SECTION_OF, *FIXES, *COUNTS, *OF_TRAINING)
        readable = tuple(name for name in fields if name not in _LISTS)
        return Names(task.name, SECTIONS, AXES, SECTION_OF, RunConfig, FIXES, ("tokens", "tokens"), readable)
    sections: dict[str, type[BaseModel]] = {"settings": task.settings, "resources": Resources}
    axes = {**dict.fromkeys(task.settings.model_fields, "settings"), "seed": None, task.budget.name: None}
    section_of = {**axes, **dict.fromkeys(Resources.model_fields, "resources")}
    lists = {name for name, info in task.settings.model_fields.items() if isinstance(info.get_default(), tuple)}
    readable = tuple(name for name in section_of if name not in lists)
    return Names(task.name, sections, axes, section_of, TaskCell, {}, (task.budget.name, "budget"), readable)
