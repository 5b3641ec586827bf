"""What a task declares: its settings, metrics, budget and cost, and the functions that do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scaling.tasks.cell import Settings
from scaling.tasks.columns import faults


@dataclass(frozen=True)
class Metric:
    """What a task measures: a column of the table `runs`.

    unit: "" for a pure number.   better: whether a lower value is the better one, as of a loss, or a higher one, as of
    a return.
    """

    name: str
    unit: str
    meaning: str
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Budget:
    """What a cell learns from, such as tokens, samples or frames: an axis of grids and a column of `runs`."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class CellResult:
    """The row of a cell in `runs`, and its rows in `evals` and `curves`."""

    run: dict[str, Any]
    evals: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """A task: what grids, plans, tables and laws need to know of it. Nothing here needs JAX.

    title: what it is, in a few words.   source: arXiv number of the paper, or another source.
    settings: its fields, each with a default and a description; None for the language model, whose settings are the
    sections of `scaling.config.run.RunConfig`.
    metrics: the first is the primary one.
    budget: name and unit of what a cell learns from.
    flops: training FLOPs of a cell.   flops_are: `counted` operation by operation, or `estimated`.
    train: `module:function`, imported by the process that trains: (cells of one call, folder for checkpoints or None,
    observer) -> an iterator over their `CellResult`s, each yielded when it is done (`scaling.tasks.rows.result` makes
    one). The cells of a call differ in their budget alone, which increases. Results may not depend on which cells
    share a call.
    measure: `module:function`, cell -> rows of the table `latency`; "" for a task without latency.
    tables: the tables beside `runs` that a cell which is ok has written.
    memory_bytes: peak bytes of a cell beside those of the process, None where it is not known.
    code: modules and packages beside that of `train` whose source shapes a result, by dotted name.
    """

    name: str
    title: str
    settings: type[Settings] | None
    metrics: tuple[Metric, ...]
    budget: Budget
    train: str
    flops: Callable[[Any], float]
    flops_are: Literal["counted", "estimated"]
    source: str = ""
    measure: str = ""
    tables: tuple[Literal["evals", "curves"], ...] = ("evals",)
    memory_bytes: Callable[[Any], float] | None = None
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if found := faults(self):
            raise ValueError(f"task {self.name}: {'; '.join(found)}")

    @property
    def primary(self) -> Metric:
        """The metric that a plan, a comparison or a law takes where none is named."""
        return self.metrics[0]

    @property
    def metric(self) -> Mapping[str, Metric]:
        """The metrics by name."""
        return {metric.name: metric for metric in self.metrics}
