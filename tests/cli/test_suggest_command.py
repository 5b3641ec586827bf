"""`scaling sweep suggest` from outside: the grid it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic import TRUTH, cells, write_study
from typer.testing import CliRunner

from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import load_fit
from analysis.fitting.studied import Studied, plausible_ratios
from analysis.laws import JOINT_MOE
from analysis.tables.runs import read_runs
from scaling.cli.main import app
from scaling.config.counts import train_flops
from scaling.errors import InputError
from scaling.values import FIT, plain
from sweeps import new_cells
from sweeps.calls import own_flops
from sweeps.grid import load_grid, parse

GRID = """study: synthetic
grid:
  - {n_experts: [1, 4, 8, 16], d_model: [32, 48, 64, 96], tokens: [0.5M, 1M, 2M, 4M], seed: [0], top_k: [1]}
  - {n_experts: [1, 16], d_model: [32], tokens: [1M], seed: [1], top_k: [1]}
train: {warmup_tokens: 16K}
bench: {batch: [1, 4, 16, 64], context: [128]}
"""
INSIDE = {"omega": 0.62}  # puts the best E within the grid
ASKED = ("--train-flops", "3e13")


def call(*words: object) -> Any:
    return CliRunner().invoke(app, ["sweep", "suggest", *map(str, words)])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 66 cells whose fit disagrees with itself about the best E."""
    folder = write_study(tmp_path_factory.mktemp("suggest") / "study", configs=cells())
    (folder / "grid.yaml").write_text(GRID)
    found = fit(read_runs(folder, law=JOINT_MOE), JOINT_MOE, pin=TRUTH | INSIDE)
    chance = np.random.default_rng(0)
    draws = {name: found.params[name] + 0.03 * chance.standard_normal(150) for name in ("delta", "omega")}
    found = replace(
        found,
        draws={name: tuple(values.tolist()) for name, values in draws.items()},
        pinned={name: pin for name, pin in found.pinned.items() if name not in draws},
        rmse_log=0.004,
    )
    save(found, folder)
    return folder


def save(found: Fit, folder: Path) -> Path:
    (folder / "fits").mkdir(exist_ok=True)
    path = folder / "fits" / "joint.json"
    path.write_text(json.dumps(FIT.document(found)))
    return path


@pytest.fixture(scope="module")
def suggested(study: Path) -> tuple[dict[str, Any], Path]:
    out = study.parent / "next.yaml"
    ended = call(study, "--out", out, *ASKED, "--json")
    assert ended.exit_code == 0, ended.stderr
    return json.loads(ended.stdout), out


def test_the_grid_written_is_a_grid_of_new_cells_alone(study: Path, suggested: tuple[dict[str, Any], Path]) -> None:
    suggestion, out = suggested
    grid, old = load_grid(out), load_grid(study / "grid.yaml")
    suggested_cells = {(c["n_experts"], c["d_model"], c["tokens"], c["seed"]) for c in suggestion["cells"]}
    assert {(c.model.n_experts, c.model.d_model, c.tokens, c.seed) for c in grid.cells} == suggested_cells
    assert len(grid.cells) == len(suggestion["cells"])
    assert not {cell.run_id("") for cell in grid.cells} & {cell.run_id("") for cell in old.cells}
    runs = pd.concat([pd.read_parquet(path) for path in (study / "runs").glob("*.parquet")])
    ran = set(zip(runs["n_experts"], runs["d_model"], runs["seed"], strict=True))
    assert (
        not {(e, d, seed) for e, d, _, seed in suggested_cells} & ran
    )  # a seed of its own: no noise shared with old runs
    assert grid.study == old.study
    for section in ("data", "train", "bench", "resources"):
        assert getattr(grid.cells[0], section) == getattr(old.cells[0], section)
    assert all(cell.model.d_model % cell.model.d_head == 0 for cell in grid.cells)


