"""Notebooks executed as a reader executes them: in their own folder, against a study."""

import os
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "01_fit_and_recommend.py"


def executed(source: Path, study: Path) -> Any:
    """The notebook of a percent-format file with every cell executed.

    Raises nbclient's CellExecutionError where a cell fails, the notebook's own assertions among them.
    """
    # The kernel is a process of its own: pytest's strictness about warnings would reach the libraries it starts with.
    env = {**os.environ, "SCALING_STUDY": str(study.resolve()), "PYTHONWARNINGS": "default"}
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(source.parent)}}).execute(env=env)
    return notebook


def run_notebook(study: Path, source: Path = NOTEBOOK) -> list[str]:
    """What the cells of a notebook printed, and the kinds of their results."""
    outputs = [output for cell in executed(source, study).cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output["output_type"] == "stream"] + [
        kind for output in outputs for kind in output.get("data", {})
    ]
