"""`import scaling`: the Python of the README as printed, what values show of themselves, laws made in Python."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import cells, planted_loss, write_study

import scaling
from analysis.fitting.fit import fit as fit_law
from analysis.fitting.published import PUBLISHED
from analysis.laws import LAWS
from analysis.laws.autodiff import log_sum_exp
from analysis.tables.runs import read_runs
from scaling.columns import LOSS
from scaling.serving.published_training import assumed_training_speed, constant_training_speed

ROOT = Path(__file__).parents[1]
RENAMED = {"n_active": "params", "tokens": "D", "n_experts": "E", "loss_val": "val_loss"}
QUESTION: dict[str, Any] = {"train_flops": 1e14, "serve_tokens": 1e10, "n_experts": (1, 8)}
MODELS = pd.DataFrame({"n_active": [5e4, 1e9], "tokens": [1e6, 2e10], "n_experts": [4, 8]}, index=["small", "large"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("face") / "study")


@pytest.fixture(scope="module")
def frame(folder: Path) -> pd.DataFrame:
    """The runs of the study as somebody else's DataFrame: other names, an index of its own."""
    runs = scaling.study(folder).runs.query("status == 'ok'").rename(columns=RENAMED)
    return runs[[*RENAMED.values(), "n_total", "d_model", "n_layers", "top_k", "trunk_id", "seed"]].set_index(
        runs["run_id"].to_numpy()
    )


@pytest.fixture(scope="module", params=["a study", "a frame"])
def runs(request: pytest.FixtureRequest, folder: Path, frame: pd.DataFrame) -> scaling.RunTable:
    return scaling.load(folder) if request.param == "a study" else scaling.load(frame, map=RENAMED)


@pytest.fixture(scope="module")
def fitted(runs: scaling.RunTable) -> scaling.Fit:
    return scaling.fit(runs, law="joint-moe", bootstrap=24)


@pytest.fixture(scope="module")
def answer(fitted: scaling.Fit) -> scaling.Answer:
    return scaling.recommend(fitted, **QUESTION, device="h100", what_if=False)


# ------------------------------------------------------------------------------------------------- the path as printed


def test_a_fit_of_a_study_and_of_a_renamed_frame_find_what_was_planted(fitted: scaling.Fit) -> None:
    predicted = fitted.predict(MODELS)
    assert list(predicted.index) == ["small", "large"]
    truth = planted_loss(5e4, 1e6, 4)
    assert predicted.loc["small", "loss"] == pytest.approx(truth, rel=0.01)
    small = predicted.loc["small"]
    assert small["run_low"] <= small["loss_low"] < small["loss"] < small["loss_high"] <= small["run_high"]
    assert list(predicted["outside"]) == ["", "n_active, tokens"]


def test_a_renamed_frame_gives_the_fit_of_the_study(folder: Path, frame: pd.DataFrame) -> None:
    """The same rows in the same order: the same numbers, to the last digit; and so does a table read for the law."""
    law = scaling.law("joint-moe")
    fits = [
        scaling.fit(scaling.load(folder), law, bootstrap=0),
        scaling.fit(scaling.load(frame, map=RENAMED), "joint-moe", bootstrap=0),
        fit_law(read_runs(folder, law=law), law),
    ]
    assert fits[0].params == fits[1].params == fits[2].params
    assert fits[0].n_runs == len(cells()) - 1


def test_the_answer_has_a_table_and_a_figure(answer: scaling.Answer) -> None:
    table = answer.table()
    assert table["n_experts"].iloc[0] == answer.best.n_experts
    assert set(table["n_experts"]) == {choice.n_experts for choice in answer.choices}
    assert table["cost_total"].iloc[0] == answer.best.cost.total
    figure = answer.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it without a backend
    offer, sure = figure.axes
    assert {float(line.get_ydata()[0]) for line in offer.lines if line.get_marker() == "*"} == {answer.best.loss}
    chances = [*answer.recommendation.probability_best.values()]
    assert [bar.get_height() / 100 for bar in sure.patches] == pytest.approx(chances)
    assert answer.question.device == "h100"


def test_the_answer_is_reported(answer: scaling.Answer, tmp_path: Path) -> None:
    scaling.report(answer, tmp_path / "plan.pdf")
    assert (tmp_path / "plan.pdf").read_bytes().startswith(b"%PDF")


