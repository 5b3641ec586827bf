"""The driver's watch over running calls: which of them no longer live, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scaling.errors import InputError
from scaling.files import require_no_links
from scaling.formatting import plural
from scaling.live import LiveCall, Tail, folder_of
from sweeps.calls import Together
from sweeps.stopping.interruption import overdue_s

_IDLE = ("start", "compile", "wait", "stopped")
"""Phases that take as long as they take: loading text may include tokenising it, a compilation may take an hour."""

_PROBE_BYTES = 1 << 16


@dataclass(frozen=True)
class Patience:
    """Seconds that a driver waits for a sign of life before it ends a worker.

    silent_s: without a beat, which a worker writes every 3 s whatever it does: it is stopped, or its host is gone.
    still_s: without a step, though it beats: it hangs. At least 20 times as long as the longest pause before, and 4
    times for an evaluation or a checkpoint, of which only the end is told.
    """

    silent_s: float = 120.0
    still_s: float = 900.0


@dataclass
class Running:
    """A call that a worker has, by the driver's clock. `began`: its start, or the end of its latest cell."""

    call: Together
    run_ids: frozenset[str]
    began: float
    worker: tuple[str, int, float] | None = None  # host, process, start of the call there
    moved: tuple[float, float] = (0.0, 0.0)  # the worker's time of its last move, ours when we first read of it
    longest_s: float = 0.0
    condemned: bool = False
    phase: str = ""


@dataclass
class Watch:
    """Looks at the live files of running calls and ends what no longer lives.

    `end`: kills a worker, given host, process number and when it began. `condemn`: is told of the call, a status and
    the reason before its worker is killed; the status is `timeout` for a call that must not be retried.
    """

    study: Path
    patience: Patience
    end: Callable[[str, int, float], None]
    condemn: Callable[[int, str, str], None]
    running: dict[int, Running] = field(default_factory=dict)
    _tail: Tail = field(init=False)
    _workers: dict[tuple[str, int], float] = field(default_factory=dict)
    _gone: set[tuple[str, int, float]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tail = Tail(self.study)

    def started(self, number: int, call: Together, run_ids: Iterable[str]) -> None:
        """A worker has begun with a call."""
        self.running[number] = Running(call, frozenset(run_ids), time.monotonic())

    def cell_ended(self, number: int) -> None:
        """A worker has ended a cell of a call and goes on with the next."""
        if number in self.running:
            self.running[number].began = time.monotonic()

    def ended(self, number: int) -> None:
        """A call has ended, well or not."""
        call = self.running.pop(number, None)
        if call is not None and call.worker is not None:
            self._gone.add(call.worker)

    def look(self) -> None:
        """Read what workers have told, and end those that have to be."""
        silent = self._read()
        for number, call in self.running.items():
            if call.condemned:
                continue
            elapsed = time.monotonic() - call.began
            if elapsed > overdue_s(call.call):
                minutes = call.call[0].resources.max_minutes
                self._end(number, call, "timeout", f"no end after {minutes:g} minutes (`resources.max_minutes`)")
            elif (quiet := silent.get(number, elapsed)) > self.patience.silent_s:
                if self._could_be_heard():
                    self._end(number, call, "error", f"no sign of life for {plural(int(quiet), 'second')}")
            elif number in silent and (still := self._still(call)):
                self._end(number, call, "error", f"it hangs: no step for {plural(int(still), 'second')}")

    def end_all(self) -> None:
        """End the workers of all running calls."""
        for call in self.running.values():
            self._kill(call)

    def _could_be_heard(self) -> bool:
        """Whether a heartbeat could be written: silence on a full disk says nothing."""
        probe = folder_of(self.study) / f".probe-{os.getpid()}"
        try:
            require_no_links(probe, self.study)
            probe.parent.mkdir(exist_ok=True)
            probe.write_bytes(bytes(_PROBE_BYTES))
            probe.unlink()
        except (OSError, InputError):
            return False
        return True

    def _read(self) -> dict[int, float]:
        """Seconds of silence of the running calls that have a live file."""
        silent: dict[int, float] = {}
        for seen in self._tail.look():
            who = (seen.call.host, seen.call.pid, seen.call.started)
            if who in self._gone:
                continue
            ids = {cell.run_id for cell in seen.call.cells}
            for number, call in self.running.items():
                if ids & call.run_ids:
                    self._note(call, seen.call)
                    silent[number] = seen.silent_s
        return silent

    def _note(self, call: Running, told: LiveCall) -> None:
        call.worker, call.phase = (told.host, told.pid, told.started), told.last.phase
        self._workers[told.host, told.pid] = told.started
        if told.last.moved != call.moved[0]:
            if call.moved[0]:
                call.longest_s = max(call.longest_s, told.last.moved - call.moved[0])
            call.moved = (told.last.moved, time.monotonic())

    def _still(self, call: Running) -> float:
        """For how long a call has not moved, if that is longer than it may take."""
        if call.phase in _IDLE:
            return 0.0
        most = max(self.patience.still_s * (1 if call.phase == "train" else 4), 20 * call.longest_s)
        still = time.monotonic() - call.moved[1]
        return still if still > most else 0.0

    def _end(self, number: int, call: Running, status: str, reason: str) -> None:
        call.condemned = True
        self.condemn(number, status, reason)
        self._kill(call)

    def _kill(self, call: Running) -> None:
        if call.worker is not None:
            self.end(*call.worker)
            return
        # It stopped before it told who it is: one of those that have told nothing of a call that runs.
        busy = {other.worker[:2] for other in self.running.values() if other.worker is not None}
        for worker in self._workers.keys() - busy:
            self.end(*worker, self._workers[worker])
