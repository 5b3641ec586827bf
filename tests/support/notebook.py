"""Runs the notebook the way a reader does, for the tests that have a study."""

import os
from pathlib import Path

import jupytext
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_fit_and_recommend.py"


def run_notebook(study: Path, source: Path = NOTEBOOK) -> list[str]:
    """Execute every cell in the notebook's folder against a study; what they printed, and the kinds of their results.

    Raises nbclient's CellExecutionError where a cell fails, the notebook's own assertions among them.
    """
    # The kernel is a process of its own: pytest's strictness about warnings would reach the libraries it starts with.
    env = {**os.environ, "SCALING_STUDY": str(study.resolve()), "PYTHONWARNINGS": "default"}
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(source.parent)}}).execute(env=env)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output["output_type"] == "stream"] + [
        kind for output in outputs for kind in output.get("data", {})
    ]
