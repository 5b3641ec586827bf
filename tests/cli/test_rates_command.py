"""`scaling rates` from outside: the answer first, one JSON document, a file that the report reads, exit statuses."""

from __future__ import annotations

import json

import pytest
from planted_rates import LEVELS, replicates, write_rates
from typer.testing import CliRunner

from analysis.rates.rates import read_rates
from scaling.cli.main import app

CELLS = [{"order": order, "samples": n} for order in (0, 1) for n in LEVELS]
ASKED = ("--metric", "risk", "--axis", "samples", "--theory", "-(order + 1) / 2", "--bootstrap", "200")


def call(*words):
    return CliRunner().invoke(app, ["rates", *map(str, words)], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    frame = replicates(CELLS, lambda cell: cell["samples"] ** (-(cell["order"] + 1) / 2), count=12)
    return write_rates(tmp_path_factory.mktemp("rates") / "planted", frame)


def test_the_answer_is_first_and_the_table_has_a_row_an_arm(study):
    done = call(study, *ASKED)
    assert done.exit_code == 0, done.stderr
    answer, *rest = done.stdout.splitlines()
    assert answer.startswith("Slopes of risk in samples: -")
    assert "2 arms" in answer
    rows = [line.split() for line in rest if line[:1] in ("0", "1")]
    assert [row[0] for row in rows] == ["0", "1"]
    assert [row[-2] for row in rows] == ["−0.500", "−1.000"]  # theory
    assert any("geometric mean over replicates" in line for line in rest)
    assert len(done.stdout.splitlines()) <= 30
    verbose = call(study, *ASKED, "--verbose").stdout
    for title in ("Local slopes", "Slopes over every window", "risk by samples"):
        assert title in verbose


def test_json_is_one_document_and_the_file_of_out(study, tmp_path):
    done = call(study, *ASKED, "--json", "--out", tmp_path / "rates" / "risk.json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [rate["arm"] for rate in document["rates"]] == [{"order": 0}, {"order": 1}]
    assert document["question"]["by"] == ["order"]
    assert read_rates(tmp_path / "rates" / "risk.json").to_json() == document


def test_columns_of_arms_are_named_one_by_one(study):
    named = call(study, *ASKED, "--by", "order", "--json").stdout
    assert json.loads(named) == json.loads(call(study, *ASKED, "--json").stdout)


def test_a_figure_is_drawn(study, tmp_path):
    done = call(study, *ASKED, "--figure", tmp_path / "rates.png")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--metric", "kl", "--axis", "samples"), "no metric 'kl'; it has risk"),
        (("--metric", "risk", "--axis", "frames"), "no column 'frames'"),
        (("--metric", "risk", "--axis", "samples", "--where", "samples == 100"), "a slope needs 2 levels"),
        (("--metric", "risk", "--axis", "samples", "--window", "samples != 1000"), "--window 'samples != 1000' holds"),
    ],
)
def test_wrong_input_is_one_message(study, words, told):
    done = call(study, *words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
