"""The names of a grid: fields by section, shorthands that fix a field, and what expressions may read."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from scaling.config.bench import BenchConfig, Resources
from scaling.config.data import DataConfig
from scaling.config.fields import Frozen, Real
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.numbers import parse_number

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
SECTION_OF: dict[str, str | None] = {
    **AXES,
    **{name: section for section in ("bench", "resources") for name in SECTIONS[section].model_fields},
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
"""The field that each shorthand fixes."""
WHERE, ZIP = "where", "zip"
NOT_FIELDS = (*FIXES, WHERE, ZIP)
COUNTS = ("n_active", "n_total", "n_active_nonembed", "n_total_nonembed", "n_dense_nonembed", "n_router")
"""What expressions may read of a model beside its fields, by the names of the run table."""
OF_TRAINING = ("steps", "train_flops")
_LISTS = ("paths", "packages", "batch", "context")
READABLE = tuple(name for name in (*SECTION_OF, *FIXES, *COUNTS, *OF_TRAINING) if name not in _LISTS)


def home(name: str) -> str | None:
    """The section that a field, or a shorthand of it, stands in; None where it is an axis alone."""
    return SECTION_OF[FIXES.get(name, name)]


def kind_of(name: str) -> type[BaseModel]:
    """The configuration that a field or shorthand belongs to."""
    if name in FIXES:
        return Shorthand
    section = SECTION_OF[name]
    return SECTIONS[section] if section else RunConfig


def as_field(name: str) -> str:
    """The field that an axis sets: itself, or the one that a shorthand fixes."""
    return FIXES.get(name, name)
