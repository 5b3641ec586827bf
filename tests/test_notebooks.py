"""The notebooks run from top to bottom; their own assertions hold them against the package."""

from pathlib import Path

import pytest
from notebook import NOTEBOOK, run_notebook
from synthetic import cells, write_study
from synthetic_methods import write_methods

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
# Cells missing here and there: what is done by hand must cope too.
STUDIES = {
    "01_fit_and_recommend": lambda out: write_study(
        out, configs=cells(widths=(32, 48, 64), tokens=(500_000, 1_000_000, 2_000_000))
    ),
    "02_methods": lambda out: write_methods(out, failed={("hash", 2): "diverged", ("sigmoid", 0): "oom"}),
    # Five sizes: enough dense runs that the notebook takes them and needs no planted grid of its own.
    "03_trust_a_fit": lambda out: write_study(out, configs=cells(experts=(1, 4), widths=(32, 48, 64, 96, 128))),
    "04_price_serving": lambda out: write_study(out, configs=cells(widths=(32, 48, 64))),
}


def test_every_notebook_has_a_study():
    assert NOTEBOOK in NOTEBOOKS
    assert [path.stem for path in NOTEBOOKS] == list(STUDIES)


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_a_study_with_planted_truth(source, tmp_path):
    study = STUDIES[source.stem](tmp_path / "planted")
    said = run_notebook(study, source)
    assert any("the package agrees" in text for text in said)
    assert any(f"runs from {study.name}" in text for text in said), "it read this study and no other"
    assert said.count("image/png") >= 2
