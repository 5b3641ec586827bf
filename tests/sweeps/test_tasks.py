"""A task that is not the language model, through grid, plan, run, kill and resume, status and tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import toy_task
from places import HERE, ROOT, Place, sweep
from toy_task import Toy

from analysis.tables.study import Study
from scaling import parts
from scaling.cli.show.page import print_page
from scaling.cli.show.sweep import task_plan_page
from scaling.errors import InputError, WorkError
from scaling.parts import merged, study_table
from scaling.tasks import TASKS
from scaling.tasks.cell import TaskCell
from sweeps import grid
from sweeps.plan.task import task_plan
from sweeps.status import opened, study_status
from sweeps.store import Store
from sweeps.worker import CELL_FUNCTIONS

HEAD = "study: coins\ntask: toy\n"
SMALL = HEAD + "settings: {replicates: 20}\ngrid: {n_experts: [1, 4], samples: [100, 1K, 10K], seed: [0]}\n"


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS.own, "toy", toy_task.TASK)


def parse(text: str) -> grid.Grid:
    return grid.parse(text, Path("folder/g.yaml"))


def settings(cell: object) -> Toy:
    assert isinstance(cell, TaskCell)
    assert isinstance(cell.settings, Toy)
    return cell.settings


def write(place: Place, text: str) -> Path:
    path = place.folder / "grid.yaml"
    path.write_text(text)
    return path


# -------------------------------------------------------------------------------------------------------------- grid


def test_axes_are_the_settings_the_seed_and_the_budget_by_its_name() -> None:
    read = parse(
        HEAD + "settings: {spread: 2, replicates: n_experts * 10}\n"
        "grid:\n  - {n_experts: [1, 2], samples: [100, 1e3], where: samples * n_experts > 150}\n"
        "  - {zip: {shape: [uniform, normal], seed: [3, 4]}, samples: 1K}\nresources: {cpus: 2}\n"
    )
    found = [
        (settings(cell).n_experts, settings(cell).shape, settings(cell).replicates, cell.seed, cell.budget)
        for cell in read.cells
        if isinstance(cell, TaskCell)
    ]
    assert found == [
        (1, "normal", 10, 0, 1000), (2, "normal", 20, 0, 100), (2, "normal", 20, 0, 1000),
        (1, "uniform", 10, 3, 1000), (1, "normal", 10, 4, 1000),
    ]  # fmt: skip
    assert all(settings(cell).spread == 2.0 and cell.resources.cpus == 2 for cell in read.cells)
    assert read.corpora == ()
    assert read.left_out[0].count == 1
    again = parse(grid.resolved(read))
    assert again.cells == read.cells


MISTAKES = {
    "an unknown setting": (
        "settings: {n_expert: 4}\ngrid: {samples: 1K}", ["g.yaml:3:", "settings.n_expert", "n_experts"]
    ),
    "a wrong value": (
        "settings: {spread: -1}\ngrid: {samples: 1K}", ["g.yaml:3:", "settings.spread", "-1", "greater than 0"]
    ),
    "a word that is none": ("grid: {shape: [normal, flat], samples: 1K}", ["grid.shape", "'flat'", "normal, uniform"]),
    "no budget": ("grid: {n_experts: [1, 2]}", ["`samples` has no default", "samples: [1K]"]),
    "tokens": ("grid: {tokens: [1K]}", ["grid.tokens: unknown axis", "allowed: n_experts", "samples"]),
    "a section of models": ("model: {n_layers: 2}\ngrid: {samples: 1K}", ["model: unknown key", "allowed: study"]),
    "a shorthand of models": ("grid: {flops: [1e9], samples: 1K}", ["grid.flops: unknown axis"]),
    "a setting in no section": ("spread: 2\ngrid: {samples: 1K}", ["spread: unknown key", "is an axis"]),
    "a name that cannot be read": ("grid: {samples: 1K, n_experts: d_model * 2}", ["no field `d_model`"]),
    "settings that contradict each other": (
        "grid: {shape: uniform, n_experts: 16, samples: 1K}",
        ["impossible cell", "shape=uniform takes at most 8 experts, found n_experts=16"],
    ),
    "half a sample": ("grid: {samples: [0.5]}", ["grid.samples", "whole number"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_with_its_place(mistake: str) -> None:
    text, said = MISTAKES[mistake]
    with pytest.raises(InputError) as caught:
        parse(HEAD + text + "\n")
    for part in said:
        assert part in str(caught.value)


def test_an_unknown_task_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"g.yaml:2:7: task: found 'tyo'; did you mean `toy`; allowed: .*toy"):
        parse("study: a\ntask: tyo\ngrid: {tokens: 1M}\n")


def test_what_is_for_language_models_says_so() -> None:
    read = parse(SMALL)
    with pytest.raises(InputError, match="task of this grid is toy"):
        _ = read.models
    with pytest.raises(InputError, match="language models alone"):
        grid.cell_at(read, {"samples": 10})


# -------------------------------------------------------------------------------------------------------------- plan


def test_a_plan_counts_cells_calls_and_flops() -> None:
    """Six cells of two trunks; FLOPs by hand, samples x experts x replicates."""
    plan = task_plan(parse(SMALL))
    by_hand = 20 * (1 + 4) * (100 + 1000 + 10_000)
    document = plan.to_json()
    assert document["totals"]["train_flops"] == by_hand
    counted = {"cells": 6, "missing": 6, "samples": 22_200, "trunks": 2, "calls": 2}
    assert document["totals"] | counted == document["totals"]
    assert document["task"]["flops_are"] == "counted"
    assert document["task"]["metrics"][1]["better"] == "higher"
    assert [cell.label for cell in plan.cells][:2] == ["n_experts=1 samples=100", "n_experts=1 samples=1000"]
    assert plan.defaults["settings"]["spread"] == 1.0
    assert "replicates" not in plan.defaults["settings"]
    assert plan.lint == ("3 levels of `samples`: whether a slope depends on its window cannot be seen below 4",)
    assert json.loads(json.dumps(document))["defaults"]["settings"]["weights"] == [1, 2]


def test_the_page_of_a_plan_says_what_is_measured_and_which_way_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    print_page(task_plan_page(task_plan(parse(SMALL))), verbose=True)
    page = " ".join(capsys.readouterr().out.split())
    assert "coins: 6 cells, 6 to train" in page
    assert "It measures squared_error, where lower is better, and 2 more metrics. 1.11×10⁶ FLOPs, counted" in page
    assert "score – higher one minus that" in page
    assert "defaults, settings: spread=1.0" in page


def test_a_plan_says_what_a_design_cannot_show() -> None:
    lint = task_plan(parse(HEAD + "settings: {replicates: 1}\ngrid: {samples: 1K, n_experts: [1, 2]}\n")).lint
    assert "one level of `samples` (1000)" in lint[0].replace("1K", "1000")
    assert "one seed per configuration" in lint[1]


# ----------------------------------------------------------------------------------------------------------- running


def test_a_sweep_writes_the_tables_of_its_task(place: Place) -> None:
    summary = sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    assert (summary.ok, summary.left, summary.latency_owed, summary.trained_now) == (6, 0, 0, 6)
    study = Study(place.out)
    runs = study.runs.sort_values(["n_experts", "samples"])
    assert runs["samples"].tolist() == [100, 1000, 10_000] * 2
    assert runs["samples"].dtype == np.int64
    assert "tokens" not in runs
    assert set(runs["task"]) == {"toy"}
    assert set(runs["executor"]) == {"inline"}
    assert set(runs["platform"]) == set(runs["device_kind"]) == {"cpu"}
    assert runs["wall_s"].gt(0).all()
    assert runs["started_at"].notna().all()
    # The mean of n m Gaussians has the mean squared error 1 / (n m), and that of 20 of them a standard error of
    # sqrt(2 / 20) of it: four of these are 1.3 times, and one in 16,000 lies beyond.
    truth = 1.0 / (runs["samples"] * runs["n_experts"])
    assert (runs["squared_error"] / truth - 1).abs().max() < 1.3
    by_hand = [toy_task.error(Toy(replicates=20), 0, replicate, 100) for replicate in range(20)]
    first = study.evals[study.evals["run_id"] == runs["run_id"].iloc[0]]
    assert first.columns.tolist() == ["run_id", "replicate", "metric", "value"]
    assert first[first["metric"] == "squared_error"]["value"].tolist() == by_hand
    assert runs["squared_error"].iloc[0] == pytest.approx(np.mean(by_hand), rel=1e-15)  # sums in one order
    schema = pq.read_schema(next((place.out / "runs").glob("*.parquet")))
    assert schema.field("squared_error").metadata[b"better"] == b"lower"
    assert sweep(write(place, SMALL), place, CELL_FUNCTIONS).trained_now == 0


def test_a_study_grows_and_is_packed_and_its_plan_follows_its_rows(place: Place) -> None:
    sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    larger = write(place, SMALL.replace("10K]", "10K, 20K]"))
    read = grid.load_grid(larger)
    store = Store(place.out)
    _, run_ids = opened(place.out)
    done = {cell: store.survey().cells[run_id] for run_id, cell in run_ids.items()}
    plan = task_plan(read, done)
    assert sum(cell.status == "missing" for cell in plan.cells) == 2
    assert "6 cells of the study" in plan.basis
    assert sweep(larger, place, CELL_FUNCTIONS).trained_now == 2
    packed = place.folder / "packed"
    store.pack(packed)
    for table in ("runs", "evals"):
        one, other = (parts.read_study_table(folder, table).rows for folder in (place.out, packed))
        assert one.sort_by(one.column_names[0]).equals(other.sort_by(other.column_names[0])) or table == "evals"
        assert parts.is_of_other_task(other.schema)
        assert one.schema.names == other.schema.names
    assert len(Study(packed).evals) == len(Study(place.out).evals)
    assert Study(packed).runs["samples"].dtype == np.int64
    assert len(Store(packed).survey().cells) == 8


def test_parts_of_a_task_are_merged_and_read_as_they_were(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    assert not [*(place.out / parts.MERGED).glob("*")]  # six are soon read themselves
    tables: tuple[Any, ...] = ("runs", "evals")
    before = {table: parts.read_study_table(place.out, table).rows for table in tables}
    survey = Store(place.out).survey()
    monkeypatch.setattr(merged, "LEAST", 4)
    Store(place.out).merge()
    assert sorted(path.name.partition("-")[0] for path in (place.out / parts.MERGED).iterdir()) == ["evals", "runs"]
    opened_now = []
    monkeypatch.setattr(study_table, "read_file", lambda path, _: opened_now.append(path))
    for table in tables:
        rows = parts.read_study_table(place.out, table).rows
        assert rows.equals(before[table])
        assert rows.schema.equals(before[table].schema, check_metadata=True)  # units, and which value is better
    assert Store(place.out).survey() == survey
    assert not opened_now


def test_one_cell_that_fails_leaves_the_others_of_its_call(place: Place) -> None:
    summary = sweep(write(place, SMALL.replace("20}", "20, fail_at: 1K}")), place, CELL_FUNCTIONS)
    assert (summary.ok, summary.failed) == (4, {"error": 2})
    assert "no such number of samples" in summary.failures[0]["error"]
    failed = Study(place.out).runs.query("status == 'error'")
    assert failed["samples"].tolist() == [1000, 1000]
    assert failed["squared_error"].isna().all()


def test_a_cell_without_its_evals_is_not_done(place: Place) -> None:
    sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    run_id = next((place.out / "evals").glob("*.parquet"))
    run_id.unlink()
    summary = sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    assert summary.trained_now == 1
    assert summary.ok == 6


def test_a_study_of_a_task_that_is_not_installed_is_an_error_of_its_grid(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    monkeypatch.delitem(TASKS.own, "toy")
    with pytest.raises(InputError, match="task: found 'toy'"):
        opened(place.out)
    assert len(Store(place.out).survey().cells) == 6
    assert len(Study(place.out).runs) == 6


def test_a_task_that_yields_another_cell_is_caught(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(cells: Sequence[TaskCell], *_: Any) -> Iterator[Any]:
        for made in toy_task.train_cells(cells, None, _[1]):
            made.run["run_id"] = "0" * 16
            yield made

    monkeypatch.setattr(toy_task, "train_cells", foreign)
    with pytest.raises(WorkError, match="every cell failed"):
        sweep(write(place, SMALL), place, CELL_FUNCTIONS)


# -------------------------------------------------------------------------- as another distribution, in its own process


def installed(folder: Path) -> Path:
    """A folder with an installed distribution that brings the task by an entry point."""
    info = folder / "site" / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scaling.tasks]\ntoy = toy_task:TASK\n")
    return info.parent


def environment(place: Place, site: Path, seconds: float) -> dict[str, str]:
    """Without settings of JAX, which a sweep would try."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    path = os.pathsep.join(map(str, (ROOT, HERE, site)))
    return plain | {"PYTHONPATH": path, "TOY_SECONDS": str(seconds), "TOY_LOG": str(place.log)}


