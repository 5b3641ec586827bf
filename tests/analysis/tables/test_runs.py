"""Reading: every bad cell is counted or named, conventions are stated, study folders and foreign tables alike."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from planted import EPOCH_MAP, moe_grid

from analysis.laws import HOFFMANN, JOINT_MOE, YUN
from analysis.methods import paired
from analysis.tables import runs
from analysis.tables.import_study import import_runs
from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog
from analysis.tables.study import read_study
from scaling.clustered_mean import clustered_mean
from scaling.errors import InputError, WorkError
from scaling.schema import RUNS, to_arrow

GOOD = pd.DataFrame({
    "n_active": [1e8, 1e8, 1e9, 1e9], "tokens": [1e9, 1e10, 1e9, 1e10], "loss_val": [3.2, 3.0, 2.9, 2.5],
    "n_experts": [1, 1, 8, 8],
})  # fmt: skip


@pytest.fixture
def csv(tmp_path):
    def write(frame, name="runs.csv"):
        path = tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
        return path

    return write


def test_conventions_and_the_compute_are_stated(csv):
    table = runs.read_runs(csv(GOOD), law=HOFFMANN)
    assert len(table) == 4
    assert table.column("loss_val").tolist() == [3.2, 3.0, 2.9, 2.5]
    derived, computed, assumed, trunks = table.notes
    assert derived == "n_total derived as n_active, as n_experts = 1 in 2 rows"
    assert computed == "train_flops computed as 6 n_active tokens; 6 N D leaves attention out"
    assert f"n_active is {RUNS['n_active'].meaning}" in assumed
    assert "2 models have several token budgets" in trunks
    assert table.trunks.tolist() == [0, 1, 2, 3]


def test_epoch_by_its_own_rule(epoch_path, epoch):
    assert len(epoch) == 240
    assert epoch.dropped == (("highest losses, as asked", 5),)
    assert epoch.notes[0] == "tokens computed as train_flops/(6 n_active); 6 N D leaves attention out"
    assert epoch.notes[2] == "left out: the highest losses in rows 1, 2, 3 and 2 more"
    assert "every row counts as an independent run" in epoch.notes[3]
    assert len(epoch.notes) == 4  # and what its columns are taken for: nothing in it is doubted
    # The five highest losses are also the five lowest tokens per parameter.
    everything = runs.read_runs(epoch_path, EPOCH_MAP, law=HOFFMANN)
    ratio = everything.column("tokens") / everything.column("n_active")
    left_out = np.sort(everything.column("loss_val"))[-5:]
    assert set(everything.column("loss_val")[np.argsort(ratio)[:5]]) == set(left_out)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("loss_val", np.nan, "loss_val missing"),
        ("loss_val", -1.0, "loss_val not positive"),
        ("loss_val", 0.0, "loss_val not positive"),
        ("tokens", np.inf, "tokens infinite"),
        ("n_active", "many", "n_active not a number"),
        ("n_experts", -1, "n_experts below 1"),
    ],
)
def test_bad_cells_are_dropped_and_counted(csv, column, value, reason):
    frame = GOOD.astype({column: object})
    frame.loc[1, column] = value
    table = runs.read_runs(csv(frame), law=JOINT_MOE)
    assert len(table) == 3
    assert table.dropped == ((reason, 1),)
    where = f"{reason} in row 2" + (" ('many')" if value == "many" else "")
    assert f"left out: {where}" in table.notes


def test_nothing_left_says_why(csv):
    with pytest.raises(
        InputError, match=r"no usable run is left \(4 with loss_val not positive\): .* rows 1, 2, 3 and 1 more"
    ):
        runs.read_runs(csv(GOOD.assign(loss_val=-1.0)), law=HOFFMANN)
    with pytest.raises(InputError, match="the table has no rows"):
        runs.read_runs(csv(GOOD.iloc[:0]), law=HOFFMANN)


def test_a_missing_column_is_named_and_never_substituted(csv):
    with pytest.raises(InputError, match="column n_dense_nonembed is missing, which law yun needs"):
        runs.read_runs(csv(GOOD), law=YUN)
    with pytest.raises(InputError, match="column n_experts is missing"):
        runs.read_runs(csv(GOOD.drop(columns="n_experts")), law=JOINT_MOE)


def test_maps_read_either_way_round(csv):
    path = csv(GOOD.rename(columns={"n_active": "N", "loss_val": "L"}))
    for mapping in ({"n_active": "N", "loss_val": "L"}, {"N": "n_active", "L": "loss_val"}):
        assert runs.read_runs(path, mapping, law=HOFFMANN).column("n_active").tolist() == GOOD["n_active"].tolist()
    with pytest.raises(InputError, match="no column 'M'"):
        runs.read_runs(path, {"n_active": "M"}, law=HOFFMANN)
    with pytest.raises(InputError, match="mapped twice"):
        runs.read_runs(path, {"n_active": "N", "tokens": "N"}, law=HOFFMANN)


def test_a_map_replaces_a_column_of_that_name(csv):
    table = runs.read_runs(csv(GOOD.assign(real=GOOD["tokens"] * 2)), {"tokens": "real"}, law=HOFFMANN)
    assert table.column("tokens").tolist() == (GOOD["tokens"] * 2).tolist()


@pytest.mark.parametrize("where", ["nonsense ==", "absent > 3", "loss_val", "import os", "__class__"])
def test_a_wrong_where_is_one_message(csv, where):
    with pytest.raises(InputError, match="`where`"):
        runs.read_runs(csv(GOOD), where=where, law=HOFFMANN)


def test_where_selects_and_counts(csv):
    table = runs.read_runs(csv(GOOD), where="n_experts == 1 and loss_val < 3.1", law=HOFFMANN)
    assert len(table) == 1
    assert table.dropped == (("not n_experts == 1 and loss_val < 3.1", 3),)


@pytest.mark.parametrize(
    ("column", "values"), [("optimiser", ["adamw", "muon"]), ("parametrisation", ["standard", "mup"])]
)
def test_runs_of_several_trainings_are_pointed_out(csv, column, values):
    mixed = GOOD.assign(**{column: [values[0], values[0], values[1], None]})
    assert any(all(value in note for value in values) for note in runs.read_runs(csv(mixed), law=HOFFMANN).notes)
    one = runs.read_runs(csv(mixed), where=f"{column} == '{values[0]}'", law=HOFFMANN)
    assert not any(all(value in note for value in values) for note in one.notes)


def test_repeats_are_pointed_out_and_a_run_counts_once(csv):
    table = runs.read_runs(csv(pd.concat([GOOD, GOOD.iloc[:1]])), law=HOFFMANN)
    assert len(table) == 5
    (doubt,) = table.doubts
    assert (doubt.code, doubt.rows) == ("repeated", (5,))
    unlike = pd.concat([GOOD, GOOD.iloc[:1]]).assign(note=list("abcde"))
    for frame, left_out in ((pd.concat([GOOD, GOOD.iloc[:1]]), 1), (unlike, 0)):
        clean = runs.read_runs(csv(frame), law=HOFFMANN, drop_duplicates=True)
        assert sum(count for _, count in clean.dropped) == left_out
        assert [doubt.code for doubt in clean.doubts] == ["repeated"] * (left_out == 0)
    assert runs.read_runs(csv(GOOD), law=HOFFMANN).doubts == ()
    with pytest.raises(InputError, match="`drop_highest_loss`"):
        runs.read_runs(csv(GOOD), drop_highest_loss=-1)
    with pytest.raises(InputError, match="`drop_highest_loss` must be below"):
        runs.read_runs(csv(GOOD), drop_highest_loss=10**30)
    twice = GOOD.assign(run_id=["a", "b", "c", "c"])
    assert runs.read_runs(csv(twice), law=HOFFMANN).dropped == (("an earlier row of the same run", 1),)


def test_missing_files_and_folders_without_runs(tmp_path):
    with pytest.raises(InputError, match="no such file or study folder"):
        runs.read_runs(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"no runs/\*.parquet"):
        runs.read_runs(tmp_path)


def study_row(index, **more):
    return {
        "run_id": f"r{index}", "status": "ok", "error": "", "n_active": 1000 + index,
        "tokens": 10_000 * (1 + index), "n_experts": 1,
        "loss_val": 2.0 - 0.01 * index, "seed": 0, **more,
    }  # fmt: skip


@pytest.fixture
def study(tmp_path):
    (tmp_path / "runs").mkdir()
    rows = [study_row(i) for i in range(4)]
    rows.append(study_row(4, status="diverged", error="NaN", loss_val=None))
    for row in rows:
        pq.write_table(to_arrow("runs", [row]), tmp_path / "runs" / f"{row['run_id']}.parquet")
    return tmp_path


def test_a_study_folder_carries_only_runs_that_are_ok(study):
    (study / "runs" / "torn.parquet").write_bytes(b"PAR1")
    (study / "runs" / ".r9.parquet.tmp").write_bytes(b"")
    table = runs.read_runs(study, law=HOFFMANN)
    assert len(table) == 4
    assert dict(table.dropped) == {"an unreadable file": 1, "status diverged": 1}


def evaluations(study, run_id, losses, sizes):
    (study / "evals").mkdir(exist_ok=True)
    rows = [
        {"document": f"d{i}", "n_tokens": int(n), "n_bytes": int(n), "loss": float(x)}
        for i, (x, n) in enumerate(zip(losses, sizes, strict=True))
    ]
    pq.write_table(to_arrow("evals", rows), study / "evals" / f"{run_id}.parquet")


def test_paired_difference_by_hand(study):
    """Sizes 1, 3 and differences .1, .5: d = (.1 + 1.5)/4 = .4; se^2 = 2 ((.3)^2 + (.3)^2)/16 = .0225."""
    evaluations(study, "r0", [1.1, 2.5], [1, 3])
    evaluations(study, "r1", [1.0, 2.0], [1, 3])
    found = paired.paired_difference(study, "r0", "r1")
    assert found.difference == pytest.approx(0.4)
    assert found.standard_error == pytest.approx(0.15)
    assert (found.n_documents, found.n_tokens) == (2, 4)
    back = paired.paired_difference(study, "r1", "r0")
    assert back.difference == pytest.approx(-0.4)


def test_paired_standard_error_is_the_spread_of_repeats():
    """1,500 simulated studies of documents of unequal length: the formula's mean equals the deviation of the
    estimate."""
    rng = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(1500):
        sizes = rng.integers(20, 400, 120).astype(float)
        estimates.append(clustered_mean(0.05 + 0.1 * rng.standard_normal(120), sizes))
    estimates, errors = np.array(estimates).T
    assert estimates.mean() == pytest.approx(0.05, abs=4 * estimates.std() / np.sqrt(1500))
    assert errors.mean() == pytest.approx(estimates.std(), rel=0.06)  # the deviation itself is known to 1.8 %


def test_evaluations_that_do_not_pair_are_named(study):
    evaluations(study, "r0", [1.0, 2.0], [1, 3])
    evaluations(study, "r1", [1.0, 2.0], [1, 4])
    evaluations(study, "r2", [1.0], [1])
    with pytest.raises(InputError, match="different tokens"):
        paired.paired_difference(study, "r0", "r1")
    with pytest.raises(InputError, match="share 1 of 2 and 1"):
        paired.paired_difference(study, "r0", "r2")
    with pytest.raises(InputError, match="no evaluation of run 'r9'"):
        paired.paired_difference(study, "r0", "r9")


def test_an_imported_table_reads_as_a_study(tmp_path, epoch_path):
    table, part, ignored = import_runs(epoch_path, tmp_path / "epoch", EPOCH_MAP, None, 5)
    again = runs.read_runs(tmp_path / "epoch", law=HOFFMANN)
    assert len(again) == len(table) == 240
    for name in ("n_active", "tokens"):
        assert again.column(name) == pytest.approx(table.column(name), rel=1e-8)  # counts are whole in a study
    assert again.column("loss_val").tolist() == table.column("loss_val").tolist()
    assert "hex_color" in ignored
    assert import_runs(epoch_path, tmp_path / "epoch", EPOCH_MAP, None, 5)[1] == part
    assert len(list((tmp_path / "epoch" / "runs").iterdir())) == 1


def test_an_import_keeps_every_known_column_and_refuses_what_no_law_could_use(tmp_path, csv):
    frame = moe_grid(experts=(1, 8), widths=(32,))
    import_runs(csv(frame), tmp_path / "moe")
    again = runs.read_runs(tmp_path / "moe", law=JOINT_MOE)
    for name in ("n_total", "d_model", "n_experts", "tokens", "trunk_id", "run_id"):
        assert again.frame[name].tolist() == frame[name].tolist()
    with pytest.raises(InputError, match="needs tokens"):
        import_runs(csv(GOOD[["loss_val"]]), tmp_path / "none")


@pytest.mark.parametrize(
    ("folder", "study"),
    [("plain-1.0_x", "plain-1.0_x"), ("my [x]", "my-x"), ("a#b c", "a-b-c"), ("été", "t"), ("日本", "study")],
)
def test_a_folder_of_any_name_holds_an_import_and_its_study_has_a_plain_one(tmp_path, csv, folder, study):
    imported, path, _ = import_runs(csv(GOOD), tmp_path / folder)
    assert path.parent == tmp_path / folder / "runs"
    assert read_study(tmp_path / folder, ReadingLog())["study"].unique().tolist() == [study]
    assert len(runs.read_runs(tmp_path / folder)) == len(imported)


def test_overlapping_imports_repeat_no_run_and_equal_rows_stay_apart(tmp_path, csv):
    twice = pd.concat([GOOD.iloc[:1], GOOD], ignore_index=True)  # the first row is there twice
    source, study = csv(twice), tmp_path / "study"
    for where in (None, "tokens > 5e9", "n_experts == 8", "tokens < 5e9"):
        import_runs(source, study, where=where)
    assert len(list((study / "runs").iterdir())) == 4
    again = runs.read_runs(study, law=HOFFMANN)
    assert len(again) == 5
    assert sorted(again.column("loss_val")) == sorted(twice["loss_val"])


def test_an_import_that_cannot_be_written_is_failed_work_and_leaves_nothing(tmp_path, csv, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkError, match="the disk is full"):
        import_runs(csv(GOOD), tmp_path / "study")
    assert list((tmp_path / "study" / "runs").iterdir()) == []


def test_trunks_that_are_not_named_or_named_twice_are_noted(csv):
    named = GOOD.assign(trunk_id=["a", "a", "b", "b"])
    apart = GOOD.assign(n_active=[1e8, 2e8, 3e8, 4e8])
    spanning = GOOD.assign(trunk_id="a")
    for frame, noted in ((GOOD, True), (named, False), (apart, False), (spanning, True)):
        table = runs.read_runs(csv(frame), law=HOFFMANN)
        assert any("trunk_id" in text for text in (*table.notes, *map(str, table.doubts))) == noted


def test_expert_counts_are_whole(csv):
    table = runs.read_runs(csv(GOOD.assign(n_experts=[1, 1.5, 8, 8])), law=JOINT_MOE)
    assert ("n_experts not whole", 1) in table.dropped


@pytest.mark.parametrize("where", ["@pd.io.common.os.getcwd() != ''", "loss_val.__class__ == 1"])
def test_a_condition_reaches_nothing_but_columns(csv, where):
    with pytest.raises(InputError, match="is not in the language"):
        runs.read_runs(csv(GOOD), where=where)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["2,145", "3,001"], None), (["2,145", "300,000"], None), (["1,000,000", "2,145"], [1e6, 2145])],
)
def test_a_comma_that_may_be_a_decimal_one_is_not_read(cells, expected):
    found = numbers(pd.Series(cells))
    assert found.unreadable.all() if expected is None else found.floats.tolist() == expected


def test_a_table_of_very_many_columns_is_read_in_a_moment(csv):
    """In time that does not grow with the square of their number, and without a warning of pandas."""
    wide = pd.concat([GOOD, pd.DataFrame(1, index=GOOD.index, columns=[f"c{i}" for i in range(6000)])], axis=1)
    begun = time.process_time()
    assert len(runs.read_runs(csv(wide))) == len(GOOD)
    assert time.process_time() - begun < 5
