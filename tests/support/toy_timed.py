"""The toy task with a latency: one row a shape, and a line of TOY_LOG for every measurement."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import toy_task

from scaling.tasks.cell import TaskCell


def measure(cell: TaskCell) -> list[dict[str, Any]]:
    """A time that says which shape it is of."""
    if log := os.environ.get("TOY_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{cell.shape_id()}\n")
    settings = cell.settings
    assert isinstance(settings, toy_task.Toy)
    if settings.n_experts == settings.fail_at:
        raise ValueError("no such number of experts")
    return [{"phase": "decode", "batch": 1, "context": 1, "time_ms": float(settings.n_experts)}]


TASK = replace(toy_task.TASK, name="timed", measure="toy_timed:measure")
