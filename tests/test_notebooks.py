"""The notebooks run from top to bottom; their own assertions hold them against the package."""

import os
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from synthetic import cells, write_study

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
QUICKSTART = ROOT / "results" / "quickstart"


def execute(source: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a notebook in its own folder against a study; returns what its cells printed."""
    monkeypatch.setenv("SCALING_STUDY", str(study))
    # The kernel is a process of its own: pytest's strictness about warnings would reach the libraries it starts with.
    monkeypatch.setitem(os.environ, "PYTHONWARNINGS", "default")
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(source.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output["output_type"] == "stream"] + [
        kind for output in outputs for kind in output.get("data", {})
    ]


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_a_study_with_planted_truth(source, tmp_path, monkeypatch):
    study = write_study(
        tmp_path / "planted", configs=cells(widths=(32, 48, 64), tokens=(500_000, 1_000_000, 2_000_000))
    )
    said = execute(source, study, monkeypatch)
    assert any("the package agrees" in text for text in said)
    assert said.count("image/png") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_the_quickstart(source, monkeypatch):
    if not (QUICKSTART / "runs").is_dir():
        pytest.skip("results/quickstart is not there: run `make quickstart` first")
    assert any("the package agrees" in text for text in execute(source, QUICKSTART, monkeypatch))
