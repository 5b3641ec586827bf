"""Paired effects: which runs pair, and that differences and errors are those of the documents."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import cells, write_study

from analysis import runs
from analysis.effects import paired_effects


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    configs = cells(experts=(1, 8), widths=(32, 48), tokens=(500_000, 1_000_000))
    return write_study(tmp_path_factory.mktemp("effects") / "study", configs=configs)


def test_every_routed_run_meets_the_dense_run_of_its_cell(study):
    frame = runs.read(study).frame
    effects = paired_effects(study, frame)
    by_id = frame.set_index("run_id")
    assert len(effects) > 0
    for _, row in effects.iterrows():
        routed, dense = by_id.loc[row["run_id"]], by_id.loc[row["dense_run_id"]]
        assert (routed["n_experts"], dense["n_experts"]) == (8, 1)
        assert routed["tokens"] == dense["tokens"]
        assert routed["seed"] == dense["seed"]
        assert abs(routed["n_active"] / dense["n_active"] - 1) <= 0.02
    # The diverged cell has no loss and no twin; every other routed cell does, unless its twin is the diverged one.
    assert set(effects["run_id"]) <= set(frame.loc[frame["n_experts"] == 8, "run_id"])


def test_differences_are_those_of_the_losses_and_errors_of_the_documents(study):
    frame = runs.read(study).frame
    row = paired_effects(study, frame).iloc[0]
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
    frame = runs.read(study).frame
    for column, value in {"seed": 7, "corpus_hash": "another", "tokens": 12345, "n_active": 10}.items():
        other = frame.copy()
        other.loc[other["n_experts"] == 8, column] = value
        assert paired_effects(study, other).empty, column


def test_a_table_without_evaluations_has_no_effects(tmp_path, study):
    frame = runs.read(study).frame
    assert paired_effects(tmp_path, frame).empty
    assert isinstance(paired_effects(study, frame.drop(columns="corpus_hash")), pd.DataFrame)
