"""The notebook of returns runs from top to bottom on a planted study; its assertions hold it against the package."""

from pathlib import Path

import pytest
from notebook import NOTEBOOKS, run_notebook
from planted_returns import write_value_rl


@pytest.mark.long
def test_the_notebook_agrees_with_the_package(tmp_path: Path) -> None:
    study = write_value_rl(tmp_path / "planted", seeds=6)
    printed = run_notebook(study, NOTEBOOKS / "returns.py")
    assert any("48 runs from planted" in text for text in printed)
    assert sum("the package agrees" in text for text in printed) == 2
    assert any("experts: soft 4 - soft-one-wide 4" in text for text in printed)
    assert "image/png" in printed
