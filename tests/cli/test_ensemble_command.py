"""`scaling recommend published:moe`: what the laws of the ensemble advise, and runs that weigh them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.mixture.ensemble import Ensemble
from analysis.mixture.readings import READINGS
from analysis.report.subject import read_subject
from scaling.cli.main import app
from scaling.errors import InputError


@pytest.fixture(scope="module")
def call():
    runner = CliRunner()

    def run(*words):
        result = runner.invoke(app, [*map(str, words)])
        return result, json.loads(result.stdout) if "--json" in words and result.stdout.strip() else None

    return run


def test_the_answer_holds_the_advice_of_every_law(call):
    words = ("recommend", "published:moe", "--train-flops", "1e21", "--n-experts", "1,64,256", "--no-what-if", "--json")
    result, found = call(*words)
    assert result.exit_code == 0
    assert {law["name"] for law in found["laws"]} == set(READINGS)
    assert sum(law["weight"] for law in found["laws"]) == pytest.approx(1.0)
    for law in found["laws"]:
        assert law["n_experts"] in (1, 64, 256)
        assert 6.0 * law["n_active"] * law["tokens"] == pytest.approx(1e21, rel=0.02)  # routing takes FLOPs too
        assert 0.0 <= law["probability_best"] <= 1.0
    assert sum(found["probability_best"].values()) == pytest.approx(1.0)
    assert found["decided"] is False
    assert found["recommendation"]["top_k"] == 8


def test_runs_weigh_the_laws(call, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"n_active": [1e8, 1e8, 3e8, 1e9, 3e8, 1e8], "n_experts": [1, 16, 64, 128, 1, 64]})
    frame["tokens"], frame["top_k"] = 20 * frame["n_active"], 8
    frame["loss_val"] = 2.0 + 60 * frame["n_active"] ** -0.2 * (1 + 0.01 * rng.standard_normal(6))
    frame.to_csv(tmp_path / "runs.csv", index=False)
    words = ("recommend", "published:moe", "--train-flops", "1e21", "--n-experts", "1,256", "--no-what-if", "--json")
    _, found = call(*words, "--weigh-by", tmp_path / "runs.csv", "--out", tmp_path / "plan.json")
    weights = [law["weight"] for law in found["laws"]]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.26
    assert found["recommendation"]["loss_interval"][1] < 4.0
    behind = read_subject(tmp_path / "plan.json").law_fit  # a report weighs the laws again, by the runs it names
    assert isinstance(behind, Ensemble)
    assert sorted((member.weight for member in behind.members), reverse=True) == weights
    frame.assign(loss_val=frame.loss_val[::-1].to_numpy()).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match="does not rest on"):
        read_subject(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("recommend", "published:moe", "--target-loss", "2.2"), "--target-loss"),
        (("recommend", "published:moe", "--train-flops", "1e21", "--weigh-by", "no.csv"), "no.csv"),
    ],
)
def test_wrong_input_names_its_option(call, words, named):
    result, _ = call(*words)
    assert result.exit_code == 2
    assert named in result.output


def test_laws_as_json_have_their_error(call):
    _, found = call("laws", "--json")
    joint = found["published"]["published:joint-moe-2025"]
    assert joint["rmse_log"] == 0.0062
    assert joint["n_runs"] == 280
    low, high = joint["intervals"]["alpha"]
    assert low < joint["params"]["alpha"] < high
