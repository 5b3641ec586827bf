"""A packed study is a study: whatever reads, completes or packs one takes packed rows and parts together."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from places import Place, sweep

from analysis.tables import study as study_module
from analysis.tables.import_study import import_runs
from analysis.tables.runs import read_runs
from scaling import files, parts
from scaling.errors import InputError
from scaling.schema import TABLES, to_arrow, write_parquet
from sweeps import status
from sweeps.store import Store

GRID = "{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K], seed: [0, 1]}"
FOREIGN = "n_active,n_total,tokens,loss_val,n_experts\n" + "".join(
    f"{n}e6,{n}e6,{d}e9,{3 + 1 / n + 1 / d},1\n" for n in (1, 2, 4) for d in (1, 2)
)


@pytest.fixture
def packed(place: Place, tmp_path: Path) -> Place:
    """A study of eight cells, packed and nothing else."""
    sweep(place.grid(GRID), place)
    Store(place.out).pack(tmp_path / "packed")
    return Place(place.folder, tmp_path / "packed", place.log, place.mercy)


def rows(out: Path, table: Any = "runs") -> pd.DataFrame:
    frame = study_module.table_rows(out, table)
    return frame.sort_values(list(frame.columns[:4]), ignore_index=True)


def told(out: Path) -> tuple[int, int, int, int]:
    """Cells, those that are ok, left to train and owed a measurement, as `sweep status` has them."""
    summary = status.study_status(Store(out), *status.opened(out))
    return summary.cells, summary.ok, summary.left, summary.latency_owed


def test_status_and_a_second_sweep_find_everything_done(packed: Place) -> None:
    assert told(packed.out) == (8, 8, 0, 0)
    before = {path: path.read_bytes() for path in packed.out.glob("*.parquet")}
    assert sweep(packed.grid(GRID), packed).trained_now == 0
    assert {path: path.read_bytes() for path in packed.out.rglob("*.parquet")} == before
    assert len(packed.noted("train")) == 8


def test_a_packed_study_without_its_curves_says_why_nothing_is_done(packed: Place) -> None:
    (packed.out / "curves.parquet").unlink()
    assert told(packed.out) == (8, 0, 8, 0)
    (note,) = Store(packed.out).survey().notes
    assert all(words in note for words in ("8 cells of runs.parquet", "curves"))
    assert "evals" not in note


def test_a_sweep_into_it_hides_no_row(packed: Place, place: Place) -> None:
    summary = sweep(packed.grid("{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K, 3K], seed: [0, 1]}"), packed)
    assert (summary.ok, summary.trained_now, summary.left, summary.latency_owed) == (12, 4, 0, 0)
    assert len(read_runs(packed.out)) == 12
    in_parts = sweep(place.grid("{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K, 3K], seed: [0, 1]}"), place)
    assert in_parts.trained_now == 4
    for table in TABLES:
        pd.testing.assert_frame_equal(rows(packed.out, table), rows(place.out, table))


def test_an_import_into_it_hides_no_row_and_survives_sweeps(packed: Place, tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text(FOREIGN)
    import_runs(tmp_path / "theirs.csv", packed.out)
    assert len(read_runs(packed.out)) == 8 + 6
    assert sweep(packed.grid(GRID), packed).trained_now == 0
    assert len(read_runs(packed.out)) == 8 + 6
    import_runs(tmp_path / "theirs.csv", packed.out)  # again
    assert len(read_runs(packed.out)) == 8 + 6
    Store(packed.out).pack(tmp_path / "again")
    assert len(read_runs(tmp_path / "again")) == 8 + 6
    import_runs(tmp_path / "theirs.csv", tmp_path / "again")  # what it holds already
    assert len(read_runs(tmp_path / "again")) == 8 + 6
    assert told(tmp_path / "again") == (8, 8, 0, 0)


def test_packing_both_gives_one_table_and_is_idempotent(packed: Place, tmp_path: Path) -> None:
    sweep(packed.grid(f"[{GRID}, {{d_model: 16, tokens: 3K}}]"), packed)
    whole = {table: rows(packed.out, table) for table in TABLES}
    outs = [tmp_path / "a", tmp_path / "b", packed.out]  # the last in its own place
    Store(packed.out).pack(outs[0])
    Store(outs[0]).pack(outs[1])
    Store(packed.out).pack(outs[2])
    for table in TABLES:
        assert len({(out / f"{table}.parquet").read_bytes() for out in outs}) == 1
        for out in outs:
            pd.testing.assert_frame_equal(rows(out, table), whole[table])
    Store(outs[0]).pack(outs[1])  # over its own packing


@pytest.mark.parametrize("killed_at", range(5))
def test_a_killed_packing_loses_nothing(packed: Place, monkeypatch: pytest.MonkeyPatch, killed_at: int) -> None:
    sweep(packed.grid(f"[{GRID}, {{d_model: 16, tokens: 3K}}]"), packed)
    whole = {table: rows(packed.out, table) for table in TABLES}
    replace, times = os.replace, iter(range(100))

    def killed(*paths: Any) -> None:
        if next(times) == killed_at:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(files.os, "replace", killed)
    if killed_at < 4:
        with pytest.raises(KeyboardInterrupt):
            Store(packed.out).pack(packed.out)
    else:
        Store(packed.out).pack(packed.out)  # four tables, and the grid stays
    for table in TABLES:
        pd.testing.assert_frame_equal(rows(packed.out, table), whole[table])


def test_packing_never_replaces_runs_of_another_study(packed: Place, tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text(FOREIGN)
    import_runs(tmp_path / "theirs.csv", tmp_path / "other")
    with pytest.raises(InputError, match="runs of its own"):
        Store(packed.out).pack(tmp_path / "other")
    Store(tmp_path / "other").pack(tmp_path / "other-packed")
    with pytest.raises(InputError, match="runs of its own"):
        Store(packed.out).pack(tmp_path / "other-packed")
    assert len(read_runs(tmp_path / "other-packed")) == 6


def test_the_part_of_a_run_is_newer_than_its_packed_row(packed: Place) -> None:
    store = Store(packed.out)
    run_id = read_runs(packed.out).frame["run_id"].iloc[0]
    (row,) = store.read("runs", run_id)
    store.write_cell(row, store.read("evals", run_id), store.read("curves", run_id))
    assert parts.read_study_table(packed.out, "runs").notes() == []  # both say the same
    changed = store.read("evals", run_id)[:-1]
    store.write_cell(row | {"loss_val": 9.0}, changed, store.read("curves", run_id))
    table = read_runs(packed.out)
    assert len(table) == 8
    assert table.frame.set_index("run_id")["loss_val"][run_id] == 9.0
    assert len(study_module.evaluation(packed.out, run_id)) == len(changed)
    assert [note for note in table.notes if run_id in note and "runs.parquet" in note]


def test_a_failed_packed_cell_is_tried_again_and_its_part_counts(place: Place, tmp_path: Path) -> None:
    sweep(place.grid(GRID), place)
    store = Store(place.out)
    run_id = next(iter(store.survey().cells))
    (row,) = store.read("runs", run_id)
    failed = row | {"status": "error", "error": "why", "loss_val": None}
    write_parquet(store.path("runs", run_id), to_arrow("runs", [failed]))
    store.pack(tmp_path / "packed")
    packed = Place(place.folder, tmp_path / "packed", place.log, place.mercy)
    assert told(packed.out)[:3] == (8, 7, 0)
    summary = sweep(packed.grid(GRID), packed, retry_failed=True)
    assert (summary.ok, summary.trained_now, summary.failed) == (8, 1, {})
    assert len(read_runs(packed.out)) == 8


@pytest.mark.parametrize("table", TABLES)
def test_a_sweep_trains_nothing_where_a_packed_table_cannot_be_read(packed: Place, table: Any) -> None:
    """Its cells may all be done."""
    path = packed.out / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    damaged = path.read_bytes()
    with pytest.raises(InputError, match=f"{table}.parquet: cannot be read"):
        sweep(packed.grid(GRID), packed)
    assert path.read_bytes() == damaged
    assert len(packed.noted("train")) == 8
    shutil.copytree(packed.out, packed.folder / "more")
    with pytest.raises(InputError, match=f"{table}.parquet"):
        Store(packed.out).pack(packed.folder / "elsewhere")
