"""A task of one module, as another distribution would bring it: the mean of n Gaussians, whose squared error is 1/n.

TOY_SECONDS is how long a cell takes, every cell is a line of TOY_LOG, and a cell of `fail_at` samples fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from scaling.config.fields import Count, Real, Whole
from scaling.observer import Observer
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.rows import result
from scaling.tasks.task import Budget, CellResult, Metric, Task


class Toy(Settings):
    """Settings of every kind that a column can have."""

    n_experts: Annotated[Count, Field(description="Gaussians, whose means are averaged")] = 1
    spread: Annotated[Real, Field(gt=0, description="standard deviation", json_schema_extra={"unit": "m"})] = 1.0
    shape: Annotated[Literal["normal", "uniform"], Field(description="distribution")] = "normal"
    replicates: Annotated[Count, Field(description="data sets")] = 40
    centred: Annotated[bool, Field(description="whether the true mean is 0, or else 1")] = True
    fail_at: Annotated[Whole, Field(description="samples at which a cell fails")] = 0
    weights: Annotated[tuple[int, ...], Field(description="not used")] = (1, 2)

    @model_validator(mode="after")
    def _consistent(self) -> Toy:
        if self.shape == "uniform" and self.n_experts > 8:
            raise ValueError(f"shape=uniform takes at most 8 experts, found n_experts={self.n_experts}")
        return self


def train_cells(cells: Sequence[TaskCell], checkpoints: Path | None, observer: Observer) -> Iterator[CellResult]:
    """Squared error of the mean over the samples of each replicate."""
    for cell in cells:
        observer.phase("train")
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        if reason := observer.reason_to_stop():
            raise reason
        settings = cell.settings
        assert isinstance(settings, Toy)
        if log := os.environ.get("TOY_LOG"):
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{cell.run_id()}\n")
        if settings.fail_at == cell.budget:
            raise ValueError("no such number of samples")
        errors = [error(settings, cell.seed, replicate, cell.budget) for replicate in range(settings.replicates)]
        yield result(cell, {"squared_error": errors, "score": [1.0 - one for one in errors], "share": 0.5})


def error(settings: Toy, seed: int, replicate: int, samples: int) -> float:
    """The squared error of one replicate."""
    draw = np.random.default_rng([seed, replicate, samples])
    half = np.sqrt(3.0)
    size = (samples, settings.n_experts)
    values = draw.normal(size=size) if settings.shape == "normal" else draw.uniform(-half, half, size)
    return float(np.mean(settings.spread * values) ** 2)


TASK = Task(
    name="toy",
    title="the mean of a sample",
    source="a textbook",
    settings=Toy,
    metrics=(
        Metric("squared_error", "m^2", "squared error of the mean"),
        Metric("score", "", "one minus that", better="higher"),
        Metric("share", "", "a number of the whole run", better="higher"),
    ),
    budget=Budget("samples", "samples", "n, samples of a data set"),
    train="toy_task:train_cells",
    flops=lambda cell: float(cell.budget * cell.settings.n_experts * cell.settings.replicates),
    flops_are="counted",
)
