"""Parts on disk: complete or missing, and no damaged part counts as a finished cell."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from places import ROOT
from synthetic import cells, write_study

from analysis.methods.dense_twins import paired_effects
from analysis.tables import runs
from analysis.tables import study as study_module
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from scaling.errors import InputError, WorkError
from scaling.files import write_atomically
from sweeps.store import Store

CURVE = [{"step": 1, "loss": 2.0}]
EVAL = [{"document": "a", "n_tokens": 5, "loss": 2.0}]


def row(seed: int = 0, **values: Any) -> dict[str, Any]:
    return describe(RunConfig(seed=seed), "hash") | {"status": "ok", "error": "", "wall_s": 2.0} | values


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "study")


def test_written_rows_are_read_with_units_and_version(store: Store) -> None:
    store.write_cell(row(), EVAL, CURVE)
    run_id = row()["run_id"]
    read = store.read("runs", run_id)
    assert len(read) == 1
    assert {k: v for k, v in read[0].items() if v is not None} == {k: v for k, v in row().items() if v is not None}
    schema = pq.read_schema(store.path("runs", run_id))
    assert schema.field("loss_val").metadata[b"unit"] == b"nats/token"
    assert schema.metadata[b"schema_version"] == b"1"
    assert store.survey().cells[run_id].ok
    assert store.part(run_id) == store.survey().cells[run_id]
    assert store.part("f" * 16) is None


def test_missing_is_the_grid_minus_the_finished_cells(store: Store) -> None:
    rows = [row(seed) for seed in range(3)]
    store.write_cell(rows[0], EVAL, CURVE)
    store.write_cell(rows[1] | {"status": "error", "error": "why"}, [], [])
    ids = [one["run_id"] for one in rows]
    survey = store.survey()
    assert survey.missing(ids) == [ids[2]]
    assert survey.missing(ids, retry_failed=True) == ids[1:]
    assert survey.of_older_grids(ids[1:]) == [ids[0]]


def test_cells_are_counted_by_code_version(store: Store) -> None:
    store.write_cell(row(0, code_version="1"), EVAL, CURVE)
    store.write_cell(row(1, code_version="2"), EVAL, CURVE)
    assert store.survey().code_versions() == {"1": 1, "2": 1}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("table", ["runs", "evals", "curves"])
@pytest.mark.parametrize("damage", [truncate, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_part_makes_the_cell_missing_and_is_renamed(store: Store, table: Any, damage: Any) -> None:
    store.write_cell(row(), EVAL, CURVE)
    store.write_cell(row(1), EVAL, CURVE)
    run_id = row()["run_id"]
    damage(store.path(table, run_id))
    survey = store.survey()
    assert set(survey.cells) == {row(1)["run_id"]}
    if table == "runs" and damage is Path.unlink:
        return
    (message,) = store.tidy(survey)
    assert run_id in message
    assert store.path("runs", run_id).with_suffix(".parquet.unusable").exists()
    assert store.survey().unusable == {}


def test_a_part_under_another_name_is_kept_with_its_row(store: Store) -> None:
    """So are those of imports: a sweep that set them aside would hide their rows."""
    store.write_cell(row(), EVAL, CURVE)
    os.replace(store.path("runs", row()["run_id"]), store.path("runs", "f" * 16))
    assert set(store.survey().cells) == {row()["run_id"]}
    assert store.tidy(store.survey()) == []
    assert len(study_module.table_rows(store.out, "runs")) == 1


def test_the_temporary_file_of_a_killed_writer_is_removed(store: Store) -> None:
    """The writer dies between writing and renaming: there is no part, and the next driver removes the file."""
    script = (
        "import os, sys, pathlib; from sweeps import store\n"
        "store.os.replace = lambda *paths: os.kill(os.getpid(), 9)\n"
        "store.write_atomically(pathlib.Path(sys.argv[1]), b'half')\n"
    )
    target = store.path("runs", "a" * 16)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(target)], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert ended.returncode == -9
    assert [path.suffix for path in target.parent.iterdir()] == [".tmp"]
    survey = store.survey()
    assert survey.cells == {}
    assert survey.unusable == {}
    store.tidy(survey)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_reported_and_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = store.out / "runs" / "x.parquet"
    write_atomically(path, b"before")

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(WorkError, match=r"x\.parquet: cannot be written, the disk is full"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert [one.name for one in path.parent.iterdir()] == ["x.parquet"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_device_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *rest, **more: real("/dev/full", *rest, **more))
    with pytest.raises(WorkError, match="the disk is full"):
        write_atomically(store.out / "x", b"content")


def test_an_impossible_folder_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used as the study folder"), Store(tmp_path / "file").lock():
        pass


def test_the_lock_keeps_a_second_driver_out_and_dies_with_the_first(store: Store) -> None:
    script = (
        "import subprocess, sys, pathlib; from sweeps.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).lock():\n"
        # as Ray's daemons outlive a driver
        "    child = subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True); sys.stdin.read()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(store.out)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        try:
            with pytest.raises(InputError, match=f"another sweep .*process {first.pid} on"), store.lock():
                pass
            assert f"process {first.pid} on" in store.driver()
            first.kill()
            first.wait()
            assert store.driver() == ""
            with store.lock():
                assert store.driver() != ""
        finally:
            os.kill(child, 9)
    assert store.driver() == ""


def test_a_packed_study_reads_as_its_parts(tmp_path: Path) -> None:
    """Runs, evaluations, curves and the paired effects computed from them are the same."""
    study, packed = (
        write_study(tmp_path / "study", configs=cells(experts=(1, 4), widths=(32,), tokens=(500_000, 1_000_000))),
        tmp_path / "packed",
    )
    written = Store(study).pack(packed)
    assert [path.name for path in written] == ["runs.parquet", "evals.parquet", "curves.parquet", "latency.parquet"]
    assert (packed / "grid.yaml").read_bytes() == (study / "grid.yaml").read_bytes()
    one, other = (runs.read_runs(path).frame.set_index("run_id").sort_index() for path in (study, packed))
    pd.testing.assert_frame_equal(one, other)
    for table in ("runs", "latency"):
        pd.testing.assert_frame_equal(study_module.table_rows(study, table), study_module.table_rows(packed, table))
    for run_id in one.index:
        pd.testing.assert_frame_equal(study_module.evaluation(study, run_id), study_module.evaluation(packed, run_id))
        pd.testing.assert_frame_equal(
            study_module.curve(study, run_id),
            study_module.curve(packed, run_id)[study_module.curve(study, run_id).columns],
        )
    with pytest.raises(InputError, match="no evaluation"):
        study_module.evaluation(packed, "0" * 16)
    effects = [paired_effects(path, runs.read_runs(path).frame).rows for path in (study, packed)]
    pd.testing.assert_frame_equal(*effects)
    assert sum(path.stat().st_size for path in written) < sum(p.stat().st_size for p in study.rglob("*.parquet")) / 3


def test_an_empty_folder_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no parts to pack"):
        Store(tmp_path).pack(tmp_path / "packed")
