"""`scaling returns` from outside: the answer first, one JSON document, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import scaling
from scaling.cli.main import app


def call(*words: object):
    return CliRunner().invoke(app, ["returns", *map(str, words)], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two games; `soft` scores a fifth more than `dense`, whose runs differ by a tenth at most."""
    rows = [
        {
            "arm": arm, "n_experts": experts, "game": game, "seed": seed, "random_return": 0.0,
            "episode_return": scale * more * (1 + 0.02 * (seed - 2)),
        }
        for game, scale in (("asterix", 20.0), ("breakout", 5.0))
        for arm, experts, more in (("dense", 1, 1.0), ("soft", 4, 1.2))
        for seed in range(5)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("returns") / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_the_answer_comes_first_then_the_arms(table: Path) -> None:
    said = call(table, "--baseline", "dense 1", "--bootstrap", 500)
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    assert lines[0] == "episode_return in 2 games: better than dense 1: soft 4; worse: no arm"
    assert any("soft 4" in line and "1.2" in line for line in lines)
    assert "5 runs in a game" in said.stdout


def test_the_document_is_that_of_the_function(table: Path) -> None:
    said = call(table, "--baseline", "dense 1", "--bootstrap", 500, "--json")
    found = scaling.returns(table, baseline="dense 1", bootstrap=500)
    assert json.loads(said.stdout) == json.loads(json.dumps(found.to_json()))
    assert found["soft 4"].difference.estimate == pytest.approx(0.2, abs=1e-9)


def test_an_unknown_arm_is_wrong_input(table: Path) -> None:
    said = call(table, "--baseline", "wide 4")
    assert said.exit_code == 2
    assert "no arm 'wide 4'; arms are dense 1, soft 4" in said.stderr
