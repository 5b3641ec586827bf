"""Laws of another task's metric: its budget stands for tokens, and a planted power law is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_task
from toy_study import write_study

from analysis.fitting.fit import fit
from analysis.laws import law_named
from analysis.tables.runs import read_runs
from analysis.tables.tasks import other_task, with_target
from scaling.errors import InputError
from scaling.tasks import TASKS


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS.own, "toy", toy_task.TASK)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "coins")


def test_a_metric_is_fitted_against_the_budget_of_its_task(study: Path) -> None:
    """The squared error of the mean of n samples of m Gaussians is 1 / (n m): exponents 1 and 1, and no floor.

    40 data sets a cell have a relative error of sqrt(2 / 40) = .22; ln m and ln n have a standard deviation of 1.13 and
    1.26, so 24 cells know each exponent within .22 / (1.13 sqrt(24)) = .04: four of these are .16.
    """
    mapping = with_target(study, {"n_active": "n_experts"}, "squared_error")
    assert mapping == {"tokens": "samples", "loss_val": "squared_error", "n_active": "n_experts"}
    table = read_runs(study, mapping, law=law_named("hoffmann"))
    assert len(table) == 24
    logs = np.log([table.column(name) for name in ("tokens", "n_active", "loss_val")])
    design = np.stack([np.ones(24), logs[0], logs[1]], axis=1)
    slopes = np.linalg.lstsq(design, logs[2], rcond=None)[0]
    assert slopes[1:] == pytest.approx([-1.0, -1.0], abs=0.16)
    assert fit(table, law_named("hoffmann"), n_starts=4).n_starts == 4


def test_what_the_mapping_says_itself_stands(study: Path) -> None:
    assert with_target(study, {"tokens": "replicates"}, "squared_error")["tokens"] == "replicates"
    assert with_target(study, {"tokens": "samples"}, None) == {"tokens": "samples"}
    assert with_target("table.csv", {}, "error") == {"loss_val": "error"}


@pytest.mark.parametrize(
    ("mapping", "target", "said"),
    [
        ({}, "score", "better when higher.*1 - score"),
        ({}, "speed", "task toy has no such metric; it has squared_error, score"),
        ({"loss_val": "score"}, "squared_error", "give one of them"),
    ],
)
def test_a_target_that_no_law_has_is_refused(study: Path, mapping: dict[str, str], target: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_target(study, mapping, target)


def test_a_study_of_another_task_says_what_to_name(study: Path) -> None:
    with pytest.raises(InputError, match=r"loss_val.*the task toy: `target` names the metric to fit, one of squared"):
        read_runs(study)


def test_runs_of_several_tasks_are_of_none() -> None:
    runs = pd.DataFrame({"task": ["lm", "toy", None]})
    with pytest.raises(InputError, match="several tasks"):
        other_task(runs, "a table")
    assert other_task(runs[:1], "a table") is None
    assert other_task(runs[1:], "a table") == "toy"
    assert other_task(pd.DataFrame({"x": [1]}), "a table") is None


def test_a_column_task_of_other_peoples_tables_means_nothing(study: Path) -> None:
    """A table with a column of that name is read as it was, whatever stands in it."""
    runs = pd.DataFrame({"n_active": [1e6, 2e6, 4e6], "tokens": [1e9] * 3, "loss_val": [3.0, 2.9, 2.8]})
    plain = read_runs(runs)
    named = read_runs(runs.assign(task=["mmlu", "toy", "arc"]))
    assert (len(named), named.doubts) == (len(plain), plain.doubts)
    assert with_target(runs.assign(task="mmlu"), {}, "accuracy") == {"loss_val": "accuracy"}


def test_units_of_language_models_are_not_looked_for_in_another_task(study: Path) -> None:
    table = read_runs(study, with_target(study, {"n_active": "n_experts"}, "squared_error"), law=law_named("hoffmann"))
    assert table.doubts == ()
