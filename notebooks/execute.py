"""Write notebooks with their outputs: `python notebooks/execute.py [STUDY [NAME]]`, by default results/quickstart.

Each `0*.py` (jupytext's percent format, the form that is edited and reviewed) is executed and written beside it as
`.ipynb`. The comparison of methods reads results/routers, which is part of the repository. With NAME, `NAME.py` alone
is executed, which is about that study, and written to its folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def write_with_outputs(source: Path, study: Path, folder: Path = HERE) -> Path:
    """Execute a notebook against a study and write it as .ipynb into a folder. Raises CellExecutionError."""
    notebook = jupytext.read(source)
    env = {**os.environ, "SCALING_STUDY": str(study.resolve())}
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(HERE)}})
    client.execute(env=env)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"  # the same from one execution to the next
    written = folder / f"{source.stem}.ipynb"
    nbformat.write(notebook, written)
    return written


if __name__ == "__main__":
    root = HERE.parent
    asked = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "results" / "quickstart"
    if len(sys.argv) > 2:
        print(write_with_outputs(HERE / f"{sys.argv[2]}.py", asked, asked))
    else:
        for path in sorted(HERE.glob("0*.py")):
            print(write_with_outputs(path, root / "results" / "routers" if path.stem.startswith("02") else asked))
