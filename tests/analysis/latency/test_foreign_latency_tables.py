"""Latency tables of other tools: read in their units and words, or refused by column and row; times against physics."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from synthetic_latency import CPU, GRID, frame

from analysis.latency import law as latency
from analysis.latency.plausibility import doubts_of_counts, doubts_of_times, floor_seconds
from analysis.latency.table import LatencyTable, device_of, read_latency, works
from analysis.latency.time_units import unit_of
from scaling.errors import InputError

ROWS = frame(grid=GRID[6:14]).assign(device=json.dumps(asdict(CPU)), attention="unfused")
WRITERS = {
    "csv": lambda rows, path: rows.to_csv(path, index=False),
    "json": lambda rows, path: path.write_text(rows.to_json(orient="records")),
    "jsonl": lambda rows, path: path.write_text(rows.to_json(orient="records", lines=True)),
    "parquet": lambda rows, path: rows.to_parquet(path),
}


@pytest.fixture
def read(tmp_path):
    def reader(rows, ending="csv", **asked):
        path = tmp_path / f"rows.{ending}"
        WRITERS[ending](rows, path)
        return read_latency(path, **asked)

    return reader


@pytest.fixture
def refused(read):
    def message(rows, ending="csv", **asked):
        with pytest.raises(InputError) as error:
            read(rows, ending, **asked)
        return str(error.value)

    return message


def texts(rows, name, cells):
    """The rows with some cells of a column as text: {row of the file, from 1: text}."""
    column = rows[name].astype(object)
    for row, text in cells.items():
        column.iloc[row - 1] = text
    return rows.assign(**{name: column})


@pytest.mark.parametrize("ending", WRITERS)
def test_a_table_is_the_same_in_every_format_and_order(read, ending):
    shuffled = ROWS.sample(frac=1, random_state=3)[[*reversed(ROWS.columns)]].reset_index(drop=True)
    found, again = read(ROWS, ending), read(shuffled, ending)
    for table, rows in ((found, ROWS), (again, shuffled)):
        assert table.seconds == pytest.approx(rows["time_ms"] / 1e3, rel=1e-12)
        assert works(table).flops == pytest.approx(works(LatencyTable(rows, "x")).flops)
        assert table.labels.tolist() == list(range(len(rows)))


@pytest.mark.parametrize(
    ("name", "per_ms"),
    [("time_us", 1e3), ("latency_us", 1e3), ("us", 1e3), ("Latency (µs)", 1e3), ("time_s", 1e-3), ("seconds", 1e-3),
     ("latency_ms", 1.0), ("ms", 1.0), ("duration_ns", 1e6), ("step_time_sec", 1e-3)],
)  # fmt: skip
def test_a_unit_in_the_name_of_the_column_is_understood(read, name, per_ms):
    found = read(ROWS.assign(**{name: ROWS["time_ms"] * per_ms}).drop(columns="time_ms"))
    assert found.column("time_ms") == pytest.approx(ROWS["time_ms"], rel=1e-12)


def test_a_time_without_a_unit_or_in_two_columns_is_refused(refused):
    bare = ROWS.drop(columns="time_ms")
    message = refused(bare.assign(latency=ROWS["time_ms"]))
    assert "column latency " in message
    assert "time_ms=latency/1e3" in message
    message = refused(bare.assign(latency_us=1.0, time_s=1.0))
    assert {"latency_us", "time_s"} <= set(message.replace(",", "").split())
    assert unit_of("wall_s", ("time",)) is unit_of("time", ("time",)) is None


def test_a_mapped_time_is_in_the_unit_that_the_map_says(read):
    found = read(ROWS.assign(t=1e3 * ROWS["time_ms"]).drop(columns="time_ms"), mapping={"time_ms": "t/1e3"})
    assert found.column("time_ms") == pytest.approx(ROWS["time_ms"], rel=1e-12)
    assert not any("no fit or import reads" in note for note in found.notes)


@pytest.mark.parametrize("name", ["top_k", "n_experts", "n_active", "batch", "context", "flops", "n_router", "n_heads"])
def test_text_where_a_number_belongs_is_named_by_column_row_and_cell(refused, name):
    message = refused(texts(ROWS, name, {2: "2 of 8", 5: "2 of 8"}))
    assert f"`{name}`" in message
    assert "rows 2 ('2 of 8'), 5 ('2 of 8')" in message
    assert "`where`" in message


def test_groups_of_heads_make_keys_narrow_and_must_divide_the_heads(read, refused):
    heads = ROWS["n_heads"]
    grouped, plain, silent = (read(rows) for rows in (ROWS.assign(n_kv_heads=1), ROWS.assign(n_kv_heads=heads), ROWS))
    assert grouped.column("kv_width") == pytest.approx(ROWS["d_model"] / heads)
    assert plain.column("kv_width").tolist() == silent.column("kv_width").tolist() == ROWS["d_model"].tolist()
    for wrong in (0, 3, 2000, "few"):
        message = refused(texts(ROWS.assign(n_kv_heads=1), "n_kv_heads", {4: wrong}))
        assert "`n_kv_heads`" in message
        assert "row 4" in message


def test_rows_with_text_can_be_left_out_with_a_condition(read):
    rows = texts(ROWS, "top_k", {2: "2 of 8", 5: "2 of 8"})
    found = read(rows, where="top_k > 0")
    assert found.labels.tolist() == [i for i in range(len(rows)) if i not in (1, 4)]


def test_times_that_were_not_measured_are_left_out_and_named(read, refused):
    found = read(texts(ROWS, "time_ms", {3: "OOM", 7: "timeout", 9: None, 11: -1.0}))
    assert dict(found.dropped) == {"time_ms not measured": 2, "time_ms missing": 1, "time_ms not positive": 1}
    said = " ".join(found.notes)
    for place in ("3 ('OOM')", "7 ('timeout')", "missing in row 9", "not positive in row 11"):
        assert place in said
    assert len(found) == len(ROWS) - 4
    assert "row 4 ('1.5 ms')" in refused(texts(ROWS, "time_ms", {4: "1.5 ms"}))


@pytest.mark.parametrize(
    ("name", "word", "known"),
    [("phase", "mixed", "prefill, decode"), ("dtype", "fp4", "float32, bfloat16, float16"), ("platform", "npu", "cpu"),
     ("attention", "paged", "fused, unfused"), ("reads_all", "maybe", "true, false")],
)  # fmt: skip
def test_a_word_that_is_not_known_is_refused_by_row_with_the_known_ones(refused, name, word, known):
    message = refused(texts(ROWS, name, {4: word}))
    assert f"`{name}`" in message
    assert f"row 4 ('{word}')" in message
    assert known in message


def test_words_of_others_are_understood(read):
    rows = ROWS.assign(
        phase=ROWS["phase"].map({"prefill": " Prompt", "decode": "GENERATION"}),
        dtype="torch.float32",
        reads_all="no",
        attention="eager",
    )
    ours, theirs = read(ROWS), read(rows)
    assert theirs.frame["phase"].tolist() == ours.frame["phase"].tolist()
    assert theirs.dtype == "float32"
    assert not theirs.frame["reads_all"].any()
    assert works(theirs).activations == pytest.approx(works(ours).activations)
    assert read(rows.assign(reads_all="Yes")).frame["reads_all"].all()


def test_an_unknown_dispatch_is_refused_where_nothing_else_says_what_is_read(read, refused):
    silent = texts(ROWS.drop(columns="reads_all").assign(dispatch="grouped"), "dispatch", {14: "fused_moe"})
    assert ROWS["n_experts"].iloc[13] > 1
    message = refused(silent)
    assert "row 14 ('fused_moe')" in message
    assert "`reads_all`" in message
    told = read(silent.assign(reads_all=True))
    assert told.frame["reads_all"].all()
    capacity = read(silent.assign(dispatch="capacity"))
    assert (capacity.frame["reads_all"] == (capacity.frame["n_experts"] > 1)).all()
    unsaid = read(silent.drop(columns="dispatch"))
    assert not unsaid.frame["reads_all"].any()
    assert any("neither reads_all nor dispatch" in note for note in unsaid.notes)


def test_our_rows_say_which_implementation_of_attention_they_have_and_older_ones_do_not(read):
    """Rows of a study from before the column are of plain products."""
    ours = ROWS.drop(columns="attention").assign(shape_id="of scaling bench")
    older = ours.assign(attention=np.where(np.arange(len(ours)) < 3, None, "xla"))
    for rows in (ours, older, ours.assign(attention="xla"), ours.assign(attention=None)):
        np.testing.assert_array_equal(read(rows).column("n_heads"), ROWS["n_heads"])
    assert not read(ours.assign(attention="cudnn")).column("n_heads").any()


def test_attention_is_fused_or_not_as_a_column_says_or_as_is_said(read, refused):
    silent = ROWS.drop(columns="attention")
    assert any("n_heads" in note and "fused" in note for note in read(silent).notes)
    assert not any("attention" in note for note in read(silent.assign(shape_id="of scaling bench")).notes)
    fused, headless = read(ROWS.assign(attention="flash")), read(silent.drop(columns="n_heads"))
    assert works(fused).activations == pytest.approx(works(headless).activations)
    assert np.all(works(fused).activations < works(read(silent)).activations)
    assert any("taken to be fused" in note for note in headless.notes)
    assert "row 6" in refused(texts(ROWS, "attention", {6: "fused"}))
    assert "row 6" in refused(texts(silent, "n_heads", {6: None}))
    assert "`n_heads` is missing" in refused(ROWS.drop(columns="n_heads"))


def test_dense_rows_may_leave_e_and_k_blank_and_contradictions_are_named(read, refused):
    rows = frame(grid=GRID[:8]).assign(attention="unfused")
    ones = rows["n_experts"] == 1
    blank = rows.assign(**{name: rows[name].where(~ones) for name in ("n_experts", "top_k", "distinct_experts")})
    assert read(blank).column("n_experts").tolist() == rows["n_experts"].tolist()
    words = blank.assign(n_experts=rows["n_experts"].astype(object).where(~ones, "dense"))
    assert read(words).column("top_k").tolist() == rows["top_k"].where(~ones, 1).tolist()
    for name, cell in (("top_k", 64), ("n_active", 1e12), ("distinct_experts", 99), ("n_experts", 8.5)):
        assert f"`{name}`" in (message := refused(texts(ROWS, name, {14: cell})))
        assert "row 14" in message


def test_what_a_table_does_not_say_is_said_or_refused(read, refused):
    bare = ROWS.drop(columns=["dtype", "busy_cores", "device"])
    found = read(bare)
    assert found.dtype == "float32"
    assert any("float32" in note for note in found.notes)
    assert "column dtype" in refused(bare.assign(platform="gpu"))
    nowhere = read(ROWS.drop(columns=["platform", "device", "device_kind"]))
    with pytest.raises(InputError, match="on which device"):
        device_of(nowhere)
    for cell in ("{", "[1]", "NVIDIA Q", json.dumps(asdict(CPU) | {"peak_flops": 0}), json.dumps({"peak_flops": "x"})):
        with pytest.raises(InputError, match="`device` in row 3"):
            device_of(read(texts(ROWS, "device", {3: cell})))
    assert device_of(read(ROWS.assign(device="h100"))).name == "h100"


def fitted(rows, on=CPU):
    return latency.fit_latency(LatencyTable(rows, "planted"), on, np.random.default_rng(0), resamples=5)


@pytest.mark.parametrize(("unit", "factor"), [("microseconds", 1e3), ("nanoseconds", 1e6)])
def test_times_in_a_smaller_unit_raise_a_doubt_that_names_it(unit, factor):
    rows = frame(grid=GRID[6:14])
    assert not any("milliseconds" in warning for warning in fitted(rows).warnings)
    doubts = [warning for warning in fitted(rows.assign(time_ms=factor * rows["time_ms"])).warnings if unit in warning]
    assert len(doubts) == 1
    best = (floor_seconds(LatencyTable(rows, "planted"), CPU) / (rows["time_ms"] / 1e3)).groupby(rows["phase"]).max()
    assert f"{best.max():.0%}" in doubts[0]


def test_one_phase_in_another_unit_is_named():
    rows = frame(grid=GRID[6:14])
    scaled = rows.assign(time_ms=rows["time_ms"] * np.where(rows["phase"] == "prefill", 1e3, 1.0))
    (doubt,) = doubts_of_times(LatencyTable(scaled, "planted"), CPU)
    assert "no prefill row" in doubt
    assert "microseconds" in doubt


def test_times_that_the_device_cannot_reach_are_refused_with_row_and_unit():
    rows = frame(grid=GRID[6:14])
    with pytest.raises(InputError) as error:
        fitted(rows.assign(time_ms=rows["time_ms"] / 1e3))
    fastest = int(np.argmax(floor_seconds(LatencyTable(rows, "planted"), CPU) / rows["time_ms"])) + 1
    assert f"row {fastest}, " in str(error.value)
    assert "seconds" in str(error.value)
    assert "time_s" in str(error.value)
    slow = replace(CPU, peak_flops=CPU.peak_flops / 1e6, bandwidth=CPU.bandwidth / 1e6, levels=())
    with pytest.raises(InputError, match=r"all rows are faster .*`device`"):
        fitted(rows, slow)


def test_some_rows_under_the_floor_and_some_in_another_unit_are_named_by_the_row_of_the_file():
    rows = frame(grid=GRID[6:14])
    floors = 1e3 * floor_seconds(LatencyTable(rows, "planted"), CPU)
    some = rows.assign(time_ms=np.where(np.isin(np.arange(len(rows)), (4, 9)), floors / 2, rows["time_ms"]))
    table = LatencyTable(some.iloc[1:].reset_index(drop=True), "part", labels=np.arange(1, len(rows)))
    doubts = doubts_of_times(table, CPU)
    assert len(doubts) == 1
    assert doubts[0].startswith("2 measured times")
    assert "rows 5, 10" in doubts[0]
    mixed = rows.assign(time_ms=rows["time_ms"] * np.where(np.arange(len(rows)) == 7, 1e3, 1.0))
    (doubt,) = [warning for warning in fitted(mixed).warnings if "microseconds" in warning]
    assert "row 8" in doubt


def test_rows_of_another_device_than_the_one_named_are_refused(read):
    with pytest.raises(InputError, match=r"`device_kind` is another device than h100 in rows 1 \('NVIDIA A100"):
        device_of(read(ROWS.assign(device_kind="NVIDIA A100-SXM4-80GB")), "h100")
    assert device_of(read(ROWS.assign(device_kind="NVIDIA A100-SXM4-80GB")), "a100").name == "a100"


def test_flops_and_bytes_in_another_unit_are_named():
    rows = frame(grid=GRID[6:14])
    for name in ("flops", "bytes"):
        scaled = rows.assign(**{name: rows[name] * np.where(np.arange(len(rows)) == 7, 1e-9, 1.0)})
        (doubt,) = doubts_of_counts(LatencyTable(scaled, "planted"))
        assert doubt.startswith(f"{name} in row 8 ")
    assert doubts_of_counts(LatencyTable(rows, "planted")) == []
