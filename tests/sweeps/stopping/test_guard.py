"""The guard of Ray's instance, and whom a driver may kill: its own, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.ray_executor import guard, nodes

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
DRIVER = """
import os, subprocess, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from sweeps.ray_executor.guard import MARK, Guard
guard = Guard(Path({folder!r}))
os.environ[MARK] = guard.mark
child = subprocess.Popen({sleep!r}, start_new_session=True)
del os.environ[MARK]
other = subprocess.Popen({sleep!r})
print(child.pid, other.pid, guard._process.pid, flush=True)
sys.stdin.read()
"""


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 10
    while any(lives(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(lives(pid) for pid in pids)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def test_closing_the_guard_ends_what_has_its_mark_and_nothing_else(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    watcher = guard.Guard(folder)
    marked = subprocess.Popen(SLEEP, env=os.environ | {guard.MARK: watcher.mark}, start_new_session=True)
    os.kill(marked.pid, signal.SIGSTOP)  # which would outlive everything
    watcher.close()
    assert marked.wait(10) == -signal.SIGKILL
    assert not folder.exists()
    assert sleeper.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_guard_outlives_its_driver_just_long_enough(tmp_path: Path, number: int) -> None:
    root = str(Path(guard.__file__).parents[2])
    script = DRIVER.format(root=root, folder=str(tmp_path / "instance"), sleep=SLEEP)
    command, pipe = [sys.executable, "-P", "-c", script], subprocess.PIPE
    driver = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    with driver:
        assert driver.stdout is not None
        child, other, watcher = (int(pid) for pid in driver.stdout.readline().split())
        try:
            os.killpg(watcher, signal.SIGTERM)  # as a shell's or Slurm's signal to all
            driver.send_signal(number)
            driver.wait()
            assert gone([child, watcher])
            assert lives(other), "it has no mark"
        finally:
            os.kill(other, signal.SIGKILL)


def test_only_a_worker_of_a_sweep_that_began_before_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    now = time.time()
    assert not nodes.kill_worker(sleeper.pid, now), "it is no worker"
    titled = subprocess.Popen(["ray::SweepCall.train", *SLEEP[1:]], executable=sys.executable)
    try:
        while not Path(f"/proc/{titled.pid}/cmdline").read_bytes():  # it is being replaced by what it runs
            time.sleep(0.01)
        assert not nodes.kill_worker(titled.pid, now - 3600), "the number was given anew since"
        assert nodes.kill_worker(titled.pid, time.time())
        assert titled.wait(10) == -signal.SIGKILL
        assert not nodes.kill_worker(titled.pid, time.time()), "it is gone"
    finally:
        titled.kill()
