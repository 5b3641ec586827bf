"""Columns that contradict each other: in most rows a refusal, in some a doubt with the rows of the file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import EPOCH_MAP, hoffmann_runs, public_data
from theirs import GOOD, read

from analysis.tables import runs
from analysis.tables.import_study import import_runs
from analysis.tables.runs import read_runs
from scaling.errors import InputError


def moe_runs():
    """20 runs of E = 1, 4, 8, 16 and 32, k = 2, with totals and compute."""
    frame = hoffmann_runs(noise=0.01)
    experts = np.tile([1, 4, 8, 16, 32], 4)
    totals = frame["n_active"] * np.where(experts > 1, 1 + 0.3 * experts, 1)
    compute = 6 * frame["n_active"] * frame["tokens"]
    return frame.assign(n_experts=experts, top_k=2, n_total=totals, train_flops=compute, batch_tokens=500_000)


FAULTS = {
    "active_above_total": ("n_total", lambda rows: rows["n_active"] / 3),
    "top_k_above_experts": ("top_k", lambda rows: rows["n_experts"] * 2),
    "tokens_below_batch": ("batch_tokens", lambda rows: rows["tokens"] * 3),
    "compute_off": ("train_flops", lambda rows: rows["train_flops"] * 3),
    "not_positive": ("n_total", lambda rows: -rows["n_total"]),
}
REFUSED = ("active_above_total", "top_k_above_experts")


def faulty(code, rows):
    frame = moe_runs()
    column, change = FAULTS[code]
    frame[column] = frame[column].astype(float)
    frame.loc[rows, column] = change(frame.loc[rows])
    return frame


def test_a_table_in_order_is_not_doubted(written):
    assert runs.read_runs(written(moe_runs())).doubts == ()
    attention = moe_runs().assign(n_layers=24, d_model=1024, seq_len=8192)
    attention["train_flops"] += 12 * 24 * 1024 * 8192 * attention["tokens"]
    assert runs.read_runs(written(attention)).doubts == ()
    rounded = moe_runs().assign(n_total=lambda f: f["n_total"] * 0.995, train_flops=lambda f: f["train_flops"] * 1.9)
    assert runs.read_runs(written(rounded)).doubts == ()


@pytest.mark.parametrize("code", FAULTS)
@pytest.mark.parametrize("rows", [[3], [1, 8, 19]])
def test_rows_that_contradict_themselves_are_named(written, code, rows):
    (doubt,) = runs.read_runs(written(faulty(code, rows))).doubts
    assert doubt.code == code
    assert FAULTS[code][0] in doubt.columns
    assert doubt.rows == tuple(row + 1 for row in rows)
    assert f" {rows[0] + 1}" in doubt.message


@pytest.mark.parametrize("code", FAULTS)
def test_columns_that_contradict_each_other_everywhere_are_refused_or_doubted(written, code):
    path = written(faulty(code, moe_runs().index))
    if code in REFUSED:
        with pytest.raises(InputError, match="Are the columns swapped"):
            runs.read_runs(path)
    else:
        (doubt,) = runs.read_runs(path).doubts
        assert doubt.code == code
        assert "in all 20 rows" in doubt.message


def test_swapped_columns_are_cured_by_the_map_that_the_refusal_names(written):
    frame = moe_runs().rename(columns={"n_active": "n_total", "n_total": "n_active"})
    with pytest.raises(InputError, match="rows 2, 3, 4 and 13 more") as refused:
        runs.read_runs(written(frame))
    for pair in ("n_active=n_total", "n_total=n_active"):
        assert pair in str(refused.value)
    table = runs.read_runs(written(frame), {"n_active": "n_total", "n_total": "n_active"})
    assert table.doubts == ()
    assert table.column("n_active").tolist() == moe_runs()["n_active"].tolist()


@pytest.mark.parametrize(
    ("factor", "words"), [(1 / 3, "2 N D"), (1e-18, "EFLOP"), (1 / 8.64e19, "PFLOP/s-days"), (5.0, "always the same")]
)
def test_a_constant_factor_of_compute_is_explained(written, factor, words):
    frame = moe_runs().assign(train_flops=lambda f: f["train_flops"] * factor)
    (doubt,) = runs.read_runs(written(frame)).doubts
    assert words in doubt.message


def test_dense_models_have_one_size(written):
    frame = moe_runs()
    frame.loc[5, "n_total"] *= 3
    (doubt,) = runs.read_runs(written(frame)).doubts
    assert (doubt.code, doubt.rows) == ("dense_of_two_sizes", (6,))


def test_repeated_rows_and_repeats_without_a_seed_are_told_apart(written):
    frame = moe_runs()
    again = frame.iloc[[2, 7]]
    noisy = again.assign(loss_val=again["loss_val"] * 1.004)
    (doubt,) = runs.read_runs(written(pd.concat([frame, again]))).doubts
    assert (doubt.code, doubt.rows) == ("repeated", (21, 22))
    (doubt,) = runs.read_runs(written(pd.concat([frame, noisy]))).doubts
    assert (doubt.code, doubt.rows) == ("no_seed", (3, 8, 21, 22))
    seeded = pd.concat([frame.assign(seed=0), noisy.assign(seed=1)])
    assert runs.read_runs(written(seeded)).doubts == ()
    otherwise = pd.concat([frame.assign(optimiser="a"), noisy.assign(optimiser="b")])
    assert runs.read_runs(written(otherwise)).doubts == ()


def test_a_study_that_was_imported_is_doubted_again_by_run(written, tmp_path):
    frame = faulty("active_above_total", [3]).assign(run_id=[f"r{i}" for i in range(20)])
    first, _, _ = import_runs(written(frame), tmp_path / "study")
    again = runs.read_runs(tmp_path / "study")
    assert [doubt.code for doubt in first.doubts] == [doubt.code for doubt in again.doubts] == ["active_above_total"]
    assert again.doubts[0].rows == ()
    assert "in run r3" in again.doubts[0].message


def test_public_tables_are_not_doubted():
    assert runs.read_runs(public_data("epoch_chinchilla.csv"), EPOCH_MAP).doubts == ()
    gemstones = {"n_active": "params_active_precise", "loss_val": "final_loss"}
    assert runs.read_runs(public_data("gemstones_cooldown.csv"), gemstones).doubts == ()
    comma = {"n_active": "params", "train_flops": "budget", "loss_val": "loss"}
    assert runs.read_runs(public_data("isoflop_comma.csv"), comma).doubts == ()
    clark = {
        "loss_val": "loss_validation", "n_dense_nonembed": "dense_parameter_count", "n_experts": "num_experts",
        "n_total_nonembed": "total_parameter_count", "top_k": "k",
    }  # fmt: skip
    assert runs.read_runs(public_data("clark_routed_curves.csv.gz"), clark).doubts == ()


def test_a_law_that_is_given_later_repeats_no_doubt(written):
    table = runs.read_runs(written(pd.concat([GOOD, GOOD.iloc[:1]])))
    assert [doubt.code for doubt in table.doubts] == ["repeated"]
    from analysis.laws import HOFFMANN

    assert [doubt.code for doubt in table.for_law(HOFFMANN).doubts] == ["repeated"]
    assert [doubt.rows for doubt in read(written(pd.concat([GOOD, GOOD.iloc[:1]]))).doubts] == [(5,)]


@pytest.mark.parametrize(
    ("column", "value"),
    [("n_active", 1e300), ("tokens", np.inf), ("tokens", 1e-300), ("n_experts", 1e9), ("loss_val", 1e30)],
)
def test_a_number_that_nothing_has_is_refused_with_its_row(column, value):
    frame = pd.DataFrame({"n_active": [1e8, 2e8, 4e8], "tokens": 1e9, "n_experts": 1.0, "loss_val": [3.0, 2.9, 2.8]})
    frame.loc[1, column] = value
    with pytest.raises(InputError, match=rf"{column} = .* in row 2"):
        read_runs(frame)


def test_fewer_tokens_than_parameters_in_most_rows_are_doubted(written):
    swapped = hoffmann_runs().rename(columns={"n_active": "tokens", "tokens": "n_active"})
    assert "few_tokens" in {doubt.code for doubt in read_runs(written(swapped)).doubts}
    assert "few_tokens" not in {doubt.code for doubt in read_runs(written(hoffmann_runs())).doubts}
