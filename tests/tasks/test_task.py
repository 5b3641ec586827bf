"""What a task declares, the columns that follow, and the rows of its cells."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import numpy as np
import pyarrow as pa
import pytest
import toy_task
from pydantic import Field
from toy_task import Toy

from scaling.config.run import RunConfig
from scaling.schema import EVERY_TASK, OTHER_TASK, RUNS, arrow_schema, to_arrow
from scaling.tasks import TASKS
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.costs import budget_of, cell_of, device_bytes, per_step, shape_of, shared_budget, train_flops
from scaling.tasks.rows import code_version, describe, result
from scaling.tasks.task import Budget, Metric, Task


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS.own, "toy", toy_task.TASK)


def cell(samples: int = 1000, seed: int = 0, **settings: object) -> TaskCell:
    return TaskCell(task="toy", settings=Toy.model_validate(settings), budget=samples, seed=seed)


# ------------------------------------------------------------------------------------------------------ declarations


def test_every_registered_task_says_what_it_is() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert task.title
        assert task.metrics[0] is task.primary
        assert set(task.columns("runs")) >= {*EVERY_TASK, task.budget.name, *(metric.name for metric in task.metrics)}


def test_columns_are_settings_budget_and_metrics_in_their_types_and_units() -> None:
    schema = arrow_schema("runs", toy_task.TASK.columns("runs"))
    types = {name: schema.field(name).type for name in Toy.model_fields}
    assert types == {
        "n_experts": pa.int64(), "spread": pa.float64(), "shape": pa.string(), "replicates": pa.int64(),
        "centred": pa.bool_(), "fail_at": pa.int64(), "weights": pa.string(),
    }  # fmt: skip
    assert schema.field("samples").type == pa.int64()
    assert schema.field("spread").metadata[b"unit"] == b"m"
    assert schema.field("squared_error").metadata == {
        b"unit": b"m^2", b"meaning": b"squared error of the mean", b"better": b"lower"
    }  # fmt: skip
    assert schema.field("score").metadata[b"better"] == b"higher"
    assert schema.field("squared_error_se").metadata[b"unit"] == b"m^2"
    assert OTHER_TASK.encode() in schema.metadata
    assert "tokens" not in schema.names
    assert OTHER_TASK.encode() not in arrow_schema("runs").metadata


class NoDefault(Settings):
    order: Annotated[int, Field(description="an order")]


class NoMeaning(Settings):
    order: int = 1


class Taken(Settings):
    seed: Annotated[int, Field(description="a seed")] = 1


class OtherType(Settings):
    n_experts: Annotated[str, Field(description="names of experts")] = "many"


class Twice(Settings):
    samples: Annotated[int, Field(description="samples, again")] = 1


class Error(Settings):
    score_se: Annotated[float, Field(description="not the standard error of the score")] = 1.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (NoDefault, "`order` needs a default and a description"),
        (NoMeaning, "`order` needs a default and a description"),
        (Taken, "`seed` is no name"),
        (OtherType, "column `n_experts` holds int64 in the table runs, and string here"),
        (Twice, "`samples` names two columns"),
        (Error, "`score_se` names two columns"),
    ],
)
def test_what_no_table_can_have_is_refused_when_it_is_declared(settings: type[Settings], said: str) -> None:
    with pytest.raises(ValueError, match=r"^task toy: ") as caught:
        replace(toy_task.TASK, settings=settings)
    assert said in str(caught.value)


def test_a_task_needs_a_metric_and_a_budget_of_a_name_that_is_free() -> None:
    with pytest.raises(ValueError, match="no metric"):
        replace(toy_task.TASK, metrics=())
    with pytest.raises(ValueError, match="`steps` is no name"):
        replace(toy_task.TASK, budget=Budget("steps", "steps", "n"))
    with pytest.raises(ValueError, match="`wall_s` is no name"):
        replace(toy_task.TASK, metrics=(Metric("wall_s", "s", "time"),))


def test_the_language_model_is_a_task_with_the_tables_it_had() -> None:
    task = TASKS["lm"]
    assert task.columns("runs") is RUNS
    assert (task.primary.name, task.budget.name, task.flops_are) == ("loss_val", "tokens", "counted")
    for metric in task.metrics:
        assert (RUNS[metric.name].unit, RUNS[metric.name].meaning) == (metric.unit, metric.meaning)
    config = RunConfig()
    assert train_flops(config) == describe(config, "")["train_flops"]
    assert budget_of(config) == describe(config, "")["tokens"]
    assert shared_budget(config) == (config.steps - config.cooldown_steps) * config.train.batch_tokens
    assert per_step(config) == config.train.batch_tokens
    assert shape_of(config) == config.shape_id()
    assert cell_of(config.model_dump(mode="json")) == config


# ------------------------------------------------------------------------------------------------------------- cells


def test_a_cell_is_known_by_what_shapes_its_result() -> None:
    """Study and resources do not; budget, seed and every setting do, and the shorter hashes leave out what they say."""
    first = cell()
    assert first.run_id() == first.model_copy(update={"study": "other"}).run_id()
    assert len({one.run_id() for one in (first, cell(2000), cell(seed=1), cell(spread=2))}) == 4
    assert first.trunk_id() == cell(2000).trunk_id() != cell(seed=1).trunk_id()
    assert first.configuration() == cell(2000, seed=3).configuration() != cell(spread=2).configuration()
    assert cell_of(first.model_dump(mode="json")) == first
    assert hash(cell_of(first.model_dump(mode="json"))) == hash(first)


def test_a_task_without_latency_and_memory_says_so() -> None:
    assert shape_of(cell()) == ""
    assert device_bytes(cell()) == 0.0
    assert (shared_budget(cell()), per_step(cell())) == (0, 1)


def test_code_versions_are_of_the_sources_that_shape_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_version("toy") != code_version()
    assert code_version("toy") == describe(cell(), "")["code_version"]
    monkeypatch.setitem(TASKS.own, "other", replace(toy_task.TASK, name="other", code=("no_such_module",)))
    with pytest.raises(ImportError, match="no_such_module"):
        code_version("other")


# -------------------------------------------------------------------------------------------------------------- rows


def test_replicates_become_rows_their_mean_and_its_standard_error() -> None:
    """By hand: the mean of 1, 2, 6 is 3, their sd sqrt(7), its error sqrt(7/3)."""
    made = result(cell(replicates=3), {"squared_error": [1.0, 2.0, 6.0], "share": 0.25})
    row = made.run
    assert (row["status"], row["error"], row["samples"], row["spread"]) == ("ok", "", 1000, 1.0)
    assert row["squared_error"] == 3.0
    assert row["squared_error_se"] == pytest.approx((7 / 3) ** 0.5, rel=1e-15)
    assert (row["share"], row["share_se"]) == (0.25, None)
    assert json.loads(row["weights"]) == [1, 2]
    assert json.loads(row["config"])["settings"]["weights"] == [1, 2]
    assert made.evals == [
        {"replicate": number, "metric": "squared_error", "value": value} for number, value in enumerate([1.0, 2.0, 6.0])
    ]
    to_arrow("runs", [row], toy_task.TASK.columns("runs"))


def test_a_replicate_without_a_value_stays_in_the_rows_and_out_of_the_mean() -> None:
    made = result(cell(replicates=3), {"squared_error": [1.0, np.nan, 3.0]})
    assert made.run["squared_error"] == 2.0
    assert np.isnan(made.evals[1]["value"])
    lost = result(cell(replicates=2), {"squared_error": [np.nan, np.inf], "share": 1.0})
    assert (lost.run["status"], lost.evals) == ("diverged", [])
    assert lost.run["share"] is None  # a run that failed carries no metric
    assert "squared_error has no finite value" in lost.run["error"]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"squared_error": [1.0], "speed": 1.0}, "no metric speed"),
        ({"share": 1.0}, "primary metric squared_error is missing"),
        ({"squared_error": [1.0, 2.0], "score": [1.0]}, r"squared_error \(2,\), score \(1,\)"),
        ({"squared_error": [[1.0]]}, "one value a replicate"),
        ({"squared_error": 1.0}, "writes evals"),
    ],
)
def test_metrics_that_the_task_does_not_declare_so_are_refused(metrics: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        result(cell(), metrics)  # type: ignore[arg-type]


def test_a_task_without_replicates_writes_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: Task = replace(toy_task.TASK, name="alone", tables=())
    monkeypatch.setitem(TASKS.own, "alone", alone)
    made = result(TaskCell(task="alone", settings=Toy(), budget=10), {"squared_error": 1.0})
    assert (made.run["squared_error"], made.evals) == (1.0, [])
