"""Methods compared: what was planted is found, ties are said, and what cannot be compared is never ranked."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import cells, write_study
from synthetic_methods import DENSE, EFFECTS, LEAKY, METHODS, write_methods

from analysis.methods.comparison import compare_methods
from analysis.methods.document import document
from analysis.methods.labels import method_labels
from analysis.methods.router_metrics import decode_times, router_metrics, saturation
from analysis.tables import runs
from analysis.tables import study as study_module
from analysis.tables.method_kinds import kinds_of_method
from scaling.config.registry import ROUTERS
from scaling.errors import InputError

FAILED = {("hash", 2): "diverged", ("random", 0): "oom", ("random", 1): "oom", ("random", 2): "oom"}


def largest(study, seed=0):
    return compare_methods(study, np.random.default_rng(seed))[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All planted methods, one that leaks, and one whose cells all failed."""
    methods = METHODS | {"leaky": LEAKY, "random": {"router": "random", "top_k": 2}}
    effects = EFFECTS | {"leaky": -0.5, "random": 0.0}
    return write_methods(tmp_path_factory.mktemp("methods") / "routers", methods, effects, failed=FAILED)


@pytest.fixture(scope="module")
def comparison(study):
    return largest(study)


def subset(study, folder, keep):
    """The study with the runs that `keep` accepts."""
    copied = shutil.copytree(study, folder)
    for part in (copied / "runs").glob("*.parquet"):
        if not keep(pq.read_table(part).to_pylist()[0]):
            part.unlink()
    return copied


def further_warnings(comparison, other):
    """What one comparison warns of and another does not."""
    return [warning for warning in comparison.warnings if warning not in other.warnings]


def changed(study, folder, change):
    """The study with the values that `change` returns for a row."""
    copied = shutil.copytree(study, folder)
    for part in (copied / "runs").glob("*.parquet"):
        table = pq.read_table(part)
        row = table.to_pylist()[0]
        pq.write_table(pa.Table.from_pylist([row | change(row)], schema=table.schema), part)
    return copied


def test_every_method_has_the_short_name_that_distinguishes_it(comparison):
    assert sorted(comparison.rows["method"]) == sorted(METHODS)
    assert comparison.reference == "dense"


