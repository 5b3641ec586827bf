"""What a task declares: its settings, metrics, budget and cost, and the functions that do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from scaling.schema import CURVES, EVERY_TASK, REPLICATES, RUNS, TABLES, SchemaColumn, Table
from scaling.tasks.cell import Settings
from scaling.tasks.columns import RESERVED, error_of, setting_column


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

    @property
    def column(self) -> SchemaColumn:
        """Its column."""
        return SchemaColumn(pa.float64(), self.unit, self.meaning, self.better)


@dataclass(frozen=True)
class Budget:
    """What a cell learns from, such as tokens, samples or frames: an axis of grids and a column of `runs`."""

    name: str
    unit: str
    meaning: str

    @property
    def column(self) -> SchemaColumn:
        """Its column."""
        return SchemaColumn(pa.int64(), self.unit, self.meaning)


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
    one). The cells of a call differ in their budget alone, which increases.
    Results may not depend on which cells share a call.
    measure: `module:function`, cell -> rows of the table `latency`; "" for a task without latency.
    tables: the tables beside `runs` that a cell which is ok has written.
    memory_bytes: peak bytes of a cell beside those of the process, None where it is not known.
    budgets_together: cells that differ in their budget alone are trained in one call, because a longer training goes on
    from a shorter one; if False, each cell is a call of its own.
    code: modules and packages beside that of `train` whose source shapes a result, by dotted name.

    Raises ValueError for names that grids and tables cannot have.
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
    budgets_together: bool = True
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if found := self._faults():
            raise ValueError(f"task {self.name}: {'; '.join(found)}")

    @property
    def primary(self) -> Metric:
        """The metric that a plan, a comparison or a law takes where none is named."""
        return self.metrics[0]

    @property
    def metric(self) -> Mapping[str, Metric]:
        """The metrics by name."""
        return {metric.name: metric for metric in self.metrics}

    def columns(self, table: Table) -> dict[str, SchemaColumn]:
        """The columns of one of its tables, as its cells write it."""
        if self.settings is None or table == "latency":
            return TABLES[table]
        if table == "evals":
            return REPLICATES
        metrics = {metric.name: metric.column for metric in self.metrics}
        if table == "curves":
            shared = {name: column for name, column in CURVES.items() if name != "tokens"}
            return {"step": shared["step"], self.budget.name: self.budget.column, **shared, **metrics}
        settings = {name: setting_column(self.settings, name) for name in self.settings.model_fields}
        every = {name: RUNS[name] for name in EVERY_TASK}
        return {**every, **settings, self.budget.name: self.budget.column, **metrics, **self._errors()}

    def _errors(self) -> dict[str, SchemaColumn]:
        meaning = "standard error of {} over replicates; null without them"
        return {
            error_of(metric.name): SchemaColumn(pa.float64(), metric.unit, meaning.format(metric.name))
            for metric in self.metrics
        }

    def _faults(self) -> list[str]:
        """What it declares that grids and tables cannot have."""
        if self.settings is None:
            return []
        fields = self.settings.model_fields
        found = [
            f"setting `{name}` needs a default and a description"
            for name, one in fields.items()
            if one.is_required() or not one.description
        ]
        names = [*fields, self.budget.name, *(metric.name for metric in self.metrics)]
        errors = self._errors()
        found += [f"`{name}` names two columns" for name in {*names} if names.count(name) > 1 or name in errors]
        found += [
            f"`{name}` is no name for a setting, metric or budget: take another word"
            for name in names
            if not name.isidentifier() or name in (*RESERVED, *EVERY_TASK)
        ]
        found += [
            f"column `{name}` holds {RUNS[name].type} in the table runs, and {column.type} here"
            for name, column in self.columns("runs").items()
            if name in RUNS and RUNS[name].type != column.type
        ]
        return found if self.metrics else [*found, "it has no metric"]
