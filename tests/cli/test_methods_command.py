"""`scaling methods` from outside: the registry, the ranking, one JSON document, exit statuses."""

import json
import os
import re
import subprocess
import sys

import pytest
from synthetic_methods import EFFECTS, LEAKY, METHODS, write_methods
from typer.testing import CliRunner

from scaling.cli.main import app


def call(*words):
    return CliRunner().invoke(app, ["methods", *map(str, words)], env={"COLUMNS": "110"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_methods(
        tmp_path_factory.mktemp("methods") / "routers", METHODS | {"leaky": LEAKY}, EFFECTS | {"leaky": -0.5},
        failed={("hash", 2): "diverged"},
    )  # fmt: skip


def test_the_registry_is_listed_in_full():
    registry = json.loads(call("--json").stdout)
    assert {"switch", "topk", "prototype", "sigmoid", "hash", "random", "expert-choice"} <= set(registry["routers"])
    assert {"mlp", "shared", "cp", "ring", "lora"} <= set(registry["experts"])
    assert registry["routers"]["switch"]["arxiv"] == "2101.03961"
    # These choose or mix among all tokens of a batch, later ones too.
    not_causal = [name for name, router in registry["routers"].items() if not router["causal"]]
    assert not_causal == ["expert-choice", "base", "soft"]
    assert registry["routers"]["hash"]["reads"] == []  # a table of tokens has nothing to tune
    assert "bias_rate" in registry["routers"]["topk"]["reads"]
    lines = call().stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:] if line and line[0] not in " -"}
    assert set(rows) - {"router", "experts"} == {*registry["routers"], *registry["experts"]}
    assert rows["expert-choice"] == ["2202.09368", "leak_study"]
    assert any(line.startswith("- not causal") and line.endswith(": expert-choice, base, soft") for line in lines)


def test_the_ranking_is_one_json_document(study):
    done = call(study, "--json")
    assert done.exit_code == 0, done.stderr
    (comparison,) = json.loads(done.stdout)["comparisons"]
    assert {row["method"] for row in comparison["methods"]} == set(METHODS)
    assert comparison["reference"] == "dense"
    assert set(comparison["leaders"]) == {"topk", "topk (bias_rate 0.001)", "topk + shared"}
    assert [row["method"] for row in comparison["not_comparable"]] == ["expert-choice"]
    assert [(row["method"], row["cells"]) for row in comparison["failed"]] == [("hash", 1)]
    for row in comparison["methods"]:
        assert row["low"] <= row["difference"] <= row["high"]
    assert json.loads(call(study, "--json").stdout) == json.loads(done.stdout)


def test_the_table_says_who_leads_and_what_is_not_ranked(study):
    shown = call(study).stdout
    assert re.match(rf"Not decided at .*: 3 of {len(METHODS)} methods may be best\n", shown)
    assert "- not comparable: expert-choice" in shown
    assert "- failed: 1 of hash (diverged)" in shown
    rows = [line for line in shown.splitlines() if line.startswith(tuple(METHODS)) and " to " in line]
    assert len(rows) == len(METHODS)
    assert "…" not in shown


def test_a_folder_that_is_no_study_is_one_message(tmp_path):
    done = call(tmp_path)
    assert done.exit_code == 2
    assert "no runs/*.parquet" in done.stderr


def test_help_says_what_it_does_and_the_registry_needs_neither_pandas_nor_matplotlib():
    code = (
        "import sys; sys.argv = ['scaling', 'methods', '--json']\n"
        "from scaling.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pandas', 'scipy', 'matplotlib', 'jax', 'rich.table') if m in sys.modules], "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stderr.strip() == "[]"
    assert "[STUDY]" in call("--help").stdout
