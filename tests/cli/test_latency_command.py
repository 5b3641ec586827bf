"""`scaling latency` from outside: what it prints, one JSON document, the figure and the law on disk, exit statuses."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from synthetic_latency import CPU, GRID, TRUTH, frame
from typer.testing import CliRunner

from analysis.latency.law import AXES, load_latency_law
from scaling.cli.main import app


def call(*words):
    return CliRunner().invoke(app, ["latency", *map(str, words)], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "rows.parquet"
    measured = frame(noise=lambda n: np.random.default_rng(0).normal(0, 0.05, n)).assign(device=json.dumps(asdict(CPU)))
    measured.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def done(rows):
    law, picture = rows.parent / "deeper" / "law.json", rows.parent / "deeper" / "law.png"
    return law, picture, call(rows, "--resamples", 200, "--out", law, "--figure", picture, "--json")


def test_one_json_document_and_files(done):
    law, picture, result = done
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document["held_out"]) == {*AXES, "all"}
    assert len(document["worst"]) == 5
    assert abs(document["worst"][0]["error"]) >= abs(document["worst"][-1]["error"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    read = load_latency_law(law)
    assert read.device == CPU
    # 5 % of noise over 288 rows: every share within a tenth of what was planted.
    assert read.efficiency.bandwidth_share == pytest.approx(TRUTH.bandwidth_share, rel=0.1)
    assert read.efficiency.flops_share == pytest.approx(TRUTH.flops_share, rel=0.1)


def test_people_read_the_formula_the_units_and_the_errors(rows):
    result = call(rows, "--resamples", 200, "--where", "batch < 32", "--verbose")
    assert result.exit_code == 0, result.output
    for words in (
        "seconds = overhead + layers",
        "µs per layer",
        "95 % interval",
        "n_experts",
        "none, shares assumed",
        "Largest errors",
    ):
        assert words in result.stdout
    assert "left out: 96 rows (not batch < 32)" in result.stdout


def test_a_doubtful_table_is_warned_of(tmp_path):
    path = tmp_path / "busy.parquet"
    frame(grid=GRID[:6], contexts=(64,)).assign(device=json.dumps(asdict(CPU)), busy_cores=0.8).to_parquet(path)
    result = call(path, "--resamples", 200)
    assert result.exit_code == 0, result.output
    assert "up to 0.8 cores busy" in result.stdout
    assert "warning: a single context" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--figure", "law.txt"), "ends in .png, .svg, .pdf"),
        (("--device", "h1000"), "allowed: a100"),
        (("--where", "batch > 99"), "no usable latency row is left"),
        (("--where", "n_experts == 1 and d_model == 64 and n_layers == 2"), "needs 16 rows of 3 shapes"),
    ],
)
def test_wrong_input_is_one_message(rows, words, message):
    result = call(rows, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_bench_crosses_heads_their_width_and_their_groups(monkeypatch):
    configs = []
    timed = {"time_ms": 1.0, "time_q25_ms": 1.0, "time_q75_ms": 1.0, "tokens_per_s": 1.0, "roofline_ms": None}
    about = {"device_kind": "cpu", "threads": 1, "dtype": "float32", "busy_cores": 0.0, "distinct_experts": 1.0}
    names = ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "d_head", "n_kv_heads")

    def measure(*asked, progress):
        configs.extend(asked)
        shapes = [{name: getattr(config.model, name) for name in names} for config in asked]
        return [{**timed, **about, **shape, "phase": "decode", "batch": 1, "context": 8} for shape in shapes]

    monkeypatch.setattr("scaling.training.inference_bench.measure", measure)
    monkeypatch.setattr("scaling.training.jax_start.require_jax", lambda *_: None)
    words = ["bench", "--d-model", "64", "--n-heads", "4", "--d-head", "8,16,32", "--n-kv-heads", "1,4"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    found = [(config.model.d_head, config.model.n_kv_heads, config.model.attention_width) for config in configs]
    assert found == [(d_head, groups, 4 * d_head) for d_head in (8, 16, 32) for groups in (1, 4)]
    assert all(title in result.stdout for title in ("of head", "kv heads"))
    assert (
        CliRunner().invoke(app, ["bench", "--d-model", "64", "--d-head", "24"]).exit_code == 2
    )  # 64 / 24 is no number
