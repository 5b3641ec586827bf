"""Live files: every step is told once, whatever happens to the writer, and readers tell what stands still from what
is gone."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from told import CORPUS, NAMES, ONE, TWO, steps

from scaling import live
from scaling.config.run import RunConfig
from scaling.observer import Steps
from sweeps.live import LiveWriter, remove_told
from sweeps.running import running_cells
from sweeps.store import Store

EVERY_S = 0.02


def writer(out: Path, *cells: RunConfig, every_s: float = 60.0) -> LiveWriter:
    return LiveWriter(Store(out), cells or (ONE, TWO), CORPUS, every_s)


def only(out: Path) -> Path:
    (path,) = live.files(out)
    return path


def told(out: Path) -> tuple[live.LiveCall, list[live.Beat]]:
    read = live.read_beats(only(out))
    assert read is not None
    return read


def stopped(out: Path, *reports: Steps, cells: tuple[RunConfig, ...] = ()) -> None:
    """A call that was told of these steps, each in a line of its own, and then failed."""
    with suppress(RuntimeError), writer(out, *cells) as told:
        for report in reports:
            told.phase("train")
            told.trained(report)
            told._tell()
        raise RuntimeError


def test_a_curve_is_the_steps_of_its_trunk_and_of_its_own_cooldown(tmp_path: Path) -> None:
    """The trunk leaves for the first budget after 16 of its 20 steps and goes on from there for the second."""
    parts = [(10, 10, 0, True), (16, 6, 0, True), (20, 4, 0, False), (32, 16, 1, True), (40, 8, 1, False)]
    stopped(tmp_path, *(steps(last, n, budget=budget, shared=shared) for last, n, budget, shared in parts))
    call, beats = told(tmp_path)
    assert [cell.run_id for cell in call.cells] == [ONE.run_id(CORPUS), TWO.run_id(CORPUS)]
    for cell, ends, starts in ((ONE, (10, 16, 20), (0, 10, 16)), (TWO, (10, 16, 32, 40), (0, 10, 16, 32))):
        rows = live.curve_rows(call, beats, cell.run_id(CORPUS))
        assert [row["step"] for row in rows] == [*ends]
        assert [row["tokens"] for row in rows] == [256 * end for end in ends]
        # The mean of the numbers from start + 1 to end.
        assert [row["loss"] for row in rows] == [(end + start + 1) / 2 for start, end in zip(starts, ends, strict=True)]
    assert live.curve_rows(call, beats, "another") == []


def test_every_step_is_averaged_once_whatever_the_moment_of_the_lines(tmp_path: Path) -> None:
    with suppress(RuntimeError), writer(tmp_path, ONE, every_s=0.001) as told_to:
        for last in range(1, 2001):
            told_to.trained(steps(last, 1))
        raise RuntimeError
    _, beats = told(tmp_path)
    assert sum(beat.averaged for beat in beats) == 2000
    whole = sum(beat.averaged * (beat.metrics["loss"][0] or 0.0) for beat in beats if beat.averaged)
    assert whole == pytest.approx(2000 * 2001 / 2, rel=1e-5)  # lines have six digits
    assert beats[-1].tokens_per_s == pytest.approx(256 / 0.5, rel=1e-5)


def test_trunks_side_by_side_have_a_value_each(tmp_path: Path) -> None:
    other = ONE.model_copy(update={"seed": 1})
    stopped(tmp_path, steps(10, 10, trunks=2), cells=(ONE, other))
    call, beats = told(tmp_path)
    losses = {cell: live.curve_rows(call, beats, cell.run_id(CORPUS))[0]["loss"] for cell in (ONE, other)}
    assert [*losses.values()] == pytest.approx([5.5, 5.6])


def test_steps_before_a_resumption_are_lines_of_their_own(tmp_path: Path) -> None:
    with suppress(RuntimeError), writer(tmp_path) as told_to:
        for last in (4, 8, 12):
            told_to.trained(steps(last, 4, past=True))
        told_to.trained(steps(16, 4))
        raise RuntimeError
    call, beats = told(tmp_path)
    assert [row["step"] for row in live.curve_rows(call, beats, TWO.run_id(CORPUS))] == [4, 8, 12, 16]


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    lost = Steps(0, True, 1, NAMES, [np.array([[np.nan, np.inf]], np.float32)], (0.01,), 0.5)
    stopped(tmp_path, lost)
    call, beats = told(tmp_path)
    (row,) = live.curve_rows(call, beats, ONE.run_id(CORPUS))
    assert np.isnan(row["loss"])
    assert np.isnan(row["grad_norm"])


def test_a_line_cut_anywhere_leaves_the_one_before(tmp_path: Path) -> None:
    stopped(tmp_path, steps(10, 10), steps(16, 6))
    path = only(tmp_path)
    whole = path.read_bytes()
    *_, before, last, _ = whole.split(b"\n")
    for cut in range(len(whole) - len(last) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        call = live.read_call(path)
        assert call is not None
        assert call.last.time == json.loads(before)["time"]
    path.write_bytes(whole + b'{"time": 1e999}\n[[[[\n\xff\n' + b"[" * 10_000 + b"\n")
    call = live.read_call(path)
    assert call is not None
    assert call.last.step == 16


def test_the_file_ends_with_the_call_and_stays_if_the_call_failed(tmp_path: Path) -> None:
    with writer(tmp_path):
        assert only(tmp_path).stat().st_size > 0
    assert live.files(tmp_path) == []
    stopped(tmp_path)
    assert told(tmp_path)[0].last.phase == "stopped"
    remove_told(Store(tmp_path), {TWO.run_id(CORPUS)}.__contains__)
    assert live.files(tmp_path)
    remove_told(Store(tmp_path), lambda run_id: False)
    assert live.files(tmp_path) == []


def test_a_worker_that_wakes_up_does_not_touch_the_file_of_the_next(tmp_path: Path) -> None:
    with writer(tmp_path) as first, suppress(RuntimeError), writer(tmp_path) as second:
        second.trained(steps(8, 8))
        first.trained(steps(3, 3))
        first._tell()
        first.__exit__(None, None, None)
        raise RuntimeError
    assert told(tmp_path)[0].last.step == 8


def test_beats_come_while_training_stands_still(tmp_path: Path) -> None:
    with writer(tmp_path, every_s=EVERY_S) as told_to:
        told_to.phase("compile")
        deadline = time.monotonic() + 10
        while len(told(tmp_path)[1]) < 4 and time.monotonic() < deadline:
            time.sleep(EVERY_S)
        _, beats = told(tmp_path)
    assert len(beats) >= 4
    assert beats[-1].phase == "compile"
    assert beats[-1].moved == beats[-2].moved
    assert beats[-1].still_s > beats[-2].still_s


def test_a_full_disk_does_not_stop_training_nor_the_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with writer(tmp_path, every_s=EVERY_S) as told_to:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            told_to.trained(steps(8, 8))
            told_to._thread.join(10 * EVERY_S)
        told_to.trained(steps(16, 8))
        end = time.monotonic() + 10
        while (call := live.calls(tmp_path)[0]).last.step < 16 and time.monotonic() < end:
            time.sleep(EVERY_S)
        assert call.last.step == 16
    assert live.files(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "live").write_text("a file")
    with writer(tmp_path) as told_to:
        told_to.trained(steps(8, 8))
    assert "nothing is told while cells train" in caplog.text


def test_a_tail_gives_each_beat_once_and_follows_a_new_attempt(tmp_path: Path) -> None:
    tail = live.Tail(tmp_path)
    assert tail.look() == []
    with suppress(RuntimeError), writer(tmp_path) as told_to:
        assert [len(seen.new) for seen in tail.look()] == [1]
        told_to.trained(steps(8, 8))
        told_to._tell()
        (seen,) = tail.look()
        assert [beat.step for beat in seen.new] == [8]
        time.sleep(0.05)
        (seen,) = tail.look()
        assert seen.new == ()
        assert 0.05 <= seen.silent_s < 5
        raise RuntimeError
    stopped(tmp_path, steps(4, 4))
    (seen,) = tail.look()
    assert [beat.step for beat in seen.new] == [0, 4, 4]  # the first line, the steps, the end


def test_what_is_no_live_file_is_left_out(tmp_path: Path) -> None:
    stopped(tmp_path, steps(8, 8))
    folder, good = live.folder_of(tmp_path), only(tmp_path)
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "folder.jsonl").mkdir()
    header, beat, *_ = good.read_bytes().split(b"\n")
    fewer = json.dumps(json.loads(beat) | {"rates": [1.0, 2.0]}).encode()
    for name, content in {
        "empty": b"",
        "binary": bytes(range(256)),
        "header": header,
        "list": b"[]\n" + beat + b"\n",
        "deep": b"[" * 100_000 + b"\n" + beat + b"\n",
        "trunks": header + b"\n" + fewer + b"\n",
    }.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    assert [call.path for call in live.calls(tmp_path)] == [good]
    assert [seen.call.path for seen in live.Tail(tmp_path).look()] == [good]


def test_the_current_cell_is_the_first_without_a_row(tmp_path: Path) -> None:
    """After the first budget's cooldown, the trunk goes on from where that left it."""
    stopped(tmp_path, steps(16, 16), steps(20, 4, shared=False))
    labels = {ONE.run_id(CORPUS): "one", TWO.run_id(CORPUS): "two"}
    (cell,) = running_cells(tmp_path, labels, lambda run_id: False)
    assert (cell.cell, cell.step, cell.steps, cell.then) == ("one", 20, 20, 1)
    (cell,) = running_cells(tmp_path, labels, {ONE.run_id(CORPUS)}.__contains__)
    assert (cell.cell, cell.step, cell.steps, cell.tokens) == ("two", 16, 40, 16 * 256)
    assert cell.left_s == pytest.approx((40 - 16) * 0.5)  # steps of half a second
    assert running_cells(tmp_path, labels, lambda run_id: True) == []
    assert running_cells(tmp_path, {}, lambda run_id: False) == []
