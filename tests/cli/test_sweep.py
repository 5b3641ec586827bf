"""`scaling sweep` from outside: exit status, what goes to standard output and what to standard error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from scaling.cli.main import app

GRID = """study: micro
data: {{corpus: files, paths: ["{documents}"], heldout_docs: 100, eval_windows: 2}}
grid: {{n_experts: [1, 4], d_model: 16, tokens: 4K, seed: 0}}
model: {{n_layers: 1, d_head: 8}}
train: {{batch_tokens: 256, seq_len: 16, warmup_tokens: 512}}
bench: {{batch: [1], context: [8], repeats: 5}}
"""


@pytest.fixture(scope="module")
def folder(documents: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID.format(documents=documents))
    return folder


def call(*arguments: str | Path) -> Any:
    before = dict(os.environ)  # a sweep in this process pins its threads there
    try:
        return CliRunner().invoke(app, ["sweep", *map(str, arguments)])
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_plan_run_status_and_run_again_on_real_micro_models(folder: Path) -> None:
    grid, out = folder / "grid.yaml", folder / "out"
    plan = json.loads(call("plan", grid, "--out", out, "--json").stdout)
    assert [cell["status"] for cell in plan["cells"]] == ["missing", "missing"]
    assert plan["totals"]["tokens"] == 2 * 16 * 256  # 4,000 tokens are 15.6, so 16 batches

    ran = call("run", grid, "--out", out, "--executor", "inline", "--json")
    assert ran.exit_code == 0, ran.stderr
    summary = json.loads(ran.stdout)
    assert (summary["cells"], summary["ok"], summary["failed"], summary["latency_owed"]) == (2, 2, {}, 0)
    assert "[2/2]" in ran.stderr
    runs = [row for path in (out / "runs").glob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    assert sorted(row["n_experts"] for row in runs) == [1, 4]
    assert all(2 < row["loss_val"] < 7 for row in runs)  # near ln 257 = 5.5 after 16 steps
    assert len(list((out / "latency").glob("*.parquet"))) == 2

    said = call("status", out)
    assert said.exit_code == 0
    assert "2 of 2 cells ok" in said.stdout
    assert json.loads(call("status", out, "--json").stdout) | {"trained_now": 2} == summary

    again = json.loads(call("run", grid, "--out", out, "--executor", "inline", "--json").stdout)
    assert again == summary | {"trained_now": 0}
    # The study's own grid.yaml is a grid: it plans, and runs to nothing.
    resolved = call("run", out / "grid.yaml", "--out", out, "--executor", "inline", "--json")
    assert json.loads(resolved.stdout)["trained_now"] == 0
    known = json.loads(call("plan", grid, "--out", out, "--json").stdout)
    assert [cell["status"] for cell in known["cells"]] == ["ok", "ok"]
    assert known["speed"]["basis"].startswith("measured on 2 cells")


def test_a_plan_reads_as_a_table_with_totals_lint_and_defaults(folder: Path) -> None:
    said = call("plan", folder / "grid.yaml", "--verbose").stdout
    for part in ("E=4 d=16 D=4000", "2 cells, 2 to train", "warning: one width and depth", "defaults, train: lr="):
        assert part in said


def test_named_grids_are_listed() -> None:
    assert {"quickstart", "smoke"} <= {grid["name"] for grid in json.loads(call("grids", "--json").stdout)}
    assert "quickstart" in call("grids").stdout
    assert call("plan", "smoke").exit_code == 0


@pytest.mark.parametrize("command", ["run", "plan"])
def test_wrong_input_is_one_message_and_status_2(command: str, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("study: a\nmodel: {routr: switch}\ngrid: {tokens: 1M}\n")
    ended = call(command, tmp_path / "g.yaml", "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "g.yaml:2:9: model.routr" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()  # nothing started
    assert call(command, "no-such-grid").exit_code == 2


def test_status_of_what_is_no_study_is_wrong_input(tmp_path: Path) -> None:
    ended = call("status", tmp_path)
    assert ended.exit_code == 2
    assert "not a study folder" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--executor", "slurm"],
        ["--max-concurrent", "0"],
        ["--max-hours", "-1"],
        ["--executor", "inline", "--address", "x"],
    ],
)
def test_wrong_options_are_status_2(folder: Path, arguments: list[str]) -> None:
    ended = call("run", folder / "grid.yaml", *arguments)
    assert ended.exit_code == 2
    assert ended.stderr
    assert "Traceback" not in ended.stderr
