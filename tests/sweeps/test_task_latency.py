"""The latency of another task: each shape is measured once, by the function that the task names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place, sweep

from analysis.tables.study import Study
from scaling.errors import WorkError
from scaling.tasks import TASKS
from sweeps.status import opened, study_status
from sweeps.store import Store
from sweeps.worker import CELL_FUNCTIONS

TEXT = (
    "study: coins\ntask: timed\nsettings: {replicates: 2}\ngrid: {n_experts: [1, 4], samples: [10, 20], seed: [0, 1]}\n"
)


@pytest.fixture(autouse=True)
def _timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Place) -> Iterator[None]:
    """The task as an installed distribution, which the process that measures finds too."""
    info = tmp_path / "site" / "timed-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scaling.tasks]\ntimed = toy_timed:TASK\n")
    monkeypatch.syspath_prepend(str(info.parent))
    (place.folder / "grid.yaml").write_text(TEXT)
    vars(TASKS).pop("_entries", None)  # listed anew
    yield
    vars(TASKS).pop("_entries", None)
    TASKS._loaded.pop("timed", None)


def test_every_shape_is_measured_once_for_all_its_cells(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = place.folder / "grid.yaml"
    monkeypatch.setenv("TOY_LOG", str(place.log))
    summary = sweep(grid, place, CELL_FUNCTIONS)
    assert (summary.ok, summary.latency_owed) == (8, 0)
    study = Study(place.out)
    rows = study.latency.merge(study.runs[["run_id", "n_experts"]], on="run_id")
    assert len(rows) == 8
    assert (rows["time_ms"] == rows["n_experts_y" if "n_experts_y" in rows else "n_experts"]).all()
    assert rows["shape_id"].nunique() == 2
    shapes = {*rows["shape_id"]}
    assert sorted(line for line in place.log.read_text().split() if line in shapes) == sorted(shapes)

    sweep(grid, place, CELL_FUNCTIONS)  # nothing is owed
    grid.write_text(TEXT.replace("[10, 20]", "[10, 20, 30]"))
    assert sweep(grid, place, CELL_FUNCTIONS).latency_owed == 0  # cells of a known shape take its rows
    assert sum(line in shapes for line in place.log.read_text().split()) == 2
    assert len(Study(place.out).latency) == 12


def test_a_shape_that_fails_is_owed_and_named(place: Place) -> None:
    (place.folder / "grid.yaml").write_text(TEXT.replace("replicates: 2", "replicates: 2, fail_at: 4"))
    with pytest.raises(WorkError, match=r"latency of 1 of 2 shapes could not be measured.*no such number of experts"):
        sweep(place.folder / "grid.yaml", place, CELL_FUNCTIONS)
    read, run_ids = opened(place.out)
    summary = study_status(Store(place.out), read, run_ids)
    assert (summary.ok, summary.latency_owed) == (8, 4)
