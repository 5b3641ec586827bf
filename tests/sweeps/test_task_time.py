"""How long a task's cells take: a line through what such cells took, here or in another study, else what is assumed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import toy_task
from places import Place, sweep

from scaling.tasks import TASKS
from scaling.tasks.costs import train_flops
from sweeps import grid
from sweeps.plan import task_time
from sweeps.plan.task_time import line, task_seconds
from sweeps.store import StoredCell
from sweeps.worker import CELL_FUNCTIONS

TEXT = "study: coins\ntask: toy\nsettings: {replicates: 2}\ngrid: {n_experts: [1, 4], samples: [100, 10K]}\n"


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS.own, "toy", toy_task.TASK)


def test_a_planted_line_is_found_and_no_part_of_it_is_negative() -> None:
    flops = np.geomspace(1e6, 1e12, 9)
    assert line(flops, 3.0 + 2e-9 * flops) == pytest.approx((3.0, 2e-9))
    assert line(flops, 2e-9 * flops - 1e-4 * flops.min() * 2e-9)[0] == 0.0
    a, b = line(flops, 5.0 * flops**-0.1)  # larger cells took less
    assert b == 0.0
    assert 5.0 * flops[-1] ** -0.1 < a < 5.0 * flops[0] ** -0.1
    assert line([1e9, 1e9], [2.0, 2.0]) == pytest.approx((0.0, 2e-9))


def test_cells_of_the_study_come_before_those_of_another_and_these_before_an_assumption(place: Place) -> None:
    (place.folder / "grid.yaml").write_text(TEXT)
    cells = grid.load_grid(place.folder / "grid.yaml").cells
    assumed, basis = task_seconds(cells, {}, place.out.parent)
    assert basis.startswith("assumed: ")
    assert assumed[cells[-1]] == task_time.OVERHEAD_S + train_flops(cells[-1]) / task_time.FLOPS_PER_S

    sweep(place.folder / "grid.yaml", place, CELL_FUNCTIONS)
    found, basis = task_seconds(cells, {}, place.out.parent)
    assert basis.startswith(f"as 4 cells of the same task took in {place.out.name}: ")
    assert all(0 < seconds < task_time.OVERHEAD_S for seconds in found.values())  # of what takes milliseconds

    own = StoredCell("0", "ok", "1", train_flops=train_flops(cells[0]), wall_s=70.0, task="toy")
    found, basis = task_seconds(cells, {cells[0]: own}, place.out.parent)
    assert basis.startswith("as 1 cell of the study took")
    assert found[cells[-1]] == pytest.approx(70.0 * train_flops(cells[-1]) / train_flops(cells[0]))


def test_a_study_of_another_task_or_without_rows_says_nothing(place: Place) -> None:
    for name, task in (("other", "toys"), ("empty", "toy")):
        (place.folder / name).mkdir()
        (place.folder / name / "grid.yaml").write_text(re.sub("task: toy", f"task: {task}", TEXT))
    (place.folder / "grid.yaml").write_text(TEXT)
    cells = grid.load_grid(place.folder / "grid.yaml").cells
    assert task_seconds(cells, {}, place.folder)[1].startswith("assumed: ")
