"""Paired effects: which runs pair, and that differences and errors are those of the documents."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import cells, write_study

from analysis.methods.dense_twins import paired_effects
from analysis.tables import runs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    configs = cells(experts=(1, 8), widths=(32, 48), tokens=(500_000, 1_000_000))
    return write_study(tmp_path_factory.mktemp("effects") / "study", configs=configs)


def test_every_routed_run_meets_the_dense_run_of_its_cell(study):
    frame = runs.read_runs(study).frame
    effects = paired_effects(study, frame)
    dense, routed = (frame[frame["n_experts"] == e].set_index(["d_model", "tokens", "seed"])["run_id"] for e in (1, 8))
    # The diverged cell has no loss: its dense twin is left over, and the four other routed cells have theirs.
    assert (len(dense), len(routed)) == (5, 4)
    expected = {run_id: dense[cell] for cell, run_id in routed.items()}
    assert effects.rows.set_index("run_id")["dense_run_id"].to_dict() == expected
    assert (effects.without_twin, effects.not_comparable) == (0, 0)


def test_differences_are_those_of_the_losses_and_errors_of_the_documents(study):
    frame = runs.read_runs(study).frame
    row = paired_effects(study, frame).rows.iloc[0]
    losses = frame.set_index("run_id")["loss_val"]
    assert row["difference"] == pytest.approx(losses[row["run_id"]] - losses[row["dense_run_id"]], abs=1e-12)
    # Independent oracle for the clustered error: a bootstrap over documents.
    a, b = (pq.read_table(study / "evals" / f"{row[name]}.parquet").to_pandas() for name in ("run_id", "dense_run_id"))
    both = a.merge(b, on="document", suffixes=("_a", "_b"))
    gap, size = (both["loss_a"] - both["loss_b"]).to_numpy(copy=True), both["n_tokens_a"].to_numpy(copy=True)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(both), size=(4000, len(both)))
    resampled = (gap[drawn] * size[drawn]).sum(axis=1) / size[drawn].sum(axis=1)
    assert row["se"] == pytest.approx(resampled.std(), rel=0.1)


def test_runs_of_another_size_text_or_seed_do_not_pair(study):
    frame = runs.read_runs(study).frame
    n_routed = int((frame["n_experts"] == 8).sum())
    other_values = {
        "seed": 7, "corpus_hash": "another", "tokens": 12345, "n_active": 10, "n_layers": 3, "vocab_size": 300,
        "batch_tokens": 64, "seq_len": 32, "lr": 0.5, "config": '{"train": {"weight_decay": 0.7}}',
    }  # fmt: skip
    for column, value in other_values.items():
        other = frame.copy()
        other.loc[other["n_experts"] == 8, column] = value
        effects = paired_effects(study, other)
        assert effects.rows.empty, column
        assert (effects.without_twin, effects.not_comparable) == (n_routed, 0), column


def train(**changes):
    """A grid over one training setting: dense and routed cells at each of its values."""
    return [
        config.model_copy(update={"train": config.train.model_copy(update={name: value})})
        for config in cells(experts=(1, 8), widths=(32,), tokens=(500_000, 1_000_000))
        for name, values in changes.items()
        for value in values
    ]


@pytest.mark.parametrize(
    "swept",
    [{"lr": (0.001, 0.004)}, {"batch_tokens": (512, 1024)}, {"seq_len": (64, 128)}, {"weight_decay": (0.0, 0.3)}],
)
def test_with_a_training_setting_as_an_axis_every_routed_run_meets_its_own_twin(tmp_path, swept):
    study = write_study(tmp_path / "study", configs=train(**swept))
    frame = runs.read_runs(study).frame
    effects = paired_effects(study, frame)
    assert len(effects.rows) > 0
    assert effects.rows["run_id"].is_unique
    assert effects.not_comparable == 0
    settings = frame.set_index("run_id")["config"].map(lambda text: json.loads(text)["train"])
    for _, row in effects.rows.iterrows():
        assert settings[row["run_id"]] == settings[row["dense_run_id"]]


def test_what_was_evaluated_on_other_tokens_is_counted_and_does_not_stop_the_rest(tmp_path, study):
    frame = runs.read_runs(study).frame
    before = paired_effects(study, frame).rows
    folder = shutil.copytree(study, tmp_path / "study")
    fewer = folder / "evals" / f"{before['run_id'].iloc[0]}.parquet"
    pq.write_table(pq.read_table(fewer).slice(0, 60), fewer)
    (folder / "evals" / f"{before['run_id'].iloc[1]}.parquet").unlink()
    after = paired_effects(folder, frame)
    assert after.not_comparable == 2
    assert list(after.rows["run_id"]) == list(before["run_id"].iloc[2:])
    assert len(after.rows) + after.without_twin + after.not_comparable == int((frame["n_experts"] == 8).sum())


def test_of_several_twins_the_nearest_that_can_be_compared_is_taken(tmp_path, study):
    frame = runs.read_runs(study).frame
    row = paired_effects(study, frame).rows.iloc[0]
    folder = shutil.copytree(study, tmp_path / "study")
    twin = frame[frame["run_id"] == row["dense_run_id"]]
    farther = twin.assign(run_id="farther", n_active=twin["n_active"] * 1.01)
    unevaluated = twin.assign(run_id="0")  # as near as the twin and first by name
    shutil.copy(folder / "evals" / f"{row['dense_run_id']}.parquet", folder / "evals" / "farther.parquet")
    more = pd.concat([frame, farther, unevaluated], ignore_index=True)
    rows = paired_effects(folder, more).rows.set_index("run_id")
    assert rows.loc[row["run_id"], "dense_run_id"] == row["dense_run_id"]


def test_a_table_without_evaluations_has_no_effects(tmp_path, study):
    frame = runs.read_runs(study).frame
    n_routed = int((frame["n_experts"] == 8).sum())
    for effects in (paired_effects(tmp_path, frame), paired_effects(study, frame.drop(columns="corpus_hash"))):
        assert effects.rows.empty
        assert (effects.without_twin, effects.not_comparable) == (n_routed, 0)
