"""What ends a call of cells before its end, in the process that trains it: its time limit, or being asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import TypeVar

from scaling.config.cell import Cell
from scaling.config.run import by_trunk
from scaling.observer import Observer, Phase, Steps

T = TypeVar("T")
_LOOK_S = 0.5
_SLACK, _SLACK_S = 0.1, 30.0  # share and seconds beyond the limit, in which a step may end and a checkpoint be written
_NOTHING_TO_SAVE: tuple[Phase, ...] = ("start", "compile")


class Interrupted(Exception):
    """The worker was asked to stop; it has written a checkpoint where there is something to write."""


class TimeLimit(Exception):
    """A cell took longer than it may."""


def limit_s(cells: Sequence[Cell]) -> float:
    """Seconds that each cell of a call may take, counted from the end of the one before it: those of one cell, times
    the trunks that train side by side, because they share the time."""
    minutes = cells[0].resources.max_minutes
    return float("inf") if minutes is None else minutes * 60 * len(by_trunk(cells))


def overdue_s(cells: Sequence[Cell]) -> float:
    """Seconds after which a call that has not kept to its limit cannot be waited for."""
    return limit_s(cells) * (1 + _SLACK) + _SLACK_S


class Interruption:
    """The observer of a call that gives training its reason to stop, and hands on to `told` what it hears.

    A thread looks at the clock and at `asked`, which gives the reason to stop or "". Training raises the reason between
    two steps. Beyond the limit, `TimeLimit` is raised wherever Python then is; only native code cannot be interrupted,
    as a step that never ends or a compilation.
    """

    def __init__(self, told: Observer, cells: Sequence[Cell], asked: Callable[[], str]) -> None:
        self._told, self._asked = told, asked
        self._limit_s, self._overdue_s = limit_s(cells), overdue_s(cells)
        self._minutes = cells[0].resources.max_minutes
        self._why, self._late = "", False
        self._phase: Phase = "start"
        self._step = 0
        self._began: float | None = None
        self._lock, self._end = threading.Lock(), threading.Event()
        self._on_main_thread = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interruption:
        if self._on_main_thread:
            self._before = signal.signal(signal.SIGALRM, self._raise)
        threading.Thread(target=self._watch, name="interruption", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._on_main_thread and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, self._before)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the process ended now."""
        return self._phase in _NOTHING_TO_SAVE

    def timed(self, results: Iterator[T]) -> T | None:
        """The next result, None after the last: the time in which a cell trains, and an overdue one is interrupted."""
        self._began = time.monotonic()
        try:
            return next(results, None)
        finally:
            with self._lock:
                self._began = None

    def phase(self, name: Phase) -> None:
        """Something else begins."""
        self._phase = name
        self._told.phase(name)

    def trained(self, steps: Steps) -> None:
        """Steps were taken."""
        self._step = steps.last
        self._told.trained(steps)

    def reason_to_stop(self) -> BaseException | None:
        """Why training should stop now, if it should."""
        if self._why:
            return Interrupted(self._why)
        return self._over() if self._late else self._told.reason_to_stop()

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_S):
            self._why = self._why or self._asked()
            with self._lock:
                elapsed = 0.0 if self._began is None else time.monotonic() - self._began
                self._late = elapsed > self._limit_s
                if elapsed > self._overdue_s and self._on_main_thread:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    def _over(self) -> TimeLimit:
        where = f"it had taken {self._step} steps" if self._step else "it had taken no step"
        return TimeLimit(f"no end after {self._minutes:g} minutes (`resources.max_minutes`): {where}")

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._began is not None:
            self._began = None
            raise self._over()
