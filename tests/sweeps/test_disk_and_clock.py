"""A full or read-only disk and a clock that is set back: what was written stays, and the message says what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import HERE, ROOT, Place, sweep

from scaling import files
from scaling.errors import InputError, WorkError
from sweeps.stopping import deadline
from sweeps.stopping.deadline import Deadline
from sweeps.store import Store

GRID = "{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K]}"


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.parquet")}


class FullDisk:
    """A disk on which only so many more files can be written."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def fsync(self, handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".tmp"):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_any_write_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled at the first write, the second, and so on until a sweep gets through; each goes on from the last."""
    known: dict[str, bytes] = {}
    for writes in range(1, 40):
        monkeypatch.setattr(files.os, "fsync", FullDisk(writes).fsync)
        said = ""
        try:
            summary = sweep(place.grid(GRID), place)
        except WorkError as error:
            said = str(error)
        finally:
            monkeypatch.undo()
        if not said:
            assert (summary.ok, summary.latency_owed) == (4, 0)
            break
        assert "the disk is full" in said
        now = contents(place.out)
        assert known.items() <= now.items()
        assert not list(place.out.rglob("*.tmp"))
        done = {name.removeprefix("runs/") for name in now if name.startswith("runs/")}
        assert all(f"{table}/{name}" in now for name in done for table in ("evals", "curves"))
        known = now
    assert len(place.noted("train")) > 4  # cells whose row could not be written ran again
    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    sweep(place.grid(GRID), calm)
    assert contents(calm.out).keys() == contents(place.out).keys()


@pytest.mark.parametrize("most", [0, 200, 4000, 20_000])
def test_no_file_may_grow_beyond_so_many_bytes(place: Place, most: int) -> None:
    """As a quota does, for every process of the sweep: lock, corpus, grid, parts and latency."""

    # Set in a process of its own: to fork this one, which JAX has given threads, is unsafe.
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    own = {"SCALING_CACHE": str(place.folder / "cache")}
    ended = subprocess.run(
        [
            *(sys.executable, "-c", limited.format(most)),
            *(str(HERE / "driver.py"), str(place.grid(GRID)), str(place.out), "inline"),
        ],
        env=os.environ | own | {"PYTHONPATH": str(ROOT), "FAKE_LOG": "/dev/null"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "cannot be written" in ended.stderr
    assert "Error: " in ended.stderr
    assert sweep(place.grid(GRID), place).ok == 4


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES])
def test_a_read_only_study_is_said_and_can_be_read(place: Place, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    sweep(place.grid(GRID), place)
    before = contents(place.out)
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(place.out)):
            raise OSError(reason, os.strerror(reason), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(InputError, match=rf"out: cannot be used as the study folder: {os.strerror(reason)}"):
        sweep(place.grid(GRID), place)
    assert Store(place.out).driver() == ""
    assert len(Store(place.out).survey().cells) == 4
    monkeypatch.undo()
    assert contents(place.out) == before


def test_a_clock_that_is_set_back_or_forward_moves_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    soon, later = Deadline.after(0.0), Deadline.after(1.0)
    now = time.time()
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(deadline.time, "time", lambda jump=jump: now + jump)
        assert soon.passed()
        assert not later.passed()
    assert not Deadline.after(None).passed()
    monkeypatch.setattr(deadline, "_machine", lambda: "another")  # which has only the time of day in common
    monkeypatch.setattr(deadline.time, "time", lambda: now + 1800)
    assert not later.passed()
    monkeypatch.setattr(deadline.time, "time", lambda: now + 3601)
    assert later.passed()


def test_a_sweep_in_the_past_ends_as_one_of_today(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows written before the clock was set back are kept, and none is taken for newer than it is."""
    sweep(place.grid("{d_model: 16, tokens: 1K}"), place)
    before = contents(place.out)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 1e9)
    summary = sweep(place.grid("{d_model: 16, tokens: [1K, 2K]}"), place, max_hours=1.0)
    assert (summary.ok, summary.trained_now, summary.latency_owed) == (2, 1, 0)
    assert before.items() <= contents(place.out).items()
