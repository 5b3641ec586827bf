"""Killed at random and run again: the same tables as without, nothing lost, nothing doubled, nothing of Ray left.

A trial starts a sweep several times and each time kills one process with SIGKILL, of a kind and at a moment that its
seed decides: the driver, a worker, Ray's raylet or its gcs, or the process that measures latency. Then it lets the
sweep finish. The slow trials make 100 kills under Ray with fake work, and 25 with real training.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import HERE, ROOT, Place, sweep, table

from scaling.schema import TABLES

MARK = "KILLED_FAMILY"  # in the environment of a driver and of all that it starts
KINDS = ("driver", "worker", "raylet", "gcs", "measuring")
GRID = "[{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K]}, {d_model: 32, tokens: [1K, 3K], seed: [0, 1]}]"
MICRO = "{n_experts: [1, 4], d_model: 16, tokens: [2K, 4K]}"
TIMINGS = {
    "time_ms",
    "time_q25_ms",
    "time_q75_ms",
    "roofline_ms",
    "busy_cores",
    "repeats",
    "device",
    "distinct_experts",
}
_LONGEST_S = 400.0  # of one sweep


@dataclass(frozen=True)
class Family:
    """A driver and the processes that it started, however they are now related."""

    driver: subprocess.Popen[str]
    mark: str

    def alive(self) -> dict[int, str]:
        """Command lines by process id."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if command:  # else it has ended and nobody has asked how
                        found[int(folder.name)] = command
            except OSError:
                continue
        return found

    def of_kind(self, kind: str) -> list[int]:
        """The processes of one kind."""
        if kind == "driver":
            return [self.driver.pid] if self.driver.poll() is None else []
        sign = {"worker": "ray::", "raylet": "/raylet ", "gcs": "/gcs_server ", "measuring": "sweeps.worker"}[kind]
        return [pid for pid, command in self.alive().items() if sign in command and pid != self.driver.pid]


def start(place: Place, grid: Path, executor: str, real: bool) -> Family:
    mark = uuid.uuid4().hex
    fake = [str(HERE / "driver.py"), str(grid), str(place.out), executor, "retry_failed"]
    cli = ["-m", "scaling.cli.main", "sweep", "run", str(grid), "--out", str(place.out), "--executor", executor]
    environ = os.environ | {"PYTHONPATH": str(ROOT), MARK: mark, "FAKE_SECONDS": "0.4"}
    with (place.folder / "stderr").open("a") as stderr:
        command = [sys.executable, *([*cli, "--retry-failed"] if real else fake)]
        driver = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=stderr, text=True)
    return Family(driver, f"{MARK}={mark}")


def kill_one(family: Family, kind: str, wait_s: float) -> str:
    """Kill a process of this kind `wait_s` after there is one; returns what was killed, "" if the sweep ended first."""
    end = time.monotonic() + _LONGEST_S
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


def ended(family: Family) -> int:
    """The exit status of a sweep, of which nothing is alive 10 s later."""
    status = family.driver.wait(_LONGEST_S)
    end = time.monotonic() + 10
    while family.alive() and time.monotonic() < end:
        time.sleep(0.1)
    assert family.alive() == {}
    return status


def finish(place: Place, grid: Path, executor: str, real: bool) -> None:
    """Let a sweep go through; on a machine so busy that Ray does not start, several times."""
    for _ in range(5):
        status, said = ended(start(place, grid, executor, real)), (place.folder / "stderr").read_text()
        if status == 0 or "less busy" not in said.splitlines()[-1]:
            break
    assert status == 0, said[-3000:]


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
        family = start(place, grid, executor, real)
        try:
            victim = kill_one(family, rng.choice(kinds), rng.expovariate(1 / (4.0 if real else 0.8)))
            status = ended(family)
        finally:
            for pid in family.alive():
                os.kill(pid, signal.SIGKILL)
        assert status in (0, 1, 2, -signal.SIGKILL)
        assert before.items() <= done(place.out).items()
        killed += [victim] if victim else []
        if status == 0:  # it went through in spite of it
            break
    finish(place, grid, executor, real)
    assert "Traceback" not in (place.folder / "stderr").read_text()
    rows = whole_tables(place.out, real)
    runs = [row["run_id"] for row in rows["runs"]]
    assert len(runs) == len(set(runs))
    assert {row["status"] for row in rows["runs"]} == {"ok"}
    assert not list(place.out.rglob("*.tmp"))
    assert not list(place.out.glob("checkpoints/*"))
    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    if real:
        finish(calm, grid, "inline", real)
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
