"""`scaling validate` from outside: the verdict first, one JSON document, the figure, exit statuses."""

from __future__ import annotations

import json
import re

import pytest
from synthetic import cells, write_study
from typer.testing import CliRunner

from analysis.validation import judgement
from scaling.cli.main import app

PARTS = {"roll_out", "experts_left_out", "comparison", "sensitivity", "residuals"}


def call(*words):
    return CliRunner().invoke(app, ["validate", *map(str, words)], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate") / "study"
    return write_study(folder, configs=cells(experts=(1, 4, 16), tokens=(500_000, 1_000_000, 4_000_000)))


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    words = ("--law", "joint-moe", "--laws", "hoffmann", "--bootstrap", 8, "--budget", "1e14")
    return folder, call(
        study, *words, "--json", "--out", folder / "deeper" / "v.json", "--figure", folder / "deeper" / "v.png"
    )


def test_the_whole_account_is_one_json_document(done):
    folder, result = done
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document) == {"law", "n_runs", "n_trunks", "verdict", "outcomes", "warnings"} | PARTS
    assert len(document["verdict"]) == len(PARTS)
    assert json.loads((folder / "deeper" / "v.json").read_text()) == document
    assert (folder / "deeper" / "v.png").read_bytes().startswith(b"\x89PNG")
    assert document["comparison"]["contenders"][0]["law"] == "joint-moe"
    assert document["comparison"]["train_flops"] == document["sensitivity"]["train_flops"] == 1e14
    assert document["roll_out"]["overall"]["n"] > 0
    assert any("E_max" in line and "warning: " in line for line in result.stderr.splitlines())


def test_a_person_reads_the_verdict_first(study):
    result = call(study, "--law", "hoffmann", "--laws", "hoffmann", "--bootstrap", 8, "--where", "n_experts == 4")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    error, inside, judged = re.fullmatch(
        r"hoffmann predicts larger runs within ([.\d]+) % \(median\); (\d+) of (\d+) inside 95 %", lines[0]
    ).groups()
    assert 0 < float(error) < 100
    assert int(inside) <= int(judged)
    notes = [line for line in lines if line.startswith("- ")]
    assert "law hoffmann" in notes[0]
    assert [note.split()[1] for note in notes[1:4]] == ["laws:", "sensitivity:", "residuals:"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--law", "nothing"), "no law is called 'nothing'"),
        (("--law", "joint-moe", "--laws", "hoffmann,nothing"), "no law is called 'nothing'"),
        (("--law", "joint-moe", "--figure", "v.txt"), "ends in .png, .svg, .pdf"),
        (("--law", "joint-moe", "--where", "n_experts == 3"), "no usable run is left"),
    ],
)
def test_wrong_input_is_one_message(study, words, message):
    result = call(study, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_runs_that_determine_nothing_are_failed_work(study):
    result = call(study, "--law", "hoffmann", "--laws", "hoffmann", "--where", "d_model == 64")
    assert result.exit_code == 1
    assert "every run has the same n_active" in result.stderr


def test_without_a_law_the_mixture_is_judged_beside_its_members(study, monkeypatch):
    for name, value in (("SEEDS", (0,)), ("RESAMPLES", 8), ("FOR_ERRORS", 8)):
        monkeypatch.setattr(judgement, name, value)
    result = call(study, "--laws", "clark", "--bootstrap", 8, "--where", "n_experts == 4", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["law"] == document["roll_out"]["law"] == "mixture"
    assert document["roll_out"]["overall"]["n_inside"] is not None
    assert {one["law"] for one in document["comparison"]["contenders"]} >= {"mixture", "hoffmann", "coupled"}
    assert set(document["sensitivity"]["quantities"]) == {"optimal N", "loss at the optimum"}
    weights = document["members"]
    assert sum(weights.values()) == pytest.approx(1.0)
    result = call(study, "--pin", "E=1.7")
    assert result.exit_code == 2
    assert "--pin" in result.stderr