def test_what_is_said_is_what_the_cells_cost_and_do(study: Path, suggested: tuple[dict[str, Any], Path]) -> None:
    suggestion, out = suggested
    assert suggestion["train_flops"] == pytest.approx(own_flops(load_grid(out).cells), rel=1e-9)
    table = read_runs(study)
    spent = table.column("train_flops").sum()
    assert suggestion["share_of_study"] == pytest.approx(suggestion["train_flops"] / spent)
    assert suggestion["budget"] == max(table.column("train_flops").max(), 0.1 * spent)
    assert suggestion["budget_because"] in ("the largest run so far", "10% of the study's cost")
    assert suggestion["train_flops"] <= suggestion["budget"]
    assert 0 <= suggestion["regret_after"] < suggestion["regret_before"]
    assert suggestion["method"]
    answer = recommend(load_fit(str(study / "fits" / "joint.json")), Question(train_flops=3e13))
    assert suggestion["recommended_experts"] == answer.recommendation.n_experts
    assert suggestion["undecided_because"] == list(answer.undecided_because)
    # every E here can answer, so it is the least of the expected regrets
    regrets = [choice.regret for choice in (answer.recommendation, *answer.alternatives)]
    assert suggestion["regret_before"] == pytest.approx(min(regrets), rel=1e-6)


def test_the_budget_asked_for_is_kept_and_the_words_say_the_same(study: Path, tmp_path: Path) -> None:
    table = read_runs(study)
    budget = float(table.column("train_flops").max()) / 3
    ended = call(study, "--out", tmp_path / "g.yaml", *ASKED, "--flops", budget)
    assert ended.exit_code == 0, ended.stderr
    assert own_flops(load_grid(tmp_path / "g.yaml").cells) <= budget
    for part in (
        "expected regret",
        "of what the study cost",
        "(as requested)",
        "takes most off the expected regret per FLOP",
    ):
        assert part in " ".join(ended.stdout.split())
    assert (tmp_path / "g.yaml").read_text().startswith("# ")


def test_the_question_is_that_of_the_recommendation_in_the_folder(study: Path, tmp_path: Path, suggested: Any) -> None:
    answer = recommend(load_fit(str(study / "fits" / "joint.json")), Question(train_flops=3e13))
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(plain(answer)))
    ended = call(study, "--out", tmp_path / "g.yaml", "--question", path, "--json")
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout) | {"grid": ""} == suggested[0] | {"grid": ""}


def test_a_grid_and_a_fit_do_without_a_folder(study: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GRID)
    fitted = study / "fits" / "joint.json"
    ended = call(tmp_path / "mine.yaml", "--fit", fitted, "--out", tmp_path / "g.yaml", *ASKED, "--json")
    assert ended.exit_code == 0, ended.stderr
    old = load_grid(tmp_path / "mine.yaml")
    found = load_grid(tmp_path / "g.yaml")
    assert not {cell.run_id("") for cell in found.cells} & {cell.run_id("") for cell in old.cells}
    assert json.loads(ended.stdout)["share_of_study"] == pytest.approx(own_flops(found.cells) / own_flops(old.cells))


def test_cells_have_tokens_per_parameter_that_are_plausible_beside_those_of_the_runs(
    study: Path, tmp_path: Path
) -> None:
    known = load_fit(str(study / "fits" / "joint.json"))
    narrow = dict.fromkeys(known.experts, Studied((20.0, 60.0)))
    for studied, (low, high) in ((narrow, (20 / 3, 180.0)), ({}, plausible_ratios(known))):  # an old fit, by its table
        path = tmp_path / "fit.json"
        path.write_text(json.dumps(FIT.document(replace(known, studied=studied))))
        ended = call(study, "--fit", path, "--out", tmp_path / "g.yaml", *ASKED, "--json")
        assert ended.exit_code == 0, ended.stderr
        ratios = [cell["tokens"] / cell["n_active"] for cell in json.loads(ended.stdout)["cells"]]
        assert low <= min(ratios) <= max(ratios) <= high
    ends = dict.fromkeys(known.experts, Studied((2000.0, 2001.0)))
    path.write_text(json.dumps(FIT.document(replace(known, studied=ends))))
    refused("tokens per parameter", study, "--fit", path, "--out", tmp_path / "h.yaml", *ASKED)


