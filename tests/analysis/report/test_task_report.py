"""The report of a study of another task says what it is, what it measured and what was run."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_task
from toy_study import GRID, write_study

from analysis.report.build import build_report
from analysis.report.contents import content, drawn, made_at
from analysis.report.task_study import TaskStudy, load_task_study
from scaling.errors import InputError
from scaling.tasks import TASKS


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS.own, "toy", toy_task.TASK)


@pytest.fixture
def study(tmp_path: Path) -> TaskStudy:
    return load_task_study(write_study(tmp_path / "coins"))


def texts(block: object) -> list[str]:
    """Every text in a document."""
    if isinstance(block, str):
        return [block]
    parts = block.values() if isinstance(block, dict) else block if isinstance(block, list) else []
    return [text for part in parts for text in texts(part)]


def test_it_says_the_task_its_metrics_and_its_cells(study: TaskStudy) -> None:
    page = content(study)
    assert page["title"] == "The mean of a sample"
    assert page["headline"] == "24 cells measured; no rates were asked for yet"
    assert not page["decided"]
    said = " ".join(texts(page))
    assert "squared_error in m^2, where lower is better" in said
    measured = page["sections"][0]["blocks"][1]
    assert measured["columns"] == ["metric", "unit", "better", "what it is"]
    assert measured["rows"][0] == ["squared_error", "m^2", "lower", "squared error of the mean"]
    assert ["score", "–", "higher"] in [row[:3] for row in measured["rows"]]
    assert [section["title"] for section in page["sections"]] == [
        "What was measured", "What was run", "How to reproduce this",
    ]  # fmt: skip
    assert (page["tiles"][0]["label"], page["tiles"][0]["value"]) == ("Cells", "24")
    assert made_at(study).year == 2026
    assert drawn(study) == []


def test_the_table_has_a_mean_and_an_error_for_every_configuration_and_budget(study: TaskStudy) -> None:
    table, _ = content(study)["sections"][0]["blocks"]
    assert table["columns"] == ["n_experts", "samples = 100", "samples = 300", "samples = 1K", "samples = 3K"]
    assert [row[0] for row in table["rows"]] == ["1", "4", "16"]
    cells = study.runs.query("n_experts == 4 and samples == 100")
    mean, error = cells["squared_error"].mean(), (cells["squared_error_se"] ** 2).sum() ** 0.5 / 2
    shown, _, spread = table["rows"][1][1].partition(" ± ")
    assert float(shown) == pytest.approx(mean, rel=5e-3)  # three digits
    assert float(spread) == pytest.approx(error, rel=0.5)  # one digit


def test_settings_in_which_cells_differ_are_the_rows(tmp_path: Path) -> None:
    write_study(tmp_path / "coins", GRID.replace("seed: [0, 1]", "spread: [1, 2], seed: [0]"))
    loaded = load_task_study(tmp_path / "coins")
    assert loaded.varied == ("n_experts", "spread")
    table, _ = content(loaded)["sections"][0]["blocks"]
    assert len(table["rows"]) == 6


@pytest.mark.long
def test_it_becomes_a_pdf(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "coins", GRID.replace("[0, 1]", "[0]"))
    written = build_report(folder, tmp_path / "report.pdf")
    assert written.path.read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match="`answer` and `fit` are of language models, and its task is toy"):
        build_report(folder, tmp_path / "report.pdf", fit="fit.json")
    with pytest.raises(InputError, match="no figure yet"):
        build_report(folder, tmp_path / "report.pdf", tmp_path / "figure.png")


def test_a_task_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_study(tmp_path / "coins", GRID.replace("[0, 1]", "[0]"))
    monkeypatch.delitem(TASKS.own, "toy")
    with pytest.raises(InputError, match="task toy is not installed"):
        load_task_study(folder)
