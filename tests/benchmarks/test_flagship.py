"""The flagship's prediction and check on a study with a planted law: what was planted comes out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic import CORPUS_HASH, TRUTH, planted_loss, write_study

import scaling
from analysis.decision.answer import answer, answer_document, read_answer
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit import Fit
from analysis.fitting.fit_file import load_fit
from analysis.latency.speeds import with_speed
from benchmarks import flagship, prediction, prediction_check
from benchmarks.equal_loss import equal_loss
from benchmarks.prediction_check import CheckedRun
from scaling.config.counts import parameters
from scaling.errors import InputError
from scaling.files import write_json
from scaling.schema import to_arrow, write_parquet
from scaling.serving.service import Service
from scaling.values import FIT
from sweeps.grid import load_grid, named_grids, parse, resolved

SHIPPED = named_grids()["flagship"]
GRID = """
study: planted
grid:
  - {d_model: [32, 48], n_layers: [2], n_experts: [1, 4, 16], tokens: [0.5M, 2M, 8M], seed: [0]}
  - {d_model: [64], n_layers: [3], n_experts: [1, 4, 16], tokens: [0.5M, 1M, 4M], seed: [0]}
  - {d_model: [96], n_layers: [4], n_experts: [1, 4, 16], tokens: [0.5M, 1M, 2M], seed: [0]}
model: {router: topk, top_k: 1}
"""
NOISE = 0.002
SERVICE = Service(prompt=64, generated=64, max_batch=8)
LOADS = {"light": 1e8, "heavy": 1e13}
PINS = {name: TRUTH[name] for name in ("E_start", "E_max", "gamma", "zeta")}


def write_cells(folder, grid, noise=NOISE, seed=0):
    """A study of these cells, every one ok. `write_study` has one in the middle diverge: one more, of another seed."""
    cells = list(grid.cells)
    spare = cells[0].model_copy(update={"seed": 99})
    middle = (len(cells) + 1) // 2
    write_study(folder, noise=noise, seed=seed, configs=[*cells[:middle], spare, *cells[middle:]])
    for table in ("runs", "evals", "curves", "latency"):
        (folder / table / f"{spare.run_id(CORPUS_HASH)}.parquet").unlink(missing_ok=True)
    (folder / "grid.yaml").write_text(resolved(grid, {"corpora": [{"hash": CORPUS_HASH}]}), encoding="utf-8")


def write_latency(folder, grid, decode_ms, prefill_ms):
    """Latency of every cell: these times by E, at any batch and context."""
    for cell in grid.cells:
        rows = [
            {"run_id": cell.run_id(CORPUS_HASH), "n_experts": cell.model.n_experts, "phase": phase, "batch": batch}
            | {"context": context, "time_ms": times[cell.model.n_experts]}
            for phase, times in (("decode", decode_ms), ("prefill", prefill_ms))
            for batch in cell.bench.batch
            for context in cell.bench.context
        ]
        write_parquet(folder / "latency" / f"{cell.run_id(CORPUS_HASH)}.parquet", to_arrow("latency", rows))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A finished study with its fit and its answers for two loads; tests copy what they change."""
    folder = tmp_path_factory.mktemp("planted")
    write_cells(folder, parse(GRID, SHIPPED))
    fit = scaling.fit(scaling.load(folder), "joint-moe", pin=PINS, bootstrap=40, starts=8)
    write_json(folder / "fit.json", FIT.document(fit))
    budget = prediction.TIMES * fit.largest_train_flops
    for load, tokens in LOADS.items():
        question = Question(train_flops=budget, serve_tokens=tokens, device="h100", service=SERVICE, data_tokens=1e9)
        answered = answer(fit, question, what_if=False, cost_curves=False)
        write_json(folder / f"answer-{load}.json", answer_document(answered))
    return folder


@pytest.fixture(scope="module")
def predicted(planted):
    """The same, predicted and checked without noise; times make E = 4 the cheapest to serve by far."""
    flagship.write_prediction(planted)
    grid = load_grid(planted / "check.yaml")
    write_cells(planted / "check", grid, noise=1e-9)
    write_latency(planted / "check", grid, {1: 4.0, 4: 1.0, 16: 9.0}, {1: 64.0, 4: 64.0, 16: 64.0})
    return planted


def test_the_shipped_grid_is_the_study_that_was_asked_for():
    grid = load_grid(SHIPPED)
    cells = grid.cells
    trunks = {cell.model_copy(update={"tokens": 1}) for cell in cells}
    assert len(cells) >= 100
    assert len(trunks) >= 25
    assert {1, 2, 4, 8, 16, 32} <= {cell.model.n_experts for cell in cells}
    assert max(cell.tokens for cell in cells) == 16 * min(cell.tokens for cell in cells)
    depths = {cell.model.d_model: cell.model.n_layers for cell in cells}
    assert len(depths) == 4
    assert depths == {width: prediction.depth_of(width) for width in depths}
    assert sorted(depths.values()) == [depths[width] for width in sorted(depths)]
    assert len({cell.model.d_model for cell in cells if cell.model.top_k == 1}) == 2
    seeds = {cell.model.n_experts for cell in cells if cell.seed == 2}
    assert {1, 16, 64} < seeds
    assert len({parameters(cell.model, 257).n_active for cell in cells}) == 4  # the same for every E and k


