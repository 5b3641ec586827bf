"""The plan of a grid of another task than the language model: its cells, their FLOPs and time, and its weaknesses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scaling.config.cell import Cell
from scaling.config.run import by_trunk
from scaling.formatting import si
from scaling.tasks import TASKS
from scaling.tasks.costs import budget_of, device_bytes, train_flops
from scaling.tasks.task import Task
from sweeps.calls import plan_calls
from sweeps.grid import Grid, LeftOut, axis_value
from sweeps.labels import cell_labels
from sweeps.plan.capacity import most_at_once, this_machine
from sweeps.plan.task_time import task_seconds
from sweeps.store import StoredCell

LEVELS = 4
"""Levels of the budget from which a slope against it has windows that can be compared."""


@dataclass(frozen=True)
class TaskCellPlan:
    """One cell with its cost. trunk: number of the call that it shares with other budgets.   seconds: predicted."""

    config: Cell
    label: str
    trunk: int
    budget: int
    train_flops: float
    memory_bytes: float
    seconds: float
    status: str


@dataclass(frozen=True)
class TaskPlan:
    """A priced grid of a task: its cells in grid order, and the wall time of missing ones on this machine.

    workers: cells at a time, at most.   basis: what the time rests on.   left_out: combinations of axes that are no
    cells.
    """

    study: str
    task: Task
    cells: tuple[TaskCellPlan, ...]
    duplicates: int
    left_out: tuple[LeftOut, ...]
    workers: int
    seconds: float
    calls: int
    basis: str
    lint: tuple[str, ...]
    defaults: dict[str, dict[str, Any]]
    fields: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as values for JSON; a cell's budget is called as its task calls it."""
        task = self.task
        return {
            "study": self.study,
            "task": {
                "name": task.name,
                "title": task.title,
                "source": task.source,
                "metrics": [asdict(metric) for metric in task.metrics],
                "budget": asdict(task.budget),
                "flops_are": task.flops_are,
            },
            "cells": [
                {
                    "label": cell.label,
                    "trunk": cell.trunk,
                    task.budget.name: cell.budget,
                    "train_flops": cell.train_flops,
                    "memory_bytes": cell.memory_bytes,
                    "seconds": cell.seconds,
                    "status": cell.status,
                    "config": cell.config.model_dump(mode="json"),
                }
                for cell in self.cells
            ],
            "left_out": [asdict(one) for one in self.left_out],
            "totals": {
                "cells": len(self.cells),
                "missing": sum(cell.status == "missing" for cell in self.cells),
                task.budget.name: sum(cell.budget for cell in self.cells),
                "trunks": len({cell.trunk for cell in self.cells}),
                "calls": self.calls,
                "train_flops": sum(cell.train_flops for cell in self.cells),
                "seconds": self.seconds,
                "duplicates": self.duplicates,
                "left_out": sum(one.count for one in self.left_out),
            },
            "workers": self.workers,
            "basis": self.basis,
            "lint": list(self.lint),
            "defaults": self.defaults,
        }


def task_plan(grid: Grid, parts: Mapping[Cell, StoredCell] | None = None, beside: Path | None = None) -> TaskPlan:
    """Price a grid of a task and say what is weak in it.

    `parts` are its cells in the study's folder; where none is finished, those of its task in other studies of the
    folder `beside` say how long it takes (`task_time.task_seconds`).
    """
    parts, machine, labels = parts or {}, this_machine(), cell_labels(grid)
    seconds, basis = task_seconds(grid.cells, parts, beside)
    of_trunk = {cell: number for number, trunk in enumerate(by_trunk(grid.cells), start=1) for cell in trunk}
    missing = [cell for cell in grid.cells if cell not in parts]
    workers = most_at_once(grid.cells, machine)
    calls = plan_calls(missing, workers)
    cells = tuple(
        TaskCellPlan(
            config=cell,
            label=labels[cell],
            trunk=of_trunk[cell],
            budget=budget_of(cell),
            train_flops=train_flops(cell),
            memory_bytes=device_bytes(cell),
            seconds=seconds[cell],
            status=parts[cell].status if cell in parts else "missing",
        )
        for cell in grid.cells
    )
    return TaskPlan(
        study=grid.study,
        task=TASKS[grid.task],
        cells=cells,
        duplicates=grid.duplicates,
        left_out=grid.left_out,
        workers=workers,
        seconds=machine.makespan((sum(seconds[cell] for cell in call), call[0].resources) for call in calls),
        calls=len(calls),
        basis=basis,
        lint=tuple(_weaknesses(grid)),
        defaults=_defaults(grid),
        fields=grid.resolved_fields,
    )


def _weaknesses(grid: Grid) -> list[str]:
    """What the design cannot show, each with a remedy; none of it stops a sweep."""
    messages = []
    name = grid.names.budget[0]
    levels = sorted({budget_of(cell) for cell in grid.cells})
    if len(levels) == 1:
        messages.append(f"one level of `{name}` ({si(levels[0])}): no rate in it can be estimated; sweep `{name}`")
    elif len(levels) < LEVELS:
        messages.append(
            f"{len(levels)} levels of `{name}`: whether a slope depends on its window cannot be seen below {LEVELS}"
        )
    runs = Counter(cell.configuration("") + str(budget_of(cell)) for cell in grid.cells)
    replicated = "replicates" in grid.names.axes and any(axis_value(cell, "replicates") > 1 for cell in grid.cells)
    if max(runs.values()) == 1 and not replicated:
        messages.append("one seed per configuration: run-to-run noise is not estimated; give a few cells several seeds")
    return messages


def _defaults(grid: Grid) -> dict[str, dict[str, Any]]:
    """Defaults that the grid does not set, by section."""
    given = {*grid.given}
    defaults = {
        section: {
            name: info.get_default()
            for name, info in kind.model_fields.items()
            if name not in given and info.get_default() != ()
        }
        for section, kind in grid.names.sections.items()
    }
    return {section: values for section, values in defaults.items() if values}
