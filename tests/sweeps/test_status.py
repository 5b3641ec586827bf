"""The status of a study tells what trains, what trained when a worker or driver died, and what has a row."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from places import Place, sweep
from told import steps

from scaling import live
from scaling.cli.show import status as pages
from scaling.config.run import RunConfig
from sweeps import running
from sweeps.live import LiveWriter
from sweeps.status import StudyWatch, corpus_hashes, opened
from sweeps.store import Store

ONE, BOTH = "{d_model: 16, tokens: 64K, seed: 0}", "{d_model: 16, tokens: 64K, seed: [0, 1]}"


@pytest.fixture
def study(place: Place) -> tuple[Path, RunConfig, str]:
    """A study of two cells of which one is done: its folder, the cell that is left, and the hash of its text."""
    sweep(place.grid(BOTH), place)
    grid, run_ids = opened(place.out)
    run_id, cell = next((run_id, cell) for run_id, cell in run_ids.items() if cell.seed == 1)
    for table in ("runs", "evals", "curves", "latency"):
        (place.out / table / f"{run_id}.parquet").unlink()
    return place.out, cell, corpus_hashes(grid)[cell.data]


def test_a_cell_runs_under_a_driver_and_is_interrupted_without_one(study: tuple[Path, RunConfig, str]) -> None:
    out, cell, corpus = study
    store, watch = Store(out), StudyWatch(out)
    assert (watch.look().running, watch.look().interrupted) == ([], [])
    with suppress(RuntimeError), LiveWriter(store, [cell], corpus, 60.0) as writer, store.lock():
        writer.phase("train")
        writer.trained(steps(250, 250))
        writer._tell()
        (found,) = watch.look().running
        assert (found.run_id, found.step, found.steps) == (cell.run_id(corpus), 250, 1000)
        assert (found.phase, found.loss) == ("train", pytest.approx(125.5))
        assert found.tokens_per_s == pytest.approx(64 / 0.5)  # batches of 64 tokens, half a second each
        assert found.left_s == pytest.approx(750 * 0.5)
        assert not found.silent
        raise RuntimeError
    now = watch.look()
    assert (now.running, now.driver, now.left) == ([], "", 1)
    (found,) = now.interrupted
    assert (found.step, found.phase) == (250, "stopped")


def test_a_cell_with_a_row_is_counted_and_not_shown(study: tuple[Path, RunConfig, str], place: Place) -> None:
    out, cell, corpus = study
    watch = StudyWatch(out)
    with suppress(RuntimeError), LiveWriter(Store(out), [cell], corpus, 60.0):
        raise RuntimeError
    assert (watch.look().ok, len(watch.look().interrupted)) == (1, 1)
    path = live.files(out)[0]
    kept = path.read_bytes()
    sweep(place.grid(BOTH), place)
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(kept)  # as if nobody had cleared up
    watch._cost_s = 0.0
    assert (watch.look().ok, watch.look().interrupted) == (2, [])


def test_counting_is_not_repeated_while_nothing_changes(
    study: tuple[Path, RunConfig, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = StudyWatch(study[0])
    monkeypatch.setattr(Store, "survey", lambda store: pytest.fail("counted again"))
    assert watch.look().ok == 1


@pytest.mark.parametrize(("age", "pid", "silent"), [(0, None, False), (60, None, True), (10, 1 << 30, True)])
def test_a_worker_is_silent_when_it_is_not_heard_of_or_gone(
    study: tuple[Path, RunConfig, str], monkeypatch: pytest.MonkeyPatch, age: float, pid: int | None, silent: bool
) -> None:
    """Beats come every 3 s. A process of this machine that does not exist any more does not beat again."""
    out, cell, corpus = study
    if pid is not None:
        monkeypatch.setattr("sweeps.live.os.getpid", lambda: pid)
    with LiveWriter(Store(out), [cell], corpus, 60.0), Store(out).lock():
        later = time.time() + age
        monkeypatch.setattr(running, "time", SimpleNamespace(time=lambda: later))
        (found,) = StudyWatch(out).look().running
        assert found.silent == silent
        assert found.seen_s == pytest.approx(age, abs=5)


def test_a_status_is_a_json_document(study: tuple[Path, RunConfig, str]) -> None:
    from dataclasses import asdict

    out, cell, corpus = study
    with LiveWriter(Store(out), [cell], corpus, 60.0) as writer, Store(out).lock():
        writer.trained(steps(8, 8))
        writer._tell()
        document = json.loads(json.dumps(asdict(StudyWatch(out).look()), allow_nan=False))
    (found,) = document["running"]
    assert (found["step"], found["metrics"]["grad_norm"]) == (8, 1.0)


def test_watching_without_a_terminal_prints_changes_alone(
    study: tuple[Path, RunConfig, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cell, corpus = study
    looks: Iterator[Any] = iter([0, 0, 8, 8])

    def look() -> Any:
        told = next(looks, None)
        if told is None:
            raise KeyboardInterrupt
        if told and not writer._last.step:
            writer.trained(steps(told, told))
            writer._tell()
        return study_watch.look()

    study_watch = StudyWatch(out)
    monkeypatch.setattr(pages, "_LINES_S", 0.0)
    with LiveWriter(Store(out), [cell], corpus, 60.0) as writer, Store(out).lock():
        pages.watch(look)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # twice the study and its cell
    assert "step 8 of 1,000" in lines[-1]