def test_the_check_spends_ten_times_the_compute_at_the_sizes_of_the_answer(predicted):
    stated = json.loads((predicted / "prediction.json").read_text())
    answers = flagship.answers(predicted)
    choices = {choice.n_experts: choice for choice in answers[stated["checked_load"]].choices}
    assert {cell["n_experts"] for cell in stated["cells"]} >= {1}
    for experts in {cell["n_experts"] for cell in stated["cells"]}:
        trunk = [cell for cell in stated["cells"] if cell["n_experts"] == experts]
        spent = [6 * cell["n_active"] * cell["tokens"] for cell in trunk]
        assert max(spent) == pytest.approx(stated["train_flops"], rel=1e-3)
        assert sorted(spent) == pytest.approx([share * max(spent) for share in prediction.BRANCHES], rel=1e-3)
        assert trunk[0]["n_active"] == pytest.approx(choices[experts].n_active, rel=0.5)  # to the nearest width
    assert list(answers) == ["light", "heavy"]


def test_losses_at_ten_times_the_compute_are_those_of_the_planted_law(predicted):
    stated = json.loads((predicted / "prediction.json").read_text())
    for best in stated["best"]:
        truth = planted_loss(best["n_active"], best["tokens"], best["n_experts"])
        assert best["loss"] == pytest.approx(truth, rel=0.01)  # runs have .2 % of noise
        assert best["run_interval"][0] < truth < best["run_interval"][1]
    flagship.write_check(predicted)
    document = json.loads((predicted / "check.json").read_text())
    assert {name: document[name] for name in ("cells", "trunks")} == {"cells": 36, "trunks": 12}
    assert document["rollout"]["runs"] == len({cell["n_experts"] for cell in stated["cells"]})
    assert document["rollout"]["inside"] == 1.0
    assert document["rollout"]["median_error"] < 0.01


def test_an_effective_speedup_is_the_dense_compute_of_equal_loss(predicted):
    fit = scaling.read_fit(predicted / "fit.json")
    stated = json.loads((predicted / "prediction.json").read_text())
    by_experts = {best["n_experts"]: best for best in stated["best"]}
    assert by_experts[1]["speedup"] == pytest.approx(1.0, abs=1e-3)
    for experts in (4, 16):
        best = by_experts[experts]
        dense = recommend(fit, Question(train_flops=best["speedup"] * stated["train_flops"], n_experts=(1,)))
        assert dense.recommendation.loss == pytest.approx(best["loss"], rel=1e-3)  # between steps of the ladder
        assert best["speedup_interval"][0] < best["speedup"] < best["speedup_interval"][1]


def test_the_cheapest_at_equal_loss_is_that_of_the_measured_times(predicted):
    flagship.write_check(predicted)
    document = json.loads((predicted / "check.json").read_text())
    light, heavy = (next(d for d in document["decisions"] if d["load"] == load) for load in ("light", "heavy"))
    # heavy: serving is all, and costs (t_D + t_P / n) / b: 5, 2 and 10 ms of a step for E = 1, 4 and 16
    assert heavy["measured_experts"] == 4
    step = {1: 5.0, 4: 2.0, 16: 10.0}
    if heavy["predicted_experts"] in step:
        regret = step[heavy["predicted_experts"]] / step[4] - 1
        assert heavy["measured_regret"] == pytest.approx(regret, rel=0.05, abs=1e-9)
    names = {"load": "load", "n_experts": "predicted_experts", "decided": "decided", "stated_regret": "stated_regret"}
    stated = json.loads((predicted / "prediction.json").read_text())["decisions"]
    for before, decision in zip(stated, (light, heavy), strict=True):
        assert [before[name] for name in names] == [decision[name] for name in names.values()]
    page = (predicted / "CHECKED.md").read_text()
    assert page.count("\n| heavy |") == 4  # three E, and the decision
    assert (predicted / "check.png").stat().st_size > 10_000  # a picture, not an empty page


def test_tokens_at_a_loss_lie_on_the_power_law_through_the_budgets():
    def run(tokens):
        return CheckedRun(4, 64, tokens, 6e5 * tokens, 5.0 * tokens**-0.1, 0.0, 0.0, 0.0)

    trunk = [run(tokens) for tokens in (1e6, 2e6, 4e6)]
    assert prediction_check.tokens_at_loss(trunk, run(3e6).measured) == (pytest.approx(3e6), False)
    assert prediction_check.tokens_at_loss(trunk, run(4e6).measured) == (pytest.approx(4e6), False)
    assert prediction_check.tokens_at_loss(trunk, run(5e5).measured) == (pytest.approx(5e5), True)
    assert prediction_check.tokens_at_loss(trunk, run(7e6).measured) == (pytest.approx(7e6), True)
    assert prediction_check.tokens_at_loss(trunk, run(9e6).measured) == (float("inf"), True)
    assert prediction_check.tokens_at_loss(trunk, run(1e4).measured) == (pytest.approx(5e5), True)


