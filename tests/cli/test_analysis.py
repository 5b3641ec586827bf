"""The analysis commands as a user or a program meets them: documents, exit statuses, messages."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.laws import HOFFMANN
from scaling.cli.main import app

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}


@pytest.fixture(scope="module")
def call():
    """Runs a command; returns (result, JSON document or None)."""
    runner = CliRunner()

    def run(*words):
        result = runner.invoke(app, [str(word) for word in words])
        document = json.loads(result.stdout) if "--json" in words and result.stdout.strip() else None
        return result, document

    return run


@pytest.fixture(scope="module")
def dense_csv(tmp_path_factory):
    size, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(2e9, 2e11, 5)))
    loss = HOFFMANN.loss(TRUTH, {"n_active": size, "tokens": tokens})
    loss = loss * np.exp(0.002 * np.random.default_rng(0).standard_normal(size.size))
    path = tmp_path_factory.mktemp("runs") / "dense.csv"
    pd.DataFrame({"N": size, "tokens": tokens, "loss_val": loss}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fit_file(call, dense_csv, tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "deeper" / "fit.json"
    result, _ = call("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--bootstrap", 100, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_a_fit_from_a_published_law_says_what_was_shrunk(call, dense_csv, tmp_path):
    words = ("fit", dense_csv, "--map", "n_active=N", "--where", "tokens < 3e9", "--bootstrap", 100)
    path = tmp_path / "fit.json"
    result, found = call(*words, "--from", "published:chinchilla-epoch", "--out", path, "--json")
    assert result.exit_code == 0, result.output
    assert found["law"] == "hoffmann"
    assert found["prior"]["start"] == "published:chinchilla-epoch"
    assert set(found["prior"]["shrunk"]) == {"level", *TRUTH}
    assert len(found["draws"]["alpha"]) == 100
    result, _ = call(*words, "--from", path)
    assert result.exit_code == 0, result.output
    for more in (("--law", "hoffmann"), ("--pin", "E=1.7"), ("--profile", "all")):
        result, _ = call(*words, "--from", path, *more)
        assert result.exit_code == 2
        assert f"{more[0]} contradicts --from" in result.output


def test_fit_json_is_the_contract(call, dense_csv):
    result, found = call("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--bootstrap", 20, "--json")
    assert result.exit_code == 0
    assert {
        "law", "params", "intervals", "objective", "rmse_log", "n_runs", "n_starts", "n_starts_at_minimum", "status",
        "warnings",
    } <= set(found)  # fmt: skip
    assert found["params"] == pytest.approx(TRUTH, rel=0.3)
    for name in ("E", "alpha", "beta"):
        low, high = found["intervals"][name]
        assert low <= found["params"][name] <= high
    assert found["n_runs"] == 25
    assert found["status"] == "ok"


def test_epoch_by_the_command_line(call, epoch_csv):
    maps = ["--map", "n_active=Model Size", "--map", "train_flops=Training FLOP", "--map", "loss_val=loss"]
    result, found = call(
        "fit", epoch_csv, "--law", "hoffmann", *maps, "--drop-highest-loss", 5, "--bootstrap", 0, "--json"
    )
    assert result.exit_code == 0
    assert found["objective"] <= 1.018275e-3
    assert found["n_runs"] == 240
    assert found["dropped"] == [["highest losses, as asked", 5]]
    assert found["intervals"] == {}


@pytest.fixture(scope="module")
def epoch_csv():
    folder = Path(os.environ.get("SCALING_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "epoch_chinchilla.csv"
    if not path.is_file():
        pytest.skip(f"public data epoch_chinchilla.csv is not in {folder} (set SCALING_DATA)")
    return path


def test_the_file_feeds_predict_and_recommend(call, fit_file):
    result, found = call("predict", fit_file, "--n-active", "1B", "--tokens", "20B", "--json")
    assert result.exit_code == 0
    truth = float(HOFFMANN.loss(TRUTH, {"n_active": 1e9, "tokens": 2e10}))
    assert found["loss"] == pytest.approx(truth, rel=3e-3)
    assert found["loss_interval"][0] < found["loss"] < found["loss_interval"][1]
    result, found = call("recommend", fit_file, "--train-flops", "1e21", "--json")
    assert result.exit_code == 0
    assert {"recommendation", "alternatives", "probability_best", "decided", "warnings"} <= set(found)
    assert found["probability_best"] == {"1": 1.0}
    assert found["decided"]


def test_readable_answers_and_warnings_go_to_stdout(call, fit_file, dense_csv):
    result, _ = call("recommend", fit_file, "--train-flops", "1e24", "--serve-tokens", "2T")
    assert result.stdout.splitlines()[0].endswith("not decided")
    assert "warning: extrapolation" in result.stdout
    assert result.stderr == ""
    result, _ = call("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--bootstrap", 0, "--pin", "E=1.7")
    row = next(line for line in result.stdout.splitlines() if line.startswith("E "))
    assert row.split()[1:3] == ["1.7", "fixed"]
    result, _ = call("predict", "published:joint-moe-2025", "--n-active", "1e9", "--tokens", "20B", "--n-experts", 8)
    assert "2.5088" in result.stdout  # 2502.05172: 2.50878
    result, _ = call("laws")
    assert "published:joint-moe-2025" in result.stdout


def test_laws_json(call):
    _, found = call("laws", "--json")
    assert {"hoffmann", "yun", "joint-moe"} <= set(found["laws"])
    assert found["laws"]["yun"]["n_column"] == "n_dense_nonembed"
    assert found["published"]["published:chinchilla-epoch"]["params"]["E"] == 1.81686


def test_published_fits_work_wherever_a_fit_does(call):
    result, found = call("recommend", "published:joint-moe-2025", "--train-flops", "1e20", "--n-experts", "8", "--json")
    assert result.exit_code == 0
    assert found["recommendation"]["n_active"] == pytest.approx(9.90e8, rel=1e-3)
    assert found["probability_best"] == {"8": 1.0}
    assert found["decided"] is False
    low, high = found["recommendation"]["loss_interval"]
    assert low < found["recommendation"]["loss"] < high


def test_an_import_is_a_study(call, dense_csv, tmp_path):
    result, found = call("import", dense_csv, "--out", tmp_path / "mine", "--map", "n_active=N", "--json")
    assert result.exit_code == 0
    assert found["n_runs"] == 25
    result, found = call("fit", tmp_path / "mine", "--law", "hoffmann", "--bootstrap", 0, "--json")
    assert found["n_runs"] == 25


def test_an_unidentified_fit_is_a_document_and_a_failure(call, dense_csv):
    words = ("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--where", "tokens < 3e9", "--json")
    result, found = call(*words)
    assert result.exit_code == 1
    assert found["status"] == "unidentified"
    assert found["params"] == {}
    assert any("every run has the same tokens" in warning for warning in found["warnings"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "CSV", "--law", "hofman"), "the laws are kaplan"),
        (("fit", "CSV", "--law", "hoffmann"), "Rename with --map n_active=NAME"),
        (("fit", "absent.csv", "--law", "hoffmann"), "no such file or study folder"),
        (("fit", "CSV", "--law", "hoffmann", "--map", "n_active"), "--map takes NAME=VALUE"),
        (
            ("fit", "CSV", "--law", "hoffmann", "--map", "n_active=N", "--map", "n_active=tokens"),
            "names 'n_active' twice",
        ),
        (("fit", "CSV", "--law", "hoffmann", "--map", "n_active=N", "--pin", "E=low"), "--pin E: expected a number"),
        (("fit", "CSV", "--law", "hoffmann", "--map", "n_active=N", "--pin", "zeta=1"), "has no parameter 'zeta'"),
        (("fit", "CSV", "--law", "hoffmann", "--map", "n_active=N", "--delta", "0"), "delta must be a positive number"),
        (("fit", "CSV", "--law", "hoffmann", "--map", "n_active=N", "--where", "=="), "--where"),
        (
            ("fit", "CSV", "--law", "hoffmann", "--map", "n_active=N", "--bootstrap", "-1"),
            "'--bootstrap': Input should be greater than or equal to 0",
        ),
        (("predict", "FIT", "--n-active", "1x", "--tokens", "1B"), "'--n-active': expected a number"),
        (
            ("predict", "FIT", "--n-active", "1B", "--tokens", "1B", "--set", "n_active=3"),
            "--n-active is 1e+09 and --set n_active is 3",
        ),
        (("predict", "FIT", "--n-active", "1B", "--tokens", "1B", "--set", "depth=3"), "has no column depth"),
        (("predict", "published:x", "--n-active", "1B", "--tokens", "1B"), "chinchilla-rounded, chinchilla-tex"),
        (
            ("predict", "published:chinchilla-epoch", "--n-active", "1B", "--tokens", "1B", "--n-experts", "8"),
            "says nothing about experts: --n-experts can only be 1",
        ),
        (("recommend", "FIT", "--train-flops", "1e20", "--mfu", ".5"), "--mfu needs --device"),
        (("recommend", "FIT", "--train-flops", "1e20", "--usd-per-hour", "3"), "--usd-per-hour needs --device"),
        (("recommend", "FIT", "--train-flops", "1e20", "--training-speed", "constant"), "--training-speed needs"),
        (
            ("recommend", "FIT", "--train-flops", "1e20", "--device", "h100", "--training-speed", "slow"),
            "--training-speed: found 'slow'",
        ),
        (("recommend", "FIT", "--train-flops", "1e20", "--device", "h100", "--mfu", "7"), "--mfu must be above 0"),
        (("recommend", "FIT", "--train-flops", "1e20", "--device", "h100", "--mfu", "0"), "--mfu must be above 0"),
        (("recommend", "FIT"), "give one of --train-flops"),
        (("recommend", "FIT", "--train-flops", "1e20", "--n-experts", "1;8"), "such as 1,4,8"),
        (("recommend", "FIT", "--target-loss", "0.1"), "no model with E = 1 meets loss 0.1"),
    ],
)
def test_wrong_input_is_one_message(call, dense_csv, fit_file, words, message):
    result, _ = call(*[{"CSV": dense_csv, "FIT": fit_file}.get(word, word) for word in words])
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_negative_seed_is_a_usage_error(call, dense_csv):
    result, _ = call("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--seed", "-1")
    assert result.exit_code == 2
    assert "--seed" in result.stderr


def test_a_dense_law_predicts_for_the_expert_count_it_was_fitted_to(call, tmp_path):
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"law": "hoffmann", "params": TRUTH, "experts": [8]}))
    words = ("predict", path, "--n-active", "1B", "--tokens", "20B", "--json")
    _, found = call(*words, "--n-experts", 8)
    assert found == call(*words)[1]
    assert call(*words, "--n-experts", 1)[0].exit_code == 2


def test_files_have_the_mode_of_the_umask(fit_file):
    before = os.umask(0)
    os.umask(before)
    assert fit_file.stat().st_mode & 0o777 == 0o666 & ~before


def test_a_write_that_fails_leaves_nothing(call, fit_file, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result, _ = call("recommend", fit_file, "--train-flops", "1e21", "--out", tmp_path / "answer.json")
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_the_draws_without_an_answer(call, fit_file):
    words = ("recommend", fit_file, "--target-loss", "1.72")  # some draws have an irreducible loss above it
    _, found = call(*words, "--json")
    share = found["recommendation"]["unanswered"]
    assert 0 < share < 1
    lines = call(*words)[0].stdout.splitlines()
    row = next(line for line in lines if line.split()[:1] == ["1"])
    assert row.split()[-1] == f"{share:.0%}"


def test_a_file_that_cannot_be_written_is_failed_work(call, dense_csv, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    words = (
        "fit",
        dense_csv,
        "--law",
        "hoffmann",
        "--map",
        "n_active=N",
        "--bootstrap",
        0,
        "--out",
        blocked / "fit.json",
    )
    result, _ = call(*words)
    assert result.exit_code == 1


def test_profiles_an_optimum_and_a_picture_of_a_fit(call, dense_csv, tmp_path):
    picture = tmp_path / "fit.png"
    words = ("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--bootstrap", 40)
    result, found = call(*words, "--profile", "alpha", "--budget", "1e22", "--figure", picture, "--json")
    assert result.exit_code == 0, result.output
    shapes = {profile["name"]: profile for profile in found["profiles"]}
    low, high = shapes["alpha"]["interval"]
    assert low < found["params"]["alpha"] < high
    best = found["optimum"]["recommendation"]
    assert best["n_active_interval"][0] < best["n_active"] < best["n_active_interval"][1]
    assert 6 * best["n_active"] * best["tokens"] == pytest.approx(1e22, rel=1e-6)
    assert picture.read_bytes().startswith(b"\x89PNG")
    result, _ = call(*words, "--profile", "gamma")
    assert result.exit_code != 0
    result, found = call(*words, "--profile", "all")
    assert result.stdout.count(" to ") >= 10  # two intervals a parameter


def test_predictions_have_two_intervals(call, fit_file):
    _, found = call("predict", fit_file, "--n-active", "1e9", "--tokens", "2e10", "--json")
    (low, high), (run_low, run_high) = found["loss_interval"], found["prediction_interval"]
    assert run_low < low < found["loss"] < high < run_high


def test_a_ratio_of_compute_is_predicted_and_divides_no_budget(call):
    settings = ("--set", "activation_ratio=.031", "--set", "granularity=12", "--set", "train_flops=1e22")
    result, found = call("predict", "published:leverage-2025", *settings, "--json")
    assert found["compute_leverage"] == pytest.approx(7.2449, abs=1e-3)  # arXiv 2507.17702: more than 7x
    result, _ = call("recommend", "published:leverage-2025", "--train-flops", "1e21")
    assert "reads activation_ratio, granularity" in result.stderr  # beside a dense law, of models like a lineage's
    result, _ = call("predict", "published:leverage-2025", "--set", "granularity=12")
    assert "needs activation_ratio" in result.stderr


def test_large_tables_are_fitted_without_intervals_unless_asked(call, dense_csv, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.fitting.bootstrap._MOST_ROWS", 10)
    result, found = call("fit", dense_csv, "--law", "hoffmann", "--map", "n_active=N", "--json")
    assert not found["intervals"]
    assert "ask for some with --bootstrap" in result.stderr


@pytest.mark.parametrize(("option", "value"), [("--n-active", "-1"), ("--n-active", "1e41"), ("--tokens", "0")])
def test_a_size_out_of_bounds_is_named_with_its_value(call, fit_file, option, value):
    sizes = {"--n-active": "1B", "--tokens": "1B", option: value}
    result, _ = call("predict", fit_file, *[word for pair in sizes.items() for word in pair])
    assert result.exit_code == 2
    assert option in result.stderr
    assert result.stderr.rstrip().endswith(f"found {value.replace('1e41', '1e+41')}")