def test_an_answer_from_a_file_is_reported_with_its_fit(answer: scaling.Answer, tmp_path: Path) -> None:
    scaling.write(answer, tmp_path / "answer.json")
    with pytest.raises(scaling.InputError, match="`fit`"):
        scaling.report(scaling.read_answer(tmp_path / "answer.json"), tmp_path / "plan.pdf")


def test_the_docstring_shows_the_names_that_there_are() -> None:
    named = set(re.findall(r"scaling\.([a-z_]+)\(", scaling.__doc__ or ""))
    assert {"load", "fit", "recommend", "report", "study"} == named
    assert named <= {*scaling.__all__}


def test_files_give_back_the_values(fitted: scaling.Fit, answer: scaling.Answer, tmp_path: Path) -> None:
    scaling.write(fitted, tmp_path / "fit.json")
    assert scaling.read_fit(tmp_path / "fit.json").draws == fitted.draws
    scaling.write(answer, tmp_path / "answer.json")
    read = scaling.read_answer(tmp_path / "answer.json")
    assert read.recommendation == answer.recommendation
    assert read.rests_on(fitted)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_reads_as_its_frame(frame: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"runs.{ending}"
    plain = frame.reset_index(drop=True)
    if ending == "csv":
        plain.to_csv(path, index=False)
    elif ending == "parquet":
        plain.to_parquet(path)
    else:
        plain.to_json(path, orient="records", lines=True, double_precision=15)
    law, where = "hoffmann", "n_experts == 4"
    of_file, of_frame = (scaling.load(source, map=RENAMED, where=where, law=law) for source in (path, frame))
    np.testing.assert_allclose(of_file.column(LOSS), of_frame.column(LOSS), rtol=1e-12)
    assert set(of_file.column("n_experts")) == {4}


def test_a_frame_that_cannot_be_read_is_named(frame: pd.DataFrame) -> None:
    with pytest.raises(scaling.InputError, match="DataFrame: the column loss_val is missing"):
        scaling.load(frame)
    with pytest.raises(scaling.InputError, match="two columns are called 'params'"):
        scaling.load(pd.concat([frame, frame["params"]], axis=1), map=RENAMED)
    runs = scaling.load(frame.assign(params=[np.nan, -1.0, *frame["params"].iloc[2:]]), map=RENAMED)
    usable = runs.for_law(scaling.law("hoffmann"))
    assert len(usable) == len(runs) - 2
    assert dict(usable.dropped) == {"n_active missing": 1, "n_active not positive": 1}


def test_a_prediction_names_what_it_lacks(fitted: scaling.Fit) -> None:
    with pytest.raises(scaling.InputError, match="no column 'tokens'"):
        fitted.predict(MODELS.drop(columns="tokens"))
    with pytest.raises(scaling.InputError, match="n_active is no positive number in row 2"):
        fitted.predict(MODELS.assign(n_active=[1e6, 0.0]))
    without_draws = replace(fitted, draws={}, jackknife={}).predict(MODELS)
    assert without_draws["loss_low"].isna().all()
    assert without_draws["loss"].notna().all()


# --------------------------------------------------------------------------------------------------------------- study


def test_every_table_of_a_study_names_its_runs(folder: Path) -> None:
    study = scaling.study(folder)
    ok = set(study.runs.loc[study.runs["status"] == "ok", "run_id"])
    assert len(study.runs) == len(cells())
    for table in (study.curves, study.evals, study.latency):
        assert set(table["run_id"]) == ok
    one = study.curves["run_id"].iloc[0]
    final = study.curves[study.curves["run_id"] == one]["loss"].iloc[-1]
    assert final == pytest.approx(study.runs.set_index("run_id").loc[one, "loss_val"])


def test_a_study_without_curves_has_an_empty_frame(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(folder / "runs")
    curves = scaling.study(tmp_path).curves
    assert curves.empty
    assert {"run_id", "step", "loss"} <= {*curves.columns}
    with pytest.raises(scaling.InputError, match="no-study"):
        scaling.study(tmp_path / "no-study")


# --------------------------------------------------------------------------------------------------------- recommend


def test_the_training_speed_is_a_name_or_a_value(fitted: scaling.Fit) -> None:
    """Whatever names it, the question and its file hold what it is."""
    asked: dict[str, Any] = {"train_flops": 1e14, "n_experts": (8,), "device": "h100", "what_if": False}
    hours: dict[Any, Any] = {}
    for given in ("constant", constant_training_speed(), "assumed", None):
        found = scaling.recommend(fitted, **asked, training_speed=given)
        hours[given] = found.best.train_device_hours
        assert found.question.training_speed is not None
    assert hours["constant"] == hours[constant_training_speed()]
    assert hours["assumed"] == hours[None]
    assert hours["assumed"] == pytest.approx(hours["constant"] * 0.4 / assumed_training_speed().mfu_at(8), rel=1e-12)
    with pytest.raises(scaling.InputError, match=r"training_speed.*device"):
        scaling.recommend(fitted, train_flops=1e14, training_speed="constant")


def test_recommend_takes_every_field_of_a_question_with_its_default() -> None:
    given = inspect.signature(scaling.recommend).parameters
    asked = {field.name: field for field in fields(scaling.Question) if field.name != "rented"}
    ways_of_serving = {"weights", "experts", "kv", "speed", "latency"}
    assert set(given) - set(asked) == {"fit", "what_if", *ways_of_serving}
    assert set(asked) <= set(given)
    for name, field in asked.items():
        if field.default is not MISSING and name != "service":
            assert given[name].default == field.default, name


def test_a_device_may_be_a_value(fitted: scaling.Fit, answer: scaling.Answer) -> None:
    dear = replace(scaling.device("h100"), usd_per_hour=2 * scaling.device("h100").usd_per_hour)
    twice = scaling.recommend(fitted, **QUESTION, device=dear, what_if=False)
    assert twice.best.cost.total == pytest.approx(2 * answer.best.cost.total, rel=1e-6)


def test_listings(folder: Path) -> None:
    assert list(scaling.laws().index) == list(LAWS)
    assert "published:joint-moe-2025" in scaling.laws().loc["joint-moe", "published"]
    assert scaling.devices().loc["h100", "bandwidth"] == scaling.device("h100").bandwidth


# --------------------------------------------------------------------------------------------------- a law of one's own


def power_law() -> scaling.Law:
    """ln(a N^-alpha + b D^-beta), which no package registers, of a column that no schema has."""

    def log_loss(params, columns):  # type: ignore[no-untyped-def]
        size = params["log_a"] - params["alpha"] * np.log(columns["my_size"])
        data = params["log_b"] - params["beta"] * np.log(columns["tokens"])
        return log_sum_exp(size, data)

    return scaling.Law(
        name="mine", formula="L = a N^-alpha + b D^-beta", typst="", n_column="my_size", source="", domain="",
        parameters=(
            scaling.Parameter("log_a", "size", "ln a", (-1.0, 6.0), (-10.0, 20.0)),
            scaling.Parameter("alpha", "size", "exponent of N", (0.05, 1.0), (1e-3, 3.0)),
            scaling.Parameter("log_b", "data", "ln b", (-1.0, 6.0), (-10.0, 20.0)),
            scaling.Parameter("beta", "data", "exponent of D", (0.05, 1.0), (1e-3, 3.0)),
        ),
        log_formula=log_loss, columns=("my_size", "tokens"),
    )  # fmt: skip


def test_a_law_made_in_python_is_fitted_resampled_written_and_read(tmp_path: Path) -> None:
    rng, law = np.random.default_rng(0), power_law()
    size, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    loss = (40 * size**-0.3 + 90 * tokens**-0.28) * np.exp(rng.normal(0, 0.002, size.size))
    runs = scaling.load(pd.DataFrame({"N": size, "tokens": tokens, "loss_val": loss}), map={"my_size": "N"}, law=law)
    assert not [note for note in runs.notes if "my_size" in note and "no fit" in note]
    mine = scaling.fit(runs, law, bootstrap=40)
    assert mine.params["alpha"] == pytest.approx(0.3, abs=0.02)
    assert mine.intervals["beta"][0] < 0.28 < mine.intervals["beta"][1]
    models = pd.DataFrame({"my_size": [1e8], "tokens": [1e10]})
    scaling.write(mine, tmp_path / "mine.json")
    read = scaling.read_fit(tmp_path / "mine.json", law=law)
    pd.testing.assert_frame_equal(read.predict(models), mine.predict(models))
    with pytest.raises(scaling.InputError, match=r"mine\.json: no law is called 'mine'.*law=") as caught:
        scaling.read_fit(tmp_path / "mine.json")
    assert "hoffmann" in str(caught.value)
    with pytest.raises(scaling.InputError, match=r"'mine'.*'hoffmann'"):
        scaling.read_fit(tmp_path / "mine.json", law=scaling.law("hoffmann"))
    assert "mine" not in LAWS


def test_a_law_may_not_take_the_name_of_another(runs: scaling.RunTable) -> None:
    with pytest.raises(scaling.InputError, match="hoffmann"):
        scaling.fit(runs, replace(scaling.law("hoffmann"), formula="L = 1"), bootstrap=0)


# ------------------------------------------------------------------------------------------- how values show themselves


def test_values_show_themselves_in_a_few_lines(
    folder: Path, runs: scaling.RunTable, fitted: scaling.Fit, answer: scaling.Answer
) -> None:
    values = [
        runs, fitted, answer, answer.recommendation, answer.question, answer.question.service, scaling.study(folder),
        scaling.device("h100"), *LAWS.values(), *PUBLISHED.values(), scaling.law("joint-moe").parameters[0],
    ]  # fmt: skip
    for value in values:
        assert len(repr(value)) < 2000, type(value)
        assert len(repr(value).splitlines()) <= 30, type(value)
        assert "<table" in value._repr_html_(), type(value)


def test_a_summary_is_one_table_and_then_what_to_know(fitted: scaling.Fit) -> None:
    summary = fitted.summary()
    assert [row[0] for row in summary.rows] == list(fitted.definition.names)
    assert len(summary.notes) == len((*fitted.warnings, *fitted.dropped, *fitted.notes))
    assert f"{fitted.params['beta']:.6g}" in str(summary)


def test_html_is_escaped(runs: scaling.RunTable) -> None:
    assert "<script>" not in replace(runs, notes=("<script>",))._repr_html_()


# ----------------------------------------------------------------------------------------------------------- the module


def python(script: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_nothing_and_takes_no_time() -> None:
    """.15 s at most, the best of five; and listing its names loads nothing either."""
    script = (
        "import sys, time\n"
        "t = time.process_time(); import scaling; took = time.process_time() - t\n"
        "assert {'fit', 'load', 'Law', '__version__'} <= {*dir(scaling)}\n"
        "heavy = {'numpy', 'pandas', 'pydantic', 'jax', 'ray', 'matplotlib', 'pyarrow', 'analysis', 'sweeps'}\n"
        "print(took, sorted(heavy & {*sys.modules}))"
    )
    took, loaded = python(script).split(" ", 1)
    assert float(took) < 0.15
    assert loaded.strip() == "[]"


def test_the_path_to_a_recommendation_needs_neither_jax_nor_ray_nor_matplotlib() -> None:
    script = (
        "import sys; sys.modules |= dict.fromkeys(('jax', 'flax', 'ray', 'matplotlib', 'typst'))\n"
        "import scaling\n"
        "names = {name: getattr(scaling, name) for name in scaling.__all__}\n"
        "fit = scaling.read_fit('published:joint-moe-2025')\n"
        "answer = scaling.recommend(fit, train_flops=1e20, n_experts=(1, 8), what_if=False)\n"
        "print(answer.best.n_experts in set(answer.table()['n_experts']), len(names))"
    )
    assert python(script).split() == ["True", str(len(scaling.__all__))]


def test_the_names_for_type_checkers_are_those_at_run_time() -> None:
    source = Path(scaling.__file__).read_text()
    assert set(re.findall(r"import (\w+) as \1$", source, re.M)) == {*scaling.__all__}
    assert not {module.name for module in pkgutil.iter_modules(scaling.__path__)} & {*scaling.__all__}
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        scaling.fits  # type: ignore[attr-defined]  # noqa: B018


def test_a_fit_may_be_named_and_an_expert_count_given_alone() -> None:
    answer = scaling.recommend("published:joint-moe-2025", train_flops=1e21, n_experts=8, what_if=False)
    assert [choice.n_experts for choice in (answer.best, *answer.recommendation.alternatives)] == [8]


def test_runs_that_were_not_loaded_are_refused() -> None:
    with pytest.raises(scaling.InputError, match=r"scaling\.load"):
        scaling.fit("runs.csv", law="hoffmann")  # type: ignore[arg-type]


def test_two_budgets_are_named() -> None:
    with pytest.raises(scaling.InputError, match="`train_flops` and `target_loss` were given"):
        scaling.recommend("published:joint-moe-2025", train_flops=1e21, target_loss=2.2)
