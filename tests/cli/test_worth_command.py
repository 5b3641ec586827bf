"""`scaling worth` from outside: laws, studies, tables and gates; one JSON document, and messages for wrong input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.fitting.published import published
from scaling.cli.main import app
from scaling.values import FIT
from tests.support.planted import moe_grid
from tests.support.worth import with_draws

JOINT = published("joint-moe-2025")
KEYS = (
    "n_experts", "train_flops", "compute_speedup", "compute_interval", "time_speedup", "time_interval", "cost_speedup"
)  # fmt: skip


def call(*words):
    result = CliRunner().invoke(app, ["worth", *map(str, words)], env={"COLUMNS": "110"})
    document = json.loads(result.stdout) if "--json" in words and result.exit_code == 0 else None
    return result, document


@pytest.fixture(scope="module")
def fit_file(tmp_path_factory):
    """The published joint law with draws of one parameter, in a file."""
    path = tmp_path_factory.mktemp("fits") / "fit.json"
    drawn = with_draws(replace(JOINT, draws={}), 0.002, "delta", count=100)
    path.write_text(json.dumps(FIT.document(replace(drawn, pinned=drawn.pinned, status="given"))))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    moe_grid(experts=(1, 4), widths=(32, 64, 128), noise=0.003, seeds=(0, 1)).to_csv(path, index=False)
    return path


def test_a_law_gives_the_document_that_was_agreed(fit_file):
    result, found = call(fit_file, "--train-flops", "1e21,1e22", "--n-experts", "8", "--json")
    assert result.exit_code == 0, result.stderr
    assert [tuple(one)[: len(KEYS)] for one in found["worth"]] == [KEYS] * 2
    first, last = found["worth"]
    assert (first["train_flops"], last["train_flops"]) == (1e21, 1e22)
    assert first["compute_interval"][0] < first["compute_speedup"] < first["compute_interval"][1]
    assert first["time_speedup"] < first["compute_speedup"]  # MFU falls with E
    assert first["cost_speedup"] == first["time_speedup"]
    assert found["baseline"] == {"n_experts": 1, "law": "joint-moe", "source": str(fit_file)}
    (growth,) = found["growth"]
    slope = np.log(last["compute_speedup"] / first["compute_speedup"]) / np.log(10)
    assert growth["compute_slope"] == pytest.approx(slope, abs=2e-3)


def test_the_page_says_the_worth_and_what_time_rests_on(fit_file):
    result, _ = call(fit_file, "--train-flops", "1e21", "--n-experts", "8")
    assert result.exit_code == 0, result.stderr
    line = result.stdout.splitlines()[0]
    assert line.startswith("E = 8 is worth ")
    assert "x the compute (" in line
    assert "assumed: MFU" in result.stdout
    assert "--train" not in result.stderr


def test_a_training_speed_changes_time_alone(fit_file):
    asked = (fit_file, "--train-flops", "1e21", "--n-experts", "8", "--json")
    (falling,), (even,) = (call(*asked, *more)[1]["worth"] for more in ((), ("--training-speed", "constant")))
    assert even["compute_speedup"] == falling["compute_speedup"]
    assert even["time_speedup"] == pytest.approx(even["compute_speedup"])


def test_a_table_is_compared_without_a_law(runs, tmp_path):
    out = tmp_path / "worth.json"
    result, found = call(runs, "--json", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert json.loads(out.read_text()) == found
    assert found["worth"] == []
    assert found["baseline"]["law"] is None
    assert {pair["n_experts"] for pair in found["pairs"]} == {4}
    means = {mean["curve"]: mean for mean in found["paired"]}
    assert means["same shape"]["compute_interval"][0] < means["same shape"]["compute_speedup"]


def test_a_table_with_a_fit_has_both(runs, fit_file):
    _, found = call(runs, "--fit", fit_file, "--train-flops", "1e21", "--n-experts", "4", "--json")
    assert len(found["worth"]) == 1
    assert found["pairs"]


def test_a_gate_says_the_probability_alone_and_extrapolated(fit_file, tmp_path):
    """Runs of a method that is worth 1.5 times the compute: a dense model on 1.5 times the tokens."""
    rng = np.random.default_rng(1)
    lines = ["n_active,tokens,loss_val"]
    for n in (1e8, 3e8, 1e9):
        loss = JOINT.loss({"n_active": n * 1.5**0.5, "tokens": 20 * n * 1.5**0.5, "n_experts": 1.0})
        lines.append(f"{n},{20 * n},{float(loss) * np.exp(2e-4 * rng.standard_normal())}")
    path = tmp_path / "method.csv"
    path.write_text("\n".join(lines))
    asked = ("--baseline", fit_file, "--candidate", path, "--train-flops", "1e19,1e23")
    result, found = call(*asked, "--json")
    assert result.exit_code == 0, result.stderr
    gate = found["gate"]
    assert gate["decided"] == "better"
    assert gate["alone"]["compute_speedup"] == pytest.approx(1.5, rel=0.02)
    assert [one["extrapolated"] for one in found["worth"]] == [False, True]
    result, _ = call(*asked)
    printed = " ".join(result.stdout.split())
    assert "it beats the baseline" in printed
    assert "(extrapolated)" in printed
    assert call(*asked, "--against", "frontier")[0].exit_code == 0


def test_leverage_is_worth_by_its_own_law():
    settings = ("--set", "activation_ratio=0.031", "--set", "granularity=12")
    _, found = call("published:leverage-2025", "--train-flops", "1e22", *settings, "--json")
    (one,) = found["worth"]
    assert one["compute_speedup"] == pytest.approx(7.2449, abs=1e-3)  # arXiv 2507.17702: more than 7x
    assert one["n_experts"] is None


@pytest.mark.parametrize("of", ["fit", "runs", "gate"])
def test_a_figure_is_drawn(of, fit_file, runs, tmp_path):
    path = tmp_path / "worth.png"
    words = {
        "fit": (fit_file, "--train-flops", "1e21", "--n-experts", "8"),
        "runs": (runs,),
        "gate": ("--baseline", fit_file, "--candidate", runs, "--where", "n_experts == 1"),
    }[of]
    result, _ = call(*words, "--figure", path)
    assert result.exit_code == 0, result.stderr
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a fit, a study folder or a table of runs"),
        (("no-such.json", "--train-flops", "1e21"), "no such fit, study folder or table"),
        (("published:joint-moe-2025",), "--train-flops"),
        (("published:joint-moe-2025", "--train-flops", "-1"), "--train-flops"),
        (("published:joint-moe-2025", "--train-flops", "1e21,many"), "many"),
        (("published:nothing", "--train-flops", "1e21"), "no published fit"),
        (("published:chinchilla-tex", "--train-flops", "1e21"), "says nothing about experts"),
        (("published:joint-moe-2025", "--train-flops", "1e21", "--serve-tokens", "1e12"), "needs --device"),
        (("published:joint-moe-2025", "--train-flops", "1e21", "--n-experts", "x"), "--n-experts"),
        (("published:joint-moe-2025", "--train-flops", "1e21", "--training-speed", "fast"), "--training-speed"),
        (("published:joint-moe-2025", "--baseline", "published:joint-moe-2025"), "belong together"),
        (("published:leverage-2025", "--train-flops", "1e21"), "activation_ratio"),
    ],
)
def test_wrong_input_is_one_message(words, message):
    result, _ = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_table_asked_for_a_law_says_what_is_lacking(runs):
    result, _ = call(runs, "--train-flops", "1e21")
    assert result.exit_code == 2
    assert "--fit" in result.stderr
