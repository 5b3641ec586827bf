"""The flagship study: its prediction, written before the check, and the check held against it.

    python -m benchmarks.flagship predict [FOLDER]
    python -m benchmarks.flagship compare [FOLDER]

FOLDER (results/flagship) holds the study, packed or not, and what the command line made of it: `fit.json`, and
`answer-LOAD.json` for each serving load. `predict` writes `prediction.json`, `PREREGISTERED.md` and the grid of the
check, `check.yaml`; it refuses while a cell of the study is missing, and once a run of the check exists. `compare`
reads the check's runs under `check/` and writes `check.json`, `CHECKED.md` and the figure `check.png`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.decision.answer import Answer, read_answer
from analysis.figures.style import save
from analysis.fitting.fit_file import load_fit
from analysis.tables.study import Study
from benchmarks.prediction import Prediction, predict
from benchmarks.prediction_check import checked_decision, checked_runs, summary
from benchmarks.prediction_figure import check_figure
from benchmarks.prediction_pages import checked_page, preregistered_page
from scaling.errors import InputError
from scaling.files import write_atomically, write_json
from scaling.values import digest, plain, read_value
from sweeps.grid import load_grid, resolved
from sweeps.status import opened
from sweeps.store import Store

FOLDER = Path("results/flagship")
FIT, PREDICTION, CHECK_GRID, CHECK = "fit.json", "prediction.json", "check.yaml", "check"


def write_prediction(folder: Path) -> Prediction:
    """Predict, and write the prediction's files. Raises InputError where it would be too early or too late."""
    _require_complete(folder)
    if (folder / CHECK).exists() and not Study(folder / CHECK).runs.empty:
        raise InputError(f"{folder / CHECK} has runs: a prediction made after them is none")
    prediction, check = predict(load_fit(str(folder / FIT)), answers(folder), load_grid(folder / "grid.yaml"))
    write_json(folder / PREDICTION, plain(prediction))
    heading = f"# The check of {check.study.removesuffix('-check')}, as predicted: scaling sweep run {CHECK_GRID}\n"
    write_atomically(folder / CHECK_GRID, (heading + resolved(check)).encode())
    write_atomically(folder / "PREREGISTERED.md", preregistered_page(prediction).encode())
    return prediction


def write_check(folder: Path) -> None:
    """Compare the check with the prediction, and write `check.json` and `CHECKED.md`. Raises InputError."""
    prediction = read_value(Prediction, folder / PREDICTION)
    fit, study, check = load_fit(str(folder / FIT)), Study(folder), Study(folder / CHECK)
    if digest(fit) != prediction.fit_hash:
        raise InputError(f"{folder / FIT} is not the fit that {PREDICTION} rests on")
    runs = checked_runs(prediction, check.runs)
    answered = answers(folder)
    decisions = [
        checked_decision(prediction, load, answer, fit, runs, check.latency) for load, answer in answered.items()
    ]
    done = study.runs[study.runs["status"] == "ok"]
    document = summary(prediction, runs, decisions, len(done), done["trunk_id"].nunique())
    write_json(folder / "check.json", document)
    write_atomically(folder / "CHECKED.md", checked_page(prediction, runs, decisions, document).encode())
    save(check_figure(runs, decisions, answered), folder / "check.png")


def answers(folder: Path) -> dict[str, Answer]:
    """The answers of a folder by load, in order of volume."""
    found = {path.stem.removeprefix("answer-"): read_answer(path) for path in sorted(folder.glob("answer-*.json"))}
    return dict(sorted(found.items(), key=lambda item: item[1].question.served))


def _require_complete(folder: Path) -> None:
    """Raise InputError while a cell of the study is missing or failed."""
    _, run_ids = opened(folder)
    cells = Store(folder).survey().cells
    left = [run for run in run_ids if run not in cells or not cells[run].ok]
    if left:
        raise InputError(f"{folder}: {len(left)} of {len(run_ids)} cells are missing or failed: finish the study first")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flagship", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("predict", "compare"))
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    asked = parser.parse_args(arguments)
    try:
        write_prediction(asked.folder) if asked.what == "predict" else write_check(asked.folder)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print((asked.folder / ("PREREGISTERED.md" if asked.what == "predict" else "CHECKED.md")).read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