def test_a_served_token_costs_a_decode_step_and_its_share_of_a_prefill(planted):
    asked = flagship.answers(planted)["light"]
    rows = [("decode", 96, 4.0), ("prefill", 64, 32.0), ("decode", 64, 1.0), ("prefill", 96, 1.0)]
    latency = pd.DataFrame(rows, columns=["phase", "context", "time_ms"]).assign(n_experts=4, batch=8)
    rent = asked.question.pricing.rented.usd_per_hour / 3600
    expected = rent * (4.0e-3 + 32.0e-3 / 64) / 8 / SERVICE.utilisation
    assert prediction_check.measured_usd_per_token(asked, 4, latency) == pytest.approx(expected)
    with pytest.raises(InputError, match="batch 8"):
        prediction_check.measured_usd_per_token(asked, 4, latency.assign(batch=1))


def test_a_prediction_comes_neither_before_the_study_is_complete_nor_after_the_check(predicted, tmp_path):
    with pytest.raises(InputError, match="has runs"):
        flagship.write_prediction(predicted)
    grid = parse(GRID, SHIPPED)
    write_cells(tmp_path, grid)
    (tmp_path / "runs" / f"{grid.cells[5].run_id(CORPUS_HASH)}.parquet").unlink()
    with pytest.raises(InputError, match="1 of 36 cells"):
        flagship.write_prediction(tmp_path)
    assert flagship.main(["predict", str(tmp_path)]) == 2


def test_the_check_is_of_the_runs_and_the_fit_that_were_predicted(predicted):
    stated = flagship.read_value(prediction.Prediction, predicted / "prediction.json")
    runs = scaling.study(predicted / "check").runs
    with pytest.raises(InputError, match="missing"):
        prediction_check.checked_runs(stated, runs.iloc[1:])
    failed = runs.assign(status=np.where(np.arange(len(runs)) == 0, "diverged", "ok"))
    with pytest.raises(InputError, match="missing"):
        prediction_check.checked_runs(stated, failed)
    with pytest.raises(InputError, match="not predicted: "):
        prediction_check.checked_runs(replace(stated, cells=stated.cells[1:]), runs)


def test_answers_about_another_fit_or_other_compute_are_refused(planted):
    fit = scaling.read_fit(planted / "fit.json")
    answers, grid = flagship.answers(planted), load_grid(planted / "grid.yaml")
    other = scaling.fit(scaling.load(planted, where="n_experts < 16"), "joint-moe", pin=PINS, bootstrap=0, starts=2)
    assert isinstance(fit, Fit)
    with pytest.raises(InputError, match="rest on another fit"):
        prediction.predict(other, answers, grid)
    asked = answers["light"]
    question = replace(asked.question, train_flops=2 * asked.question.train_flops)
    recommendation = replace(asked.recommendation, question=question)
    with pytest.raises(InputError, match="train_flops"):
        prediction.predict(fit, {**answers, "light": replace(asked, recommendation=recommendation)}, grid)


def test_the_grid_of_the_check_is_one_that_sweep_run_takes(predicted):
    document = yaml.safe_load((predicted / "check.yaml").read_text())
    assert document["study"] == "planted-check"
    assert document["bench"]["batch"] == [8]
    assert document["bench"]["context"] == [64, 96]
    assert document["data"] == yaml.safe_load((predicted / "grid.yaml").read_text())["data"]


def test_two_models_of_each_expert_count_have_the_loss_of_the_dense_one(planted):
    fit, question = load_fit(str(planted / "fit.json")), read_answer(planted / "answer-light.json").question
    speeds = with_speed(SERVICE, "h100")[1]
    loss, rows = equal_loss(fit, question, speeds)
    assert [row.n_experts for row in rows] == list(fit.experts)
    for row in rows:
        for priced in (row.compute_optimal, row.over_trained):
            columns = {"n_active": priced.n_active, "tokens": priced.tokens, "n_experts": row.n_experts}
            assert float(fit.loss(columns)) == pytest.approx(loss, rel=1e-6)  # to which tokens are solved
            assert priced.usd_interval[0] < priced.usd_interval[1]
        assert row.over_trained.train_ratio <= 1 + 1e-6  # of the budget
        # Fewer parameters on more tokens, and so cheaper to serve; dense models are the reference itself.
        assert row.over_trained.n_active <= row.compute_optimal.n_active * 1.001
        assert row.over_trained.usd <= row.compute_optimal.usd * 1.001
    assert rows[0].compute_optimal.train_ratio == pytest.approx(1.0, rel=1e-3)  # the best dense model of the budget
    ratios = [row.compute_optimal.train_ratio for row in rows]
    assert ratios == sorted(ratios, reverse=True)  # the planted law gains with every expert
