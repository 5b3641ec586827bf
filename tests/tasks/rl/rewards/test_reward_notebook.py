"""The notebook of the study of rewards, and the questions of its Makefile, on a study with planted returns."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from notebook import NOTEBOOKS, run_notebook
from typer.testing import CliRunner

from analysis.returns.comparison import read_returns
from scaling.cli.main import app
from scaling.tasks.cell import TaskCell
from scaling.tasks.rl.rewards.library import POTENTIALS, PROGRAMS
from scaling.tasks.rows import result
from scaling.tasks.value_rl import TASK, ValueRL
from sweeps.grid import parse, resolved
from sweeps.store import Store

ROOT = Path(__file__).parents[4]
LEVELS = {"own": 1.0, "potential": 1.4, "adaptive": 1.2, "bonus": 0.9, "program": 1.1}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells of the shipped grid, whose returns are the level of their reward and a little by their seed."""
    out = tmp_path_factory.mktemp("rewards") / "planted"
    grid = parse((ROOT / "sweeps" / "grids" / "reward.yaml").read_text(), out / "grid.yaml")
    store = Store(out)
    for cell in grid.cells:
        assert isinstance(cell, TaskCell)
        settings = cell.settings
        assert isinstance(settings, ValueRL)
        score = 10 * LEVELS[settings.reward] + 0.1 * (cell.seed - 2)
        known = {"episode_return": score, "random_return": 0.0}
        metrics = {metric.name: known.get(metric.name, 1.0) for metric in TASK.metrics}
        curve = [{"step": n, "frames": n * 2048, "train_return": score * n / 5, "td_loss": 1.0} for n in range(1, 6)]
        made = result(cell, metrics, columns={"platform": "cpu"}, curves=curve)
        took = {"executor": "inline", "started_at": "2026-01-01T00:00:00+00:00", "wall_s": 0.5}
        store.write_cell(made.run | took, made.evals, made.curves)
    store.write_grid(resolved(grid))
    return out


@pytest.mark.long
def test_the_notebook_prints_what_was_learnt_from_and_finds_the_levels(study: Path) -> None:
    printed = run_notebook(study, NOTEBOOKS / "reward.py")
    text = "".join(printed)
    assert "100 runs from planted" in text
    assert "the package agrees" in text
    for game in ("breakout", "asterix"):
        for program in (POTENTIALS[game], next(iter(PROGRAMS[game].values()))):
            assert all(line in text for line in program.splitlines())
    for reward, level in LEVELS.items():
        assert len(re.findall(rf"{reward} +interquartile mean {level:.3f}", text)) == 2  # one an arm
    assert "image/png" in printed


def test_the_questions_of_the_study_are_answered_as_planted(study: Path) -> None:
    """As the Makefile asks them: the lines that begin with $(ASK), with its variables filled in."""
    joined = (ROOT / "results" / "reward" / "Makefile").read_text().replace("\\\n", " ")
    variables = dict(re.findall(r"^(\w+) [?:]= ?(.*)$", joined, re.M))
    variables["STUDY"] = str(study)

    def filled(line: str) -> str:
        while match := re.search(r"\$\((\w+)\)", line):
            line = line.replace(match[0], variables[match[1]])
        return line

    asked = [filled(line) for line in joined.splitlines() if line.strip().startswith("$(ASK)")]
    assert len(asked) == 2
    for line in asked:
        said = CliRunner().invoke(app, [*shlex.split(line)[1:], "--bootstrap", "200"])
        assert said.exit_code == 0, said.output
    found = [read_returns(path) for path in sorted((study / "returns").glob("*.json"))]
    verdicts = ["above 0", "below 0", "above 0", "below 0", "above 0"]  # as LEVELS lie to each other
    assert [[pair.verdict for pair in one.contrasts] for one in found] == [verdicts, verdicts]