def test_the_planted_differences_lie_in_the_intervals_of_all_together(comparison):
    truth = comparison.rows["method"].map(EFFECTS) - EFFECTS["dense"]
    assert ((comparison.rows["low_all"] <= truth) & (truth <= comparison.rows["high_all"])).all()
    assert (comparison.rows["low_all"] <= comparison.rows["low"]).all()
    assert (comparison.rows["difference"].diff().dropna() >= 0).all()
    assert comparison.rows.set_index("method").loc["dense", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert comparison.n_documents == 80
    assert comparison.paired
    # One seed effect and one method effect less than runs: 20 runs, 7 methods, 3 seeds.
    assert comparison.seed_df == 20 - 7 - 2


def test_planted_ties_share_a_letter_and_a_rank_and_the_others_do_not(comparison):
    by_name = comparison.rows.set_index("method")
    tied = by_name.loc[["topk", "topk (bias_rate 0.001)", "topk + shared"]]
    assert set(tied["group"]) == {"a"}
    assert set(comparison.leaders) == set(tied.index)
    assert set(zip(tied["rank_low"], tied["rank_high"], strict=True)) == {(1, 3)}
    assert by_name.loc["hash", ["rank_low", "rank_high"]].tolist() == [7, 7]
    assert not set(by_name.loc["hash", "group"].split()) & set(by_name.loc["dense", "group"].split())
    assert tied["best"].sum() == pytest.approx(1.0)
    assert tied["best"].max() < 0.9, "planted within .0015 nats of one another"
    assert comparison.optimism > 0


def test_a_leaky_method_is_never_ranked_however_low_its_loss(comparison):
    assert comparison.apart["method"].tolist() == ["expert-choice"]
    assert comparison.apart["loss"].iloc[0] < comparison.rows["loss"].min() - 0.3
    assert comparison.apart["leak"].iloc[0] == pytest.approx(0.2)
    assert ROUTERS["expert-choice"].source in comparison.apart["reason"].iloc[0]
    assert "expert-choice" not in set(comparison.rows["method"])
    assert not set(comparison.runs["router"]) & {"expert-choice"}


def test_a_causal_router_with_a_leak_and_an_unknown_one_are_not_ranked(study, tmp_path):
    leaking = largest(changed(study, tmp_path / "a", lambda row: {"leak": 0.01} if row["router"] == "sigmoid" else {}))
    assert set(leaking.apart["method"]) == {"expert-choice", "sigmoid"}
    unknown = changed(study, tmp_path / "b", lambda row: {"router": "oracle"} if row["router"] == "sigmoid" else {})
    assert set(largest(unknown).apart["method"]) == {"expert-choice", "oracle"}


def test_failed_cells_are_listed_and_their_survivors_doubted(comparison):
    failed = comparison.failed.set_index("method")
    assert failed["cells"].to_dict() == {"hash": 1, "random": 3}
    assert failed["status"].to_dict() == {"hash": "diverged", "random": "oom"}
    assert "random" not in set(comparison.rows["method"])
    assert comparison.rows.set_index("method").loc["hash", "seeds"] == 2
    assert [warning for warning in comparison.warnings if "hash" in warning], "the survivors of hash are too good"
    assert not [warning for warning in comparison.warnings if "random" in warning], "random has none"


def test_a_single_seed_takes_the_noise_of_the_others_and_says_so(study, tmp_path, comparison):
    fewer = largest(subset(study, tmp_path / "s", lambda row: row["router"] != "switch" or row["seed"] == 0))
    row, whole = (c.rows.set_index("method").loc["switch"] for c in (fewer, comparison))
    assert row["seeds"] == 1
    assert row["low"] < row["difference"] < row["high"]
    assert row["se"] > 1.15 * whole["se"]
    (warning,) = further_warnings(fewer, comparison)
    assert "switch" in warning


def test_without_any_second_seed_nothing_is_ranked(study, tmp_path, comparison):
    single = largest(subset(study, tmp_path / "s", lambda row: row["seed"] == 0))
    assert not single.ranked
    assert single.rows[["low", "high", "low_all", "high_all", "rank_low", "rank_high", "best"]].isna().all(axis=None)
    assert further_warnings(single, comparison) == [single.warnings[0]]
    assert set(single.leaders) == set(single.rows["method"])
    assert json.dumps(document(study, single), allow_nan=False)


def test_without_a_dense_model_the_best_is_the_reference_and_that_is_said(study, tmp_path, comparison):
    routed = largest(subset(study, tmp_path / "s", lambda row: row["n_experts"] > 1))
    assert routed.reference == routed.rows["method"].iloc[0]
    (warning,) = further_warnings(routed, comparison)
    assert routed.reference in warning


def test_without_counted_flops_a_dense_model_is_still_the_reference(study, tmp_path):
    cost = {"decode_flops_per_token": None}
    uncounted = largest(changed(study, tmp_path / "s", lambda row: cost if row["n_experts"] == 1 else {}))
    assert uncounted.rows.set_index("method").loc[uncounted.reference, "n_experts"] == 1


def test_unequal_flops_are_flagged_with_the_ratio(study, tmp_path, comparison):
    assert comparison.unequal.empty
    more = changed(
        study,
        tmp_path / "s",
        lambda row: {"train_flops": 1.5 * row["train_flops"]} if row["router"] == "switch" else {},
    )
    flagged = largest(more)
    assert flagged.unequal["method"].tolist() == ["switch"]
    (warning,) = further_warnings(flagged, comparison)
    assert re.findall(r"\d\.\d+", warning) == ["1.52", "1.01"]  # its router: 1.01 times as it was
    wide = DENSE | {"d_expert": 96}
    both = write_methods(tmp_path / "two", {**METHODS, "wide": wide}, {**EFFECTS, "wide": -0.1})
    assert largest(both).reference == "dense (d_mlp 64)", "of several dense models the nearest in FLOPs"


def test_evaluations_that_do_not_pair_leave_seeds_alone_and_that_is_said(study, tmp_path, comparison):
    folder = shutil.copytree(study, tmp_path / "s")
    part = next((folder / "evals").glob("*.parquet"))
    pq.write_table(pq.read_table(part).slice(0, 30), part)
    seeds = largest(folder)
    assert seeds.n_documents == 0
    assert len(further_warnings(seeds, comparison)) == 1
    shutil.rmtree(folder / "evals")
    (warning,) = further_warnings(largest(folder), comparison)
    assert comparison.runs["run_id"].iloc[0] in warning


def test_every_token_budget_is_its_own_comparison_and_the_largest_comes_first(tmp_path):
    for tokens in (250_000, 500_000):
        write_methods(tmp_path / "s", tokens=tokens)
    comparisons = compare_methods(tmp_path / "s", np.random.default_rng(0))
    assert [comparison.cell["tokens"] for comparison in comparisons] == [500_224, 249_856]
    assert all(len(comparison.rows) == len(METHODS) for comparison in comparisons)


def test_what_cannot_be_compared_is_one_message(study, tmp_path):
    with pytest.raises(InputError, match="methods"):
        largest(subset(study, tmp_path / "s", lambda row: row["router"] == "topk" and row["experts"] == "shared"))
    table = runs.read_runs(study).frame[["run_id", "tokens", "loss_val", "n_active"]]
    (tmp_path / "t" / "runs").mkdir(parents=True)
    table.to_parquet(tmp_path / "t" / "runs" / "theirs.parquet")
    with pytest.raises(InputError, match="needs the columns configuration, config, seed, router"):
        largest(tmp_path / "t")


def test_the_same_rng_gives_the_same_comparison(study, comparison):
    pd.testing.assert_frame_equal(comparison.rows, largest(study).rows)


def test_labels_are_unique_whatever_differs():
    def cell(index, **model):
        train = {"lr": model.pop("lr", 0.01)}
        config = json.dumps({"model": {"router": "topk", "experts": "mlp", "n_experts": 8, **model}, "train": train})
        return {"configuration": f"{index:016x}", "config": config, "router": "topk", "experts": "mlp", "n_experts": 8}

    frame = pd.DataFrame(
        [
            cell(1), cell(2, bias_rate=0.001), cell(3, renormalise=False), cell(4, lr=0.02),
            cell(5, bias_rate=0.001, lr=0.02), cell(6) | {"config": None}, cell(7) | {"config": None},
        ]
    )  # fmt: skip
    labels = method_labels(frame)
    assert len(set(labels.values())) == len(frame)
    assert "bias_rate 0.001" in labels[f"{2:016x}"]
    assert "renormalise off" in labels[f"{3:016x}"]


def test_decode_times_are_beside_those_of_the_reference(study, comparison):
    times = decode_times(study, comparison)
    assert set(times["batch"]) == {1, 8}
    assert set(times["method"]) == set(METHODS)
    assert (times.loc[times["method"] == "dense", "times"] == 1.0).all()
    rows = study_module.table_rows(study, "latency").merge(comparison.runs[["run_id", "method"]], on="run_id")
    rows = rows[(rows["phase"] == "decode") & (rows["batch"] == 8)].groupby("method")["time_ms"].median()
    relative = times[times["batch"] == 8].set_index("method")["times"]
    np.testing.assert_allclose(relative, (rows / rows["dense"]).loc[relative.index])


def test_metrics_stand_beside_their_chance_and_saturation_ends_at_one(study, comparison):
    metrics = router_metrics(comparison)
    assert "dense" not in set(metrics["method"])
    chance = metrics.groupby("metric")["chance"].first()
    assert chance["load_cv"] == 0.08
    assert chance["saturation_5"] == chance["saturation_50"] == 0.25
    assert np.isnan(chance["gate_sum"])
    assert ((metrics["least"] <= metrics["value"] + 1e-12) & (metrics["value"] <= metrics["most"] + 1e-12)).all()
    curves = saturation(study, comparison)
    last = curves.sort_values("tokens").groupby("method").last()
    assert (last["saturation"] == 1.0).all()
    assert not set(curves["method"]) & {"dense", "expert-choice"}


def test_a_law_over_several_methods_is_warned_of_and_one_method_is_not(study, tmp_path):
    (note,) = runs.read_runs(study).notes
    assert "7 methods" in note
    assert "topk + mlp (setting 1)" in note
    one = write_study(tmp_path / "one", configs=cells(experts=(1, 4, 8), widths=(32,), tokens=(500_000, 1_000_000)))
    assert kinds_of_method(runs.read_runs(one).frame) == ["switch + mlp"]
    assert runs.read_runs(one).notes == ()
