"""The notebooks run from top to bottom; their own assertions hold them against the package. What is committed of them
are pairs: the text that is executed here, and the same cells with outputs."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from notebook import NOTEBOOKS, run_notebook
from synthetic import cells, write_study
from synthetic_methods import write_methods

SOURCES = sorted(NOTEBOOKS.glob("0*.py"))
# Cells missing here and there: what is done by hand must cope too.
STUDIES = {
    "01_fit_and_recommend": lambda out: write_study(
        out, configs=cells(widths=(32, 48, 64), tokens=(500_000, 1_000_000, 2_000_000))
    ),
    "02_methods": lambda out: write_methods(out, failed={("hash", 2): "diverged", ("sigmoid", 0): "oom"}),
    # Five sizes: enough dense runs that the notebook takes them and needs no planted grid of its own.
    "03_trust_a_fit": lambda out: write_study(out, configs=cells(experts=(1, 4), widths=(32, 48, 64, 96, 128))),
    "04_price_serving": lambda out: write_study(out, configs=cells(widths=(32, 48, 64))),
    "05_your_own_csv": lambda out: out,  # it makes its table itself
}


def test_every_notebook_has_a_study():
    assert [path.stem for path in SOURCES] == list(STUDIES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_runs_on_a_study_with_planted_truth(source, tmp_path):
    study = STUDIES[source.stem](tmp_path / "planted")
    printed = run_notebook(study, source)
    assert any("the package agrees" in text for text in printed)
    if source.stem != "05_your_own_csv":
        assert any(f"runs from {study.name}" in text for text in printed), "it read this study and no other"
    assert "image/png" in printed


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_is_its_text_with_outputs(source: Path):
    """The pair has the same cells, was executed whole and in order, shows a figure and names no path of a computer."""
    text, notebook = jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert source.with_suffix(".ipynb").stat().st_size < 400_000
    assert not any(place in str(outputs) for place in (str(NOTEBOOKS.parent), str(Path.home()), "/tmp/"))
