"""Merged parts: a convenience that every change of a part overrules, and that nothing is lost or doubled by."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from places import ROOT
from synthetic import cells, write_study

from analysis.tables import study as study_module
from scaling import files, parts
from scaling.parts import merged
from scaling.schema import TABLES, to_arrow, write_parquet
from sweeps.store import Store


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts are enough to be merged, and eight go into one file."""
    monkeypatch.setattr(merged, "LEAST", 4)
    monkeypatch.setattr(merged, "MOST", 8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 18 cells, of which one diverged."""
    configs = cells(experts=(1, 4), widths=(32, 48), tokens=(500_000, 1_000_000, 2_000_000, 4_000_000))
    return write_study(tmp_path_factory.mktemp("whole") / "study", configs=configs)


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "study")
    return tmp_path / "study"


def everything(out: Path) -> dict[Any, pa.Table]:
    return {table: parts.read_study_table(out, table).rows for table in TABLES}


def same(one: dict[Any, pa.Table], other: dict[Any, pa.Table]) -> bool:
    return all(one[table].equals(other[table]) for table in TABLES)


def merged_names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / parts.MERGED).glob("*"))


def opened_parts(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The parts that are read from now on."""
    from scaling.parts import study_table

    read, paths = study_table.read_file, []

    def noted(path: Path, table: Any) -> pa.Table:
        paths.append(path)
        return read(path, table)

    monkeypatch.setattr(study_table, "read_file", noted)
    return paths


def test_a_merged_study_reads_as_its_parts_without_opening_them(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, survey = everything(out), Store(out).survey()
    Store(out).merge()
    assert [sum(name.startswith(table) for name in merged_names(out)) for table in TABLES] == [2, 2, 2, 2]
    paths = opened_parts(monkeypatch)
    assert same(everything(out), before)
    assert Store(out).survey() == survey
    # 18 runs make files of 8 and 8, which leaves 2; 17 of the others leave 1. The survey reads runs and latency again.
    assert len(paths) == (2 + 3 * 1) + (2 + 1)


def test_merging_again_writes_nothing(out: Path) -> None:
    Store(out).merge()
    before = merged_names(out)
    Store(out).merge()
    assert merged_names(out) == before


@pytest.mark.parametrize("table", TABLES)
def test_a_part_written_again_counts(out: Path, table: Any) -> None:
    Store(out).merge()
    path = parts.files(out, table)[0]
    number = {"runs": "loss_val", "evals": "loss", "curves": "loss", "latency": "time_ms"}[table]
    rows = parts.read_file(path, table)
    changed = rows.set_column(rows.schema.get_field_index(number), number, pa.array([7.5] * len(rows)))
    names = [name for name in changed.column_names if name in TABLES[table]]
    write_parquet(path, changed.select(names), out)
    frame = study_module.table_rows(out, table)
    assert (frame.loc[frame["run_id"] == path.stem, number] == 7.5).all()
    assert (frame.loc[frame["run_id"] != path.stem, number] != 7.5).all()
    assert len(frame) == len(study_module.table_rows(out, table))


def test_a_part_changed_in_place_counts_and_one_that_is_gone_does_not(out: Path) -> None:
    Store(out).merge()
    first, second, *_ = parts.files(out, "runs")
    content = bytearray(first.read_bytes())
    content[-1] ^= 1  # of the same size
    first.write_bytes(content)
    second.unlink()
    read = parts.read_study_table(out, "runs")
    assert list(read.unreadable) == [first]
    assert len(read.rows) == 16
    assert {first.stem, second.stem}.isdisjoint(read.rows["run_id"].to_pylist())
    assert {first.stem, second.stem}.isdisjoint(Store(out).survey().cells)


@pytest.mark.parametrize("table", ["evals", "curves"])
def test_a_damaged_merged_part_makes_its_cell_missing(out: Path, table: Any) -> None:
    Store(out).merge()
    path = parts.files(out, table)[0]
    path.write_bytes(path.read_bytes()[:-20])
    survey = Store(out).survey()
    assert path.stem not in survey.cells
    assert list(survey.unusable) == [parts.part_path(out, "runs", path.stem)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "a folder", "nested"])
def test_a_damaged_merged_file_costs_time_alone(out: Path, damage: str) -> None:
    before = everything(out)
    Store(out).merge()
    for path in (out / parts.MERGED).iterdir():
        content = bytearray(path.read_bytes())
        if damage == "flipped":
            for place in range(40, len(content) // 2, 50):  # in the pages
                content[place] ^= 255
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage == "nested":
            rows = to_arrow("evals", []).replace_schema_metadata({"parts": "[" * 100_000})
            write_parquet(path, rows, out)
        else:
            path.write_bytes({"cut": content[:-30], "flipped": content, "empty": b"", "text": b"PAR1"}[damage])
    assert same(everything(out), before)
    Store(out).merge()
    assert same(everything(out), before)


def test_a_study_copied_elsewhere_reads_its_parts(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times and inodes of the copy are others."""
    before = everything(out)
    Store(out).merge()
    shutil.copytree(out, tmp_path / "copy")
    paths = opened_parts(monkeypatch)
    assert same(everything(tmp_path / "copy"), before)
    assert len(paths) == 18 + 3 * 17


def test_merged_files_of_parts_that_changed_are_removed(out: Path) -> None:
    Store(out).merge()
    before = merged_names(out)
    for table in TABLES:
        for path in parts.files(out, table):
            path.write_bytes(path.read_bytes())
    Store(out).merge()
    assert set(merged_names(out)).isdisjoint(before)
    assert len(merged_names(out)) == len(before)


def test_imports_and_columns_of_other_people_stay_parts(out: Path) -> None:
    first = parts.files(out, "runs")[0]
    rows = parts.read_file(first, "runs")
    write_parquet(first, rows.append_column("team", pa.array(["ours"])), out)
    several = pa.concat_tables([parts.read_file(path, "runs") for path in parts.files(out, "runs")[1:4]])
    write_parquet(out / "runs" / "theirs.parquet", several, out)
    before = everything(out)
    Store(out).merge()
    assert same(everything(out), before)
    listed = {entry.name for file in merged.merged_files(out, "runs") for entry in file.entries}
    assert first.name not in listed
    assert "theirs.parquet" not in listed


def test_packing_takes_merged_parts(out: Path, tmp_path: Path) -> None:
    Store(out).pack(tmp_path / "one")
    Store(out).merge()
    Store(out).pack(tmp_path / "two")
    for table in TABLES:
        assert parts.packed_path(tmp_path / "one", table).read_bytes() == (
            parts.packed_path(tmp_path / "two", table).read_bytes()
        )
    Store(out).pack(out)
    assert same(everything(out), everything(tmp_path / "one"))


def test_a_full_disk_and_a_link_stop_nothing(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(out)
    (tmp_path / "elsewhere").mkdir()
    (out / parts.MERGED).symlink_to(tmp_path / "elsewhere")
    Store(out).merge()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (out / parts.MERGED).unlink()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    Store(out).merge()
    assert merged_names(out) == []
    assert same(everything(out), before)


def test_a_killed_merging_leaves_the_study_whole(out: Path) -> None:
    before = everything(out)
    script = (
        "import os, sys, pathlib; from scaling import files\n"
        "from scaling.parts import merged; from sweeps.store import Store\n"
        "merged.LEAST, merged.MOST, real, left = 4, 8, files.os.replace, [3]\n"
        "def replace(*paths):\n"
        "    left[0] -= 1\n"
        "    real(*paths) if left[0] else os.kill(os.getpid(), 9)\n"
        "files.os.replace = replace\n"
        "Store(pathlib.Path(sys.argv[1])).merge()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(out)], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert ended.returncode == -9
    assert len(merged_names(out)) == 3
    assert same(everything(out), before)
    store = Store(out)
    store.tidy(store.survey())
    assert [name for name in merged_names(out) if name.endswith(".tmp")] == []
    store.merge()
    assert len(merged_names(out)) == 8
    assert same(everything(out), before)


def test_a_merged_file_that_vanishes_while_it_is_read_is_none(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver removes one that hardly counts between a reader's look at its list and at its rows."""
    before = everything(out)
    Store(out).merge()
    read = merged.MergedFile.read

    def vanishing(self: merged.MergedFile, table: Any) -> pa.Table:
        self.path.unlink()
        return read(self, table)

    monkeypatch.setattr(merged.MergedFile, "read", vanishing)
    assert same(everything(out), before)


def test_frames_are_the_same_whatever_is_merged(out: Path) -> None:
    frames = [study_module.table_rows(out, table) for table in TABLES]
    Store(out).merge()
    for table, frame in zip(TABLES, frames, strict=True):
        pd.testing.assert_frame_equal(study_module.table_rows(out, table), frame)