def scaling(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "scaling.cli.main", *arguments]


def run_killed_and_resumed(place: Place, executor: str, kill_after: int, seconds: float) -> None:
    """Run until so many cells have rows, kill the driver and all that it started, and run again."""
    site, path = installed(place.folder), write(place, SMALL)
    command = scaling("sweep", "run", str(path), "--out", str(place.out), "--executor", executor, "--json")
    slow = environment(place, site, seconds)
    with subprocess.Popen(
        command, env=slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as driver:
        deadline = time.monotonic() + 120
        while len([*(place.out / "runs").glob("*.parquet")]) < kill_after and time.monotonic() < deadline:
            assert driver.poll() is None, (driver.stderr.read() if driver.stderr else b"").decode()
            time.sleep(0.02)
        os.killpg(driver.pid, signal.SIGKILL)
    done = {file.stem for file in (place.out / "runs").glob("*.parquet")}
    before = place.log.read_text().split()
    assert kill_after <= len(done) < 6
    ended = subprocess.run(command, env=environment(place, site, 0), capture_output=True, text=True, check=True)
    summary = json.loads(ended.stdout)
    assert (summary["ok"], summary["left"], summary["trained_now"]) == (6, 0, 6 - len(done))
    again = place.log.read_text().split()[len(before) :]
    assert len(again) == len({*again}) == 6 - len(done)  # each missing cell once
    assert not {*again} & done
    told = subprocess.run(
        scaling("sweep", "status", str(place.out), "--json"),
        env=environment(place, site, 0), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(told.stdout)["ok"] == 6


@pytest.mark.long
def test_killed_and_run_again_it_trains_the_missing_cells_once(place: Place) -> None:
    run_killed_and_resumed(place, "inline", 2, 0.3)
    reference = place.folder / "reference"
    sweep(write(place, SMALL), Place(place.folder, reference, place.log, place.mercy), CELL_FUNCTIONS)
    one, other = (Study(folder).runs.set_index("run_id").sort_index() for folder in (place.out, reference))
    kept = [name for name in one if name not in ("started_at", "wall_s")]
    assert one[kept].equals(other[kept])  # bit for bit


@pytest.mark.slow
def test_the_same_under_ray(place: Place) -> None:
    run_killed_and_resumed(place, "ray", 2, 1.0)


def test_status_counts_the_cells_of_a_task(place: Place) -> None:
    sweep(write(place, SMALL), place, CELL_FUNCTIONS)
    store = Store(place.out)
    read, run_ids = opened(place.out)
    for run_id in [*run_ids][:2]:
        store.path("runs", run_id).unlink()
    summary = study_status(store, read, run_ids)
    assert (summary.ok, summary.left, summary.latency_owed) == (4, 2, 0)
