"""Killed at random and run again: the same tables as without, nothing lost, nothing doubled, nothing of Ray left.

A trial starts a sweep several times and each time kills one process with SIGKILL, of a kind and at a moment that its
seed decides: the driver, a worker, Ray's raylet or its gcs, or the process that measures latency. Then it lets the
sweep finish. The slow trials make 100 kills under Ray with fake work, and 25 with real training.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from families import LONGEST_S, Family, finish, start
from places import TIMINGS, Place, sweep, table

from scaling.schema import TABLES

KINDS = ("driver", "worker", "raylet", "gcs", "measuring")
GRID = "[{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K]}, {d_model: 32, tokens: [1K, 3K], seed: [0, 1]}]"
MICRO = "{n_experts: [1, 4], d_model: 16, tokens: [2K, 4K]}"


def kill_one(family: Family, kind: str, wait_s: float) -> str:
    """Kill a process of this kind `wait_s` after there is one; returns what was killed, "" if the sweep ended first."""
    end = time.monotonic() + LONGEST_S
    while not family.of_kind(kind) and family.driver.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(wait_s)
    for pid in family.of_kind(kind):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return kind
    return ""


def whole_tables(out: Path, real: bool) -> dict[str, list[dict[str, object]]]:
    """All rows by table, without what is measured."""
    left_out = TIMINGS if real else set()
    return {
        name: [{column: value for column, value in row.items() if column not in left_out} for row in table(out, name)]
        for name in TABLES
    }


def done(out: Path) -> dict[Path, bytes]:
    """The parts of cells that ended well; a failed one may be replaced."""
    ok = {row["run_id"] for row in table(out, "runs") if row["status"] == "ok"} if (out / "runs").exists() else set()
    return {path: path.read_bytes() for path in out.glob("runs/*.parquet") if path.stem in ok}


def trial(place: Place, seed: int, kills: int, executor: str, kinds: tuple[str, ...], real: bool = False) -> list[str]:
    """Kill so many times, then finish; returns what was killed, having checked the tables."""
    rng = random.Random(seed)
    grid = place.grid(MICRO if real else GRID)
    killed: list[str] = []
    while len(killed) < kills:
        before = done(place.out)
        family = start(place, grid, executor, real=real)
        try:
            victim = kill_one(family, rng.choice(kinds), rng.expovariate(1 / (4.0 if real else 0.8)))
            status = family.ended()
        finally:
            family.kill()
        assert status in (0, 1, 2, -signal.SIGKILL)
        assert before.items() <= done(place.out).items()
        killed += [victim] if victim else []
        if status == 0:  # it went through in spite of it
            break
    finish(place, grid, executor, real=real)
    assert "Traceback" not in (place.folder / "stderr").read_text()
    rows = whole_tables(place.out, real)
    runs = [row["run_id"] for row in rows["runs"]]
    assert len(runs) == len(set(runs))
    assert {row["status"] for row in rows["runs"]} == {"ok"}
    assert not list(place.out.rglob("*.tmp"))
    assert not list(place.out.glob("checkpoints/*"))
    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    if real:
        finish(calm, grid, "inline", real=real)
    else:
        sweep(grid, calm)
    assert rows == whole_tables(calm.out, real)
    return killed


@pytest.mark.parametrize("seed", range(2))
def test_two_kills_without_ray(place: Place, seed: int) -> None:
    assert trial(place, seed, 2, "inline", ("driver", "measuring"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_kill_under_ray(place: Place, seed: int) -> None:
    """One hundred: every kind twenty times, at a random moment."""
    assert trial(place, seed, 1, "ray", (KINDS[seed % len(KINDS)],))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_a_kill_in_real_training(place: Place, seed: int) -> None:
    assert trial(place, seed, 1, "ray", (KINDS[seed % len(KINDS)],), real=True)
