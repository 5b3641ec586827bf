"""What docs/tasks.md shows works as it stands: its grid is read, and its task trains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from scaling.config.fields import Count, Real
from scaling.observer import UNOBSERVED
from scaling.tasks import TASKS
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.rows import result
from scaling.tasks.task import Budget, Metric, Task
from sweeps import grid

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def block(language: str) -> str:
    """The first block of this language on the page."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_the_grid_of_the_page_is_read() -> None:
    assert len(grid.parse(block("yaml"), PAGE).cells) == 27


def test_the_task_of_the_page_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of heads among n tosses has the mean squared error p (1 - p) / n."""
    given: dict[str, Any] = {
        "Annotated": Annotated, "Budget": Budget, "Count": Count, "Field": Field, "Metric": Metric, "Real": Real,
        "Settings": Settings, "Task": Task, "result": result, "__name__": "scaling.tasks.coin",
    }  # fmt: skip
    code = block("python")
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), given)  # ours: the page's own text
    coin = given["TASK"]
    monkeypatch.setitem(TASKS.own, "coin", coin)
    monkeypatch.setattr("scaling.tasks.rows.code_version", lambda task: task)  # the module is on the page alone
    cells = [TaskCell(task="coin", settings=coin.settings(heads=0.3), budget=samples) for samples in (100, 400)]
    for cell, made in zip(cells, given["train_cells"](cells, None, UNOBSERVED), strict=True):
        truth = 0.3 * 0.7 / cell.budget
        # The mean of 50 squared errors has a relative error of sqrt(2 / 50) = .2: four of these.
        assert made.run["squared_error"] == pytest.approx(truth, rel=0.8)
        assert len(made.evals) == 50
