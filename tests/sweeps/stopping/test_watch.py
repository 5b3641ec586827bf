"""Which workers a driver ends: those that are silent, hang or are overdue, and no others."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scaling import live
from scaling.config.run import RunConfig
from scaling.live import Beat, LiveCell
from sweeps.ray_executor import watch
from sweeps.ray_executor.watch import Patience, Watch


@dataclass
class Clock:
    """A monotonic clock that is set by hand."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Bench:
    """A watch over one call, 7, whose live file is written by hand at the time of a clock."""

    study: Path
    clock: Clock
    watch: Watch
    ended: list[tuple[str, int, float]] = field(default_factory=list)
    condemned: list[tuple[int, str, str]] = field(default_factory=list)
    moved: float = 0.0

    def header(self, pid: int = 42, started: float = 5.0) -> None:
        path = live.folder_of(self.study) / "call.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(live.header_line([[LiveCell("a", "t", 10, 5, 64)]], "elsewhere", pid, started))

    def beat(self, phase: str, *, moves: bool) -> None:
        self.moved = self.clock.now if moves else self.moved
        beat = Beat(self.clock.now, phase, self.moved, 0, 1, True, 0, None, (), {})
        with (live.folder_of(self.study) / "call.jsonl").open("ab") as handle:
            handle.write(live.beat_line(beat))

    def pass_time(self, seconds: float, phase: str = "", *, moves: bool = False) -> None:
        """Look each second, with a beat in this phase each time."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            if phase:
                self.beat(phase, moves=moves)
            self.watch.look()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: object) -> Bench:
    clock = Clock()
    monkeypatch.setattr(watch.time, "monotonic", clock.monotonic)  # also of `scaling.live`: it is the same module
    made = Bench(
        tmp_path, clock, Watch(tmp_path, Patience(silent_s=100, still_s=200), lambda *_: None, lambda *_: None)
    )
    made.watch.end = lambda *who: made.ended.append(who)
    made.watch.condemn = lambda *what: made.condemned.append(what)
    made.header()
    made.beat("start", moves=True)
    return made


def begin(bench: Bench, cell: RunConfig) -> None:
    bench.watch.started(7, (cell,), ["a"])


def test_a_worker_that_beats_and_moves_is_left_alone(bench: Bench, micro) -> None:
    begin(bench, micro())
    for phase in ("start", "compile", "train", "evaluate", "wait"):
        bench.pass_time(300, phase, moves=True)
    assert bench.condemned == bench.ended == []


def test_a_silent_worker_is_ended_once(bench: Bench, micro) -> None:
    begin(bench, micro())
    bench.pass_time(10, "train", moves=True)
    bench.pass_time(99)
    assert bench.condemned == []
    bench.pass_time(50)
    assert bench.condemned == [(7, "error", "no sign of life for 101 seconds")]
    assert bench.ended == [("elsewhere", 42, 5.0)]


def test_silence_on_a_full_disk_says_nothing(bench: Bench, micro, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    begin(bench, micro())
    bench.pass_time(3, "train", moves=True)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        bench.pass_time(500)
    assert bench.condemned == []
    bench.pass_time(1)
    assert len(bench.condemned) == 1
    assert not list(bench.study.rglob(".probe*"))


@pytest.mark.parametrize(("phase", "most"), [("train", 200), ("evaluate", 800), ("save", 800)])
def test_a_worker_that_beats_but_does_not_move_hangs(bench: Bench, micro, phase: str, most: int) -> None:
    begin(bench, micro())
    bench.pass_time(3, phase, moves=True)
    bench.pass_time(most - 1, phase)
    assert bench.condemned == []
    bench.pass_time(10, phase)
    assert [(number, status) for number, status, _ in bench.condemned] == [(7, "error")]
    assert bench.condemned[0][2].startswith("it hangs: no step for")


@pytest.mark.parametrize("phase", ["start", "compile", "wait"])
def test_what_takes_as_long_as_it_takes_is_waited_for(bench: Bench, micro, phase: str) -> None:
    begin(bench, micro())
    bench.pass_time(5000, phase)
    assert bench.condemned == []


def test_slow_steps_are_not_taken_for_a_hang(bench: Bench, micro) -> None:
    """A step of 60 s makes pauses up to 20 minutes normal."""
    begin(bench, micro())
    for _ in range(3):
        bench.pass_time(60, "train")
        bench.beat("train", moves=True)
    bench.pass_time(1190, "train")
    assert bench.condemned == []
    bench.pass_time(20, "train")
    assert len(bench.condemned) == 1


def test_an_overdue_call_is_ended_and_not_tried_again(bench: Bench, micro) -> None:
    cell = micro()
    limited = cell.model_copy(update={"resources": cell.resources.model_copy(update={"max_minutes": 10.0})})
    begin(bench, limited)
    bench.pass_time(680, "train", moves=True)
    assert bench.condemned == [], "a tenth and 30 s more are for a last step and its checkpoint"
    bench.watch.cell_ended(7)  # the next cell of the call has its own time
    bench.pass_time(680, "compile")
    assert bench.condemned == []
    bench.pass_time(20, "compile")
    assert bench.condemned == [(7, "timeout", "no end after 10 minutes (`resources.max_minutes`)")]


def test_the_file_of_the_attempt_before_says_nothing_of_this_one(bench: Bench, micro) -> None:
    begin(bench, micro())
    bench.pass_time(10, "train", moves=True)
    bench.pass_time(101)
    assert len(bench.condemned) == 1
    bench.watch.ended(7)
    begin(bench, micro())  # Ray starts a worker, which takes a while
    bench.pass_time(50)
    assert len(bench.condemned) == 1
    bench.header(pid=43, started=200.0)
    bench.pass_time(50, "train", moves=True)
    assert len(bench.condemned) == 1


def test_a_worker_that_stops_between_two_calls_is_found(bench: Bench, micro) -> None:
    """It has told of no call, so it is the one of all known workers that does not tell of another."""
    begin(bench, micro())
    bench.pass_time(5, "train", moves=True)
    bench.watch.ended(7)
    (live.folder_of(bench.study) / "call.jsonl").unlink()
    bench.watch.started(8, (micro(),), ["b"])
    bench.pass_time(99)
    assert bench.ended == []
    bench.pass_time(5)
    assert bench.condemned[0][:2] == (8, "error")
    assert bench.ended == [("elsewhere", 42, 5.0)]
