"""The notebooks run from top to bottom; their own assertions hold them against the package."""

from pathlib import Path

import pytest
from notebook import NOTEBOOK, run_notebook
from synthetic import cells, write_study

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


def test_the_notebook_is_among_them():
    assert NOTEBOOK in NOTEBOOKS


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_a_study_with_planted_truth(source, tmp_path):
    study = write_study(
        tmp_path / "planted", configs=cells(widths=(32, 48, 64), tokens=(500_000, 1_000_000, 2_000_000))
    )
    said = run_notebook(study, source)
    assert any("the package agrees" in text for text in said)
    assert any(f"runs from {study.name}" in text for text in said), "it read this study and no other"
    assert said.count("image/png") >= 2
