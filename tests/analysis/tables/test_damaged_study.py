"""A damaged file of a study is named and left out, and the others are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from synthetic import cells, write_study

from analysis.isoflop.envelope import training_curves
from analysis.latency.table import read_latency
from analysis.methods.dense_twins import paired_effects
from analysis.tables import study
from analysis.tables.runs import read_runs
from scaling import parts
from scaling.errors import InputError
from scaling.schema import TABLES
from sweeps.store import Store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    configs = cells(experts=(1, 4), widths=(32, 48), tokens=(500_000, 1_000_000))
    return write_study(tmp_path_factory.mktemp("whole") / "study", configs=configs)


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "study"))


def changed(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


def retyped(name: str, to: pa.DataType) -> Callable[[Path], None]:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.nulls(len(table), to) if pa.types.is_nested(to) else table[name].cast(to))

    return changed(change)


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def not_utf8(table: pa.Table) -> pa.Table:
    name = next(field.name for field in table.schema if field.type == pa.string())
    bad = pa.array([b"\xff\xfe"] * len(table)).view(pa.string())
    return table.set_column(table.schema.get_field_index(name), name, bad)


NUMBER = {"runs": "loss_val", "evals": "loss", "curves": "loss", "latency": "time_ms"}


def times(table: pa.Table, name: str) -> pa.Table:
    stamps = pa.array([0] * len(table), pa.timestamp("s"))
    return table.set_column(table.schema.get_field_index(name), name, stamps)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "not Parquet": lambda path: path.write_text("n_active,tokens\n1,2\n"),
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "other columns": changed(lambda table: pa.table({"a": [1], "b": ["x"]})),
    "bytes that are not UTF-8": changed(not_utf8),
    "no columns": changed(lambda table: pa.table({})),
}
CHANGED_COLUMNS: dict[str, Callable[[str], Callable[[Path], None]]] = {
    "text": lambda name: retyped(name, pa.string()),
    "lists": lambda name: retyped(name, pa.list_(pa.float64())),
    "times": lambda name: changed(lambda table: times(table, name)),
    "twice": lambda name: changed(lambda table: table.append_column(name, table[name])),
}


@pytest.fixture(scope="module")
def rows(whole: Path) -> dict[Any, pa.Table]:
    return {name: parts.read_study_table(whole, name).rows for name in TABLES}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", [*DAMAGES, *CHANGED_COLUMNS])
def test_a_damaged_part_is_named_and_the_others_are_read(
    whole: Path, tmp_path: Path, rows: dict[Any, pa.Table], table: Any, kind: str
) -> None:
    if kind == "bytes that are not UTF-8" and table == "curves":
        pytest.skip("it has no column of text")
    out = tmp_path / "study"
    shutil.copytree(whole / table, out / table)
    victim = parts.files(out, table)[0]
    (DAMAGES.get(kind) or CHANGED_COLUMNS[kind](NUMBER[table]))(victim)
    read = parts.read_study_table(out, table)
    assert list(read.unreadable) == [victim]
    assert read.rows.equals(rows[table].filter(pc.not_equal(rows[table]["run_id"], victim.stem)))


@pytest.mark.parametrize("table", TABLES)
def test_what_stands_on_a_damaged_part_names_it_and_goes_on(out: Path, table: Any) -> None:
    ok = read_runs(out).frame
    largest = str(ok.sort_values("tokens")["run_id"].iloc[-1])
    victim = parts.part_path(out, table, largest)
    victim.write_bytes(victim.read_bytes()[:-20])
    runs = read_runs(out)
    assert len(runs) == len(ok) - (table == "runs")
    assert len(paired_effects(out, runs.frame).rows) >= 1
    curves, latency = training_curves(out, runs), read_latency(out)
    assert len(curves)
    assert len(latency)
    if table == "runs":
        assert [note for note in runs.notes if victim.name in note]
        assert ("an unreadable file", 1) in runs.dropped
    if table == "evals":
        with pytest.raises(InputError, match=victim.name):
            study.evaluation(out, victim.stem)
    if table == "curves":
        assert [note for note in curves.notes if victim.name in note]
    if table == "latency":
        assert [note for note in latency.notes if victim.name in note]
    survey = Store(out).survey()
    assert (largest in survey.cells) == (table == "latency")
    assert set(survey.unusable) == {parts.part_path(out, "latency" if table == "latency" else "runs", largest)}


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_packed_table_is_named_and_the_parts_are_read(out: Path, table: Any) -> None:
    Store(out).pack(out)
    before = parts.read_study_table(out, table).rows
    packed = parts.packed_path(out, table)
    packed.write_bytes(packed.read_bytes()[:100])
    read = parts.read_study_table(out, table)
    assert list(read.unreadable) == [packed]
    assert sorted(read.rows["run_id"].to_pylist()) == sorted(before["run_id"].to_pylist())


def test_a_study_without_a_readable_run_is_refused_with_the_reasons(out: Path) -> None:
    for path in (out / "runs").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no file of its runs can be read .*\.parquet"):
        read_runs(out)


def test_numbers_of_another_width_are_numbers(out: Path) -> None:
    """As other tools write them: float32, whole numbers as int32 or, with missing ones, as floats."""
    before = read_runs(out).frame
    victim = parts.part_path(out, "runs", str(before["run_id"].iloc[0]))
    narrow = {
        "tokens": pa.float64(),
        "n_experts": pa.int32(),
        "status": pa.large_string(),
        "router": pa.dictionary(pa.int32(), pa.string()),
    }

    def change(table: pa.Table) -> pa.Table:
        for name, to in narrow.items():
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(to))
        missing = pa.array([np.nan], pa.float64(), from_pandas=False)
        return table.set_column(table.schema.get_field_index("tokens_own"), "tokens_own", missing)

    changed(change)(victim)
    after = read_runs(out).frame
    assert parts.read_study_table(out, "runs").unreadable == {}
    columns = [name for name in before.columns if name != "tokens_own"]
    assert before[columns].equals(after[columns])


def test_columns_of_other_people_are_kept_unless_files_disagree(out: Path) -> None:
    first, second, *_ = parts.files(out, "runs")
    changed(lambda table: table.append_column("team", pa.array(["a"])).append_column("note", pa.array([1])))(first)
    changed(lambda table: table.append_column("team", pa.array(["b"])).append_column("note", pa.array(["x"])))(second)
    rows = study.table_rows(out, "runs")
    assert sorted(rows["team"].dropna()) == ["a", "b"]
    assert "note" not in rows
    assert parts.read_study_table(out, "runs").unreadable == {}


def test_a_repeated_document_is_no_evaluation(out: Path) -> None:
    path = parts.files(out, "evals")[0]
    changed(lambda table: pa.concat_tables([table, table.slice(0, 1)]))(path)
    with pytest.raises(InputError, match="document twice"):
        study.evaluation(out, path.stem)
    assert len(paired_effects(out, read_runs(out).frame).rows) >= 1


@pytest.mark.parametrize("config", ["{", "[1]", '"x"', '{"model": 3, "train": [], "data": "x"}', "[" * 100_000])
def test_a_config_that_is_none_stops_nothing(out: Path, config: str) -> None:
    for path in parts.files(out, "runs"):
        changed(lambda table: table.set_column(table.schema.get_field_index("config"), "config", pa.array([config])))(
            path
        )
    assert len(paired_effects(out, read_runs(out).frame).rows) >= 1