def refused(message: str, *words: object) -> None:
    ended = call(*words)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_refused_is_one_message_and_status_2(study: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "g.yaml")
    refused("give --question", study, *out)  # no recommendation in the folder
    refused("ask", study, *out, "--question", tmp_path / "x.json", *ASKED)
    refused("need --train-flops", study, *out, "--memory-gb", 1)
    refused("not a recommendation", study, *out, "--question", study / "grid.yaml")
    refused("'--flops': must be a positive number", study, *out, *ASKED, "--flops", 0)
    refused("give a larger --flops", study, *out, *ASKED, "--flops", 10)
    drawless = tmp_path / "fit.json"
    drawless.write_text(json.dumps(FIT.document(replace(load_fit(str(study / "fits" / "joint.json")), draws={}))))
    refused("has no draws", study, *out, *ASKED, "--fit", drawless)
    refused("give --fit;", tmp_path, *out, *ASKED)
    assert not (tmp_path / "g.yaml").exists()


# -------------------------------------------------------------------------------------------------- sweeps.new_cells


def grid_of(text: str) -> Any:
    return parse("study: s\n" + text, Path("g.yaml"))


def test_new_cells_have_widths_of_whole_heads_budgets_on_a_ladder_and_seeds_of_their_own() -> None:
    grid = grid_of("grid: {n_experts: [1, 4], d_model: [32, 64], tokens: [0.5M, 1.5M], seed: [0, 2]}\n")
    known = new_cells.studied(grid)
    found = new_cells.new_cells(grid, known, (1, 4, 8))
    assert sorted({cell.model.d_model for cell in found}) == [32, 48, 64, 96, 128]  # 45 -> 48, 1.5 and 2 times 64
    assert sorted({cell.tokens for cell in found}) == [500_000, 1_000_000, 1_500_000, 2_000_000, 4_000_000]
    assert {cell.seed for cell in found if cell.model.d_model == 32 and cell.model.n_experts == 4} == {3}
    assert {cell.seed for cell in found if cell.model.n_experts == 8} == {0}
    assert len({cell.run_id("") for cell in found}) == len(found)
    # an earlier round, of which the grid says nothing any more
    again = new_cells.studied(grid, [(4, 48, 8_000_000, 5)])
    assert again.free_seed(4, 48) == 6
    assert 16_000_000 in new_cells.budgets(again)


def test_impossible_cells_are_left_out_and_other_axes_follow_the_width() -> None:
    grid = grid_of(
        "grid:\n  - {n_experts: [4], d_model: [32], n_layers: [2], tokens: [1M]}\n"
        "  - {n_experts: [4], d_model: [64], n_layers: [4], tokens: [1M]}\nmodel: {top_k: 2, router: topk}\n"
    )
    found = new_cells.new_cells(grid, new_cells.studied(grid), (1, 4))
    assert {(cell.model.d_model, cell.model.n_layers) for cell in found} == {(32, 2), (64, 4)}
    assert {cell.model.n_experts for cell in new_cells.new_cells(grid, new_cells.studied(grid), (0, 4))} == {4}
    written = yaml.safe_load(new_cells.as_grid(grid, found, Path("h.yaml"), "two words"))
    assert all({"n_layers", "d_model"} <= set(block) for block in written["grid"])


def test_an_axis_with_several_values_at_one_width_is_refused() -> None:
    grid = grid_of("grid: {n_experts: [4], tokens: [1M], lr: [0.001, 0.002]}\n")
    with pytest.raises(InputError, match="`lr` takes several values at d_model=64"):
        new_cells.studied(grid)


def test_cells_come_back_from_the_grid_that_they_are_written_to() -> None:
    grid = grid_of("grid: {n_experts: [1, 4], d_model: [32, 64], tokens: [0.5M, 1.5M]}\n")
    cells_new = new_cells.new_cells(grid, new_cells.studied(grid), (1, 4, 8))[::3]
    text = new_cells.as_grid(grid, cells_new, Path("h.yaml"), "one\ntwo")
    assert text.startswith("# one\n# two\n")
    assert {cell.run_id("") for cell in parse(text, Path("h.yaml")).cells} == {c.run_id("") for c in cells_new}
    assert sum(map(train_flops, cells_new)) > 0
