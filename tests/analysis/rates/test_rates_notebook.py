"""The notebook of rates runs from top to bottom on a planted study; its own assertions hold it against the package."""

from notebook import NOTEBOOKS, run_notebook
from planted_rates import write_mixture_regression


def test_the_notebook_agrees_with_the_package(tmp_path):
    study = write_mixture_regression(tmp_path / "planted", count=20)
    printed = run_notebook(study, NOTEBOOKS / "rates.py")
    assert any("runs from planted" in text for text in printed)
    assert sum("the package agrees" in text for text in printed) == 2
    assert "image/png" in printed
