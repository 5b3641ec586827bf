"""A run far from the law of the others is named by its row, its value and what the law expects; doubts travel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from planted import HOFFMANN_2022, hoffmann_runs, moe_grid, table_of
from typer.testing import CliRunner

from analysis.decision.answer import answer, answer_document
from analysis.decision.question import Question
from analysis.fitting.fit import fit
from analysis.fitting.fit_file import parse_fit
from analysis.laws import HOFFMANN, JOINT_MOE
from analysis.tables import runs
from scaling.cli.main import app
from scaling.values import FIT


def outlying(fitted):
    return [doubt for doubt in fitted.doubts if doubt.code == "outlier"]


@pytest.mark.parametrize("row", [0, 3, 10, 16, 19])
@pytest.mark.parametrize("factor", [0.83, 1.17])
def test_a_loss_a_sixth_off_is_named_with_what_the_law_expects(row, factor):
    """At corners of the design as inside it, where the other runs scatter by 1 %."""
    frame = hoffmann_runs(noise=0.01, seed=row)
    frame.loc[row, "loss_val"] *= factor
    fitted = fit(table_of(frame), HOFFMANN, n_starts=16)
    (doubt,) = outlying(fitted)
    assert row + 1 in doubt.rows
    assert len(doubt.rows) <= 2
    truth = HOFFMANN.loss(HOFFMANN_2022, {name: frame.loc[row, name] for name in HOFFMANN.columns})
    assert f"{frame.loc[row, 'loss_val']:.3f} where the law expects" in doubt.message
    expected = float(
        doubt.message.split(f"{frame.loc[row, 'loss_val']:.3f} where the law expects ")[1].split()[0].rstrip(",")
    )
    assert expected == pytest.approx(truth, rel=0.1)
    assert str(doubt) in fitted.warnings
    assert fitted.n_runs == 20


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.01, 0.03])
def test_scatter_is_no_outlier(noise):
    for seed in range(5):
        fitted = fit(table_of(hoffmann_runs(noise, seed)), HOFFMANN, n_starts=8)
        assert outlying(fitted) == []
    routed = fit(table_of(moe_grid(noise=noise)), JOINT_MOE, n_starts=8)
    assert outlying(routed) == []


def test_the_outliers_that_the_sources_own_rule_leaves_out_are_found(epoch_path):
    """Epoch drops the five highest losses: four of them stand far from the law, and nothing else does."""
    from planted import EPOCH_MAP

    table = runs.read_runs(epoch_path, EPOCH_MAP, law=HOFFMANN)
    highest = set((np.argsort(-table.column("loss_val"))[:5] + 1).tolist())
    (doubt,) = outlying(fit(table, HOFFMANN, n_starts=16))
    assert len(doubt.rows) >= 3
    assert set(doubt.rows) <= highest


@pytest.fixture
def doubted(written):
    """Runs in which row 4 has more active than total parameters, and row 9 a loss with a slip."""
    frame = moe_grid(noise=0.005, experts=(1, 2, 4, 8), widths=(32, 64, 96, 128))
    frame["n_total"] = frame["n_total"].astype(float)
    frame.loc[3, "n_total"] = frame.loc[3, "n_active"] / 2
    frame.loc[8, "loss_val"] *= 0.72
    return written(frame)


def test_doubts_go_from_a_table_to_its_fit_its_file_and_every_answer(doubted):
    table = runs.read_runs(doubted, law=JOINT_MOE)
    fitted = fit(table, JOINT_MOE, n_starts=8)
    codes = {doubt.code: doubt for doubt in fitted.doubts}
    assert codes["active_above_total"].rows == (4,)
    assert 9 in codes["outlier"].rows
    again = parse_fit(json.loads(json.dumps(FIT.document(fitted))), "fit.json")
    assert again.doubts == fitted.doubts
    found = answer(again, Question(train_flops=1e17), what_if=False, cost_curves=False)
    told = answer_document(found)["warnings"]
    assert not found.recommendation.decided
    reasons = found.recommendation.undecided_because
    assert any("n_active, n_total of the runs may be misread" in reason for reason in reasons)
    for doubt in fitted.doubts:
        assert any(doubt.message in warning for warning in told)


def test_every_command_repeats_them(doubted, tmp_path):
    path = tmp_path / "fit.json"
    commands = {
        "fit": ["fit", str(doubted), "--law", "joint-moe", "--bootstrap", "0", "--out", str(path)],
        "predict": ["predict", str(path), "--n-active", "1e6", "--tokens", "1e7", "--n-experts", "4"],
        "recommend": ["recommend", str(path), "--train-flops", "1e17", "--no-what-if"],
        "isoflop": ["isoflop", str(doubted), "--bootstrap", "0", "--groups", "3"],
        "import": ["import", str(doubted), "--out", str(tmp_path / "study")],
    }
    for name, words in commands.items():
        done = CliRunner().invoke(app, words)
        assert "n_active exceeds n_total in row 4" in " ".join(done.stdout.split()), (name, done.output)
        assert "warning:" in done.stdout, name
