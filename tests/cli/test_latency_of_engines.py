"""`scaling latency` on end-to-end tables: a speed on disk that prices serving, and what is said of rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from engine_rows import engine_table, planted_rows
from typer.testing import CliRunner

from analysis.latency.speed_file import load_speed
from scaling.cli.main import app
from scaling.serving.engine_speed import TERMS
from scaling.serving.published_speeds import published_speed

MODELS = ("mixtral-8x7b", "qwen3-32b")


def call(*words):
    return CliRunner().invoke(app, ["latency", *map(str, words)], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "rows.csv"
    table = engine_table(MODELS)
    table["silicon_tpot_ms"] = 1.4e3 * planted_rows(MODELS, scatter=0.05).tpot_s
    table.to_csv(path, index=False)
    return path


def test_a_speed_is_written_that_is_nearer_to_the_rows_than_the_published_one(rows):
    speed, picture = rows.parent / "speed.json", rows.parent / "speed.svg"
    result = call(rows, "--out", speed, "--figure", picture, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["in_sample"]["median"] < 0.7 * document["published"]["median"]
    assert [error["group"] for error in document["models_left_out"]] == [f"org/{name}" for name in MODELS]
    assert len(document["worst"]) == 5
    read = load_speed(speed)
    assert read.coefficients == tuple(document["coefficients"])
    assert read.scatter >= published_speed("published:vllm-h100").scatter
    assert len(read.without[0]) == len(TERMS)
    assert b"<svg" in picture.read_bytes()
    assert "published:vllm-h100" in read.source


def test_other_names_of_columns_and_a_condition(rows, tmp_path):
    renamed = engine_table(MODELS).assign(silicon_tpot_ms=1e3 * planted_rows(MODELS).tpot_s)
    renamed = renamed.rename(columns={"silicon_tpot_ms": "per_token", "system": "gpu"})
    renamed.to_csv(tmp_path / "mine.csv", index=False)
    result = call(tmp_path / "mine.csv", "--map", "tpot_ms=per_token", "--where", "batch_size < 64", "--device", "h200",
                  "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["in_sample"]["rows"] == 2 * 3 * 3 * 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"silicon_tpot_ms": "x"}, ("row 1", "silicon_tpot_ms")),
        ({"model_path": "org/unheard-of"}, ("row 1", "unheard-of", "mixtral-8x7b")),
        ({"system": "abacus"}, ("no end-to-end row", "a device that is not in the table")),
    ],
)
def test_what_cannot_be_used_is_refused_by_row(tmp_path, change, named):
    engine_table(MODELS[:1]).astype(object).head(3).assign(**change).to_csv(tmp_path / "rows.csv", index=False)
    result = call(tmp_path / "rows.csv")
    assert result.exit_code == 2
    in_folder = call(tmp_path / "rows.csv", "--configs", tmp_path)
    assert in_folder.exit_code == 2
    assert "system" in change or ".json" in in_folder.output
    for words in named:
        assert words in " ".join(result.output.split())


def test_people_read_the_errors_and_the_coefficients(rows):
    result = call(rows, "--verbose", "--out", rows.parent / "own.json")
    assert result.exit_code == 0, result.output
    for words in ("predicted within", "published speed is", "routed layers", "org/mixtral-8x7b", "Largest errors"):
        assert words in result.output
    assert np.isfinite(load_speed(rows.parent / "own.json").error)
