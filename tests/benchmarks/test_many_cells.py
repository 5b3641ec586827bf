"""The benchmark of many cells without its clocks: rows as real ones, and the arithmetic of its growth."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import many_cells
from benchmarks.many_cells import Cost
from scaling.schema import to_arrow
from sweeps.grid import load_grid


def test_planted_cells_have_rows_as_many_and_as_wide_as_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_cells.data, "prepare", lambda config: SimpleNamespace(hash="text"))
    grid, _ = many_cells.made(tmp_path, 150)
    cells = load_grid(grid).cells
    assert len(cells) == 200
    (found,) = many_cells.train([cells[0]], tmp_path, None)
    tables: dict[Any, list[dict[str, Any]]] = {"runs": [found.run], "evals": found.evals, "curves": found.curves}
    tables["latency"] = many_cells.measure(cells[0])
    assert [len(to_arrow(name, rows)) for name, rows in tables.items()] == [1, 128, 41, 12]
    assert 1.69 < found.run["loss_val"] < 5.5


def test_growth_is_the_cost_of_a_further_cell_over_that_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start of 2 s, then 1 ms a cell up to 1,000 and 3 ms beyond."""
    seconds = {200: 2.2, 1000: 3.0, 10_000: 30.0}
    monkeypatch.setattr(
        many_cells, "costs", lambda folder, cells, steps: dict.fromkeys(steps, Cost(seconds[cells], 1.0, 100.0))
    )
    monkeypatch.setattr(many_cells, "load_grid", lambda path: SimpleNamespace(cells=range(int(path.parent.name))))
    many_cells.main(["--json", "--steps", "survey,read"])
    document = json.loads(capsys.readouterr().out)
    assert document["growth"] == {"survey": 3.0, "read": 3.0}
    assert document["steps"]["read"] == {"cpu_s": 30.0, "wall_s": 1.0, "memory_mb": 100.0}
    assert document["cells"] == 10_000


@pytest.mark.parametrize("arguments", [["--cells", "1000"], ["--steps", "survey,nonsense"]])
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        many_cells.main(arguments)
    assert ended.value.code == 2
