"""`scaling isoflop` from outside: one JSON document, tables, exit statuses, messages."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.fitting.published import published
from analysis.laws import HOFFMANN
from scaling.cli.main import app
from scaling.formatting import flops

FIT = published("chinchilla-tex")
BUDGETS = np.geomspace(1e19, 1e21, 5)


def call(*words):
    return CliRunner().invoke(app, ["isoflop", *map(str, words)], env={"COLUMNS": "110"})


def written(path, drift=(1, 1, 1, 1, 1), width=3.0, **more):
    rows = []
    for budget, off in zip(BUDGETS, drift, strict=True):
        size = HOFFMANN.optimum(FIT.params, budget, 1)[0] * off * np.geomspace(1 / width, width, 7)
        rows.append(pd.DataFrame({"N": size, "train_flops": budget, "tokens": budget / (6 * size)}))
    frame = pd.concat(rows, ignore_index=True).assign(**more)
    frame["loss_val"] = FIT.loss(
        {"n_active": frame["N"].to_numpy(copy=True), "tokens": frame["tokens"].to_numpy(copy=True)}
    )
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return written(tmp_path_factory.mktemp("isoflop") / "runs.csv", drift=(1, 1, 4, 1, 1))


MAP = ("--map", "n_active=N")


def test_json_is_one_document_with_valleys_exponents_and_the_prediction(runs, tmp_path):
    out = tmp_path / "isoflop.json"
    done = call(runs, *MAP, "--budget", "1e24", "--bias", "published:chinchilla-tex", "--json", "--out", out)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert json.loads(out.read_text()) == document
    (dense,) = document["frontiers"]
    assert [bool(valley["flags"]) for valley in dense["valleys"]] == [False, False, True, False, False]
    # Noiseless and centred: the slope is that of the surface, beta / (alpha + beta) = .456526 (laws.md 1.2).
    assert dense["n_exponent"]["exponent"] == pytest.approx(0.456526, abs=1e-5)
    assert dense["n_exponent"]["exponent"] + dense["d_exponent"]["exponent"] == pytest.approx(1.0)
    assert 6 * dense["prediction"]["n_opt"] * dense["prediction"]["d_opt"] == pytest.approx(1e24)
    # The runs are the surface's own: what the method predicts over the truth is the bias it reports.
    truth = HOFFMANN.optimum(FIT.params, 1e24, 1)[0]
    assert dense["bias"]["line_over_true"] == pytest.approx(dense["prediction"]["n_opt"] / truth, rel=1e-6)
    assert document["surface"]["law"] == "hoffmann"
    assert dense["envelope"] is None
    assert any("no envelope" in warning for warning in document["warnings"])


def test_the_table_names_budgets_flags_and_exponents(runs):
    shown = call(runs, *MAP, "--budget", "1e24").stdout
    lines = shown.splitlines()
    for budget in BUDGETS:
        assert any(line.split()[:1] == [flops(budget)] for line in lines), budget
    assert shown.count("the window is lopsided") == 0, "off by 4 with a window of 3, the vertex is outside"
    assert "the vertex lies outside the sampled sizes" in shown
    assert lines[0].startswith("At 1×10²⁴ FLOPs, E = 1: N* = ")
    assert any(line.startswith("N* grows as C^0.457") for line in lines)
    assert "4 of 5 minima" in shown
    assert "5 of 5 minima" in call(runs, *MAP, "--keep-flagged").stdout


def test_trunks_give_an_envelope_beside_it(tmp_path):
    size, share = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e11, 30), np.geomspace(1, 300, 10), indexing="ij"))
    frame = pd.DataFrame({"n_active": size, "tokens": size * share, "trunk_id": np.arange(30).repeat(10)})
    frame["loss_val"] = FIT.loss({"n_active": size, "tokens": size * share})
    frame.to_csv(tmp_path / "trunks.csv", index=False)
    done = call(tmp_path / "trunks.csv", "--groups", 12, "--keep-flagged", "--bootstrap", 20, "--json")
    assert done.exit_code == 0, done.stderr
    (dense,) = json.loads(done.stdout)["frontiers"]
    low, high = dense["envelope"]["n_interval"]
    assert low <= dense["envelope"]["n_exponent"] <= high
    # Sizes a factor 1.37 apart over four decades of N: the steps tilt the line by some hundredths.
    assert dense["envelope"]["n_exponent"] == pytest.approx(0.456526, abs=0.03)
    assert "envelope at E = 1: N* grows as C^" in call(tmp_path / "trunks.csv", "--groups", 12, "--keep-flagged").stdout


def test_the_envelope_can_be_of_training_curves(runs):
    done = call(runs, *MAP, "--curves", "--json")
    assert done.exit_code == 0, done.stderr
    assert any("no column 'run_id'" in warning for warning in json.loads(done.stdout)["warnings"])


def test_each_expert_count_has_its_own_frontier(tmp_path):
    files = [pd.read_csv(written(tmp_path / f"{e}.csv", n_experts=e)) for e in (1, 8)]
    pd.concat(files).to_csv(tmp_path / "both.csv", index=False)
    done = call(tmp_path / "both.csv", *MAP, "--json")
    assert [frontier["n_experts"] for frontier in json.loads(done.stdout)["frontiers"]] == [1, 8]
    lines = call(tmp_path / "both.csv", *MAP).stdout.splitlines()
    assert lines[0].startswith("E = 1: N* grows as C^")
    assert lines[1].startswith("E = 8: N* grows as C^")


def test_no_usable_valley_is_failed_work_that_still_lists_them(tmp_path):
    done = call(written(tmp_path / "off.csv", drift=[9] * 5), *MAP, "--json")
    assert done.exit_code == 1
    (dense,) = json.loads(done.stdout)["frontiers"]
    assert dense["n_exponent"] is None
    assert all(valley["flags"] for valley in dense["valleys"])
    assert "no frontier" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*MAP, "--tolerance", "2"), "tolerance must lie between 0 and 1"),
        ((*MAP, "--n-column", "n_total"), "no column 'n_total'"),
        ((*MAP, "--bias", "published:nobody"), "no published fit is called 'nobody'"),
        ((*MAP, "--budget", "much"), "--budget"),
        ((*MAP, "--where", "n_active > 1e99"), "no usable run is left"),
        ((*MAP, "--budget", "-1"), "'--budget': must be a positive number"),
        ((*MAP, "--bias", "published:joint-moe-2025", "--where", "n_active < 0"), "no usable run is left"),
    ],
)
def test_wrong_input_is_one_message(runs, words, message):
    done = call(runs, *words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
