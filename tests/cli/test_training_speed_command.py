"""`scaling training-speed` from outside: the answer first, one JSON document, the law on disk, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_training import TRUTH, table
from typer.testing import CliRunner

import scaling
from analysis.training_speed.speeds import load_training_law
from scaling.cli.main import app


def call(*words: object) -> Any:
    return CliRunner().invoke(app, ["training-speed", *map(str, words)], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    measured = table(0.05)
    rows = measured.frame.assign(
        step_time_ms=1e3 * measured.seconds * measured.column("batch_tokens"), device_kind="NVIDIA H100 80GB HBM3",
        vocab_size=32_000,
    ).drop(columns=["seconds", "rows", "spread", "loops", "n_lookup", "busy_cores"])  # fmt: skip
    path: Path = tmp_path_factory.mktemp("speed") / "runs.csv"
    rows.to_csv(path, index=False)
    return path


def test_one_json_document_and_the_law_in_a_file(runs: Path) -> None:
    law = runs.parent / "deeper" / "law.json"
    result = call(runs, "--bootstrap", 20, "--out", law, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {"d_model", "n_experts", "configuration", "all"} <= {*document["held_out"]}
    assert len(document["worst"]) == 5
    assert len(document["intervals"]) == len(TRUTH)
    read = load_training_law(law)
    # 5 % of noise over 96 rows: the products with dense weights within a fifth of what was planted.
    assert read.coefficients[0] == pytest.approx(TRUTH[0], rel=0.2)
    assert len(read.drawn) == 20


def test_the_answer_comes_first_and_shares_by_expert_count_follow(runs: Path) -> None:
    result = call(runs, "--bootstrap", 0)
    assert result.exit_code == 0, result.output
    first, *rest = result.stdout.splitlines()
    assert "predicted within" in first
    assert [line.split()[0] for line in rest if line.strip()[:2] in {"1 ", "32"}] == ["1", "32"]
    assert "sum of coefficient" in call(runs, "--bootstrap", 0, "--verbose").stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--where", "n_experts > 99"), "no row with a training speed"),
        (("--device", "h1000"), "h1000"),
        (("--device", "a100"), "another device than a100"),
        (("--map", "batch_tokens=nothing"), "nothing"),
    ],
)
def test_wrong_input_is_one_message_and_status_2(runs: Path, words: tuple[str, ...], named: str) -> None:
    result = call(runs, *words)
    assert result.exit_code == 2
    assert named in result.stderr
    assert "Traceback" not in result.output


def test_in_python_it_is_the_same_law(runs: Path, tmp_path: Path) -> None:
    fitted = scaling.training_speed(runs, bootstrap=5)
    scaling.write(fitted, tmp_path / "law.json")
    assert load_training_law(tmp_path / "law.json") == fitted.law
    assert "Training-speed law" in repr(fitted)
    frame = pd.read_csv(runs).rename(columns={"step_time_ms": "t"})
    frame.to_csv(tmp_path / "renamed.csv", index=False)
    again = scaling.training_speed(tmp_path / "renamed.csv", map={"step_time_ms": "t"}, bootstrap=0)
    assert again.law.coefficients == pytest.approx(fitted.law.coefficients)
