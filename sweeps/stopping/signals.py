"""Signals to a driver: SIGTERM, SIGHUP and Ctrl-C let running cells write a checkpoint, then end the sweep."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from scaling.errors import Stopped

NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name))
GRACE_S = 20.0
"""Seconds for checkpoints: a pod has 30 from SIGTERM to SIGKILL by default, a Slurm job as many."""
_BEYOND_S = 6.0  # after which a driver that hangs is ended
_TWICE_S = 1.0  # signals in so short a time are one: some senders signal both the process and its group


def _not_safe_to_end() -> bool:
    return False


def _safe_to_end() -> bool:
    return True


class Signals:
    """What was asked by signal while the context lasts.

    At once `Stopped` is raised (KeyboardInterrupt for SIGINT), as anywhere in Python; while `deferred`, only `asked`
    changes, and the caller ends its work and calls `require_none`. A second signal does not wait. Native code keeps the
    interpreter from raising anything, so a thread ends a process that is `idle`, or has not ended in time: results on
    disk are whole at every moment. Outside the main thread, and for signals that are ignored (nohup), nothing changes.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.asked = 0  # number of the signal
        self.idle: Callable[[], bool] = _not_safe_to_end
        self._grace_s, self._since = grace_s, 0.0
        self._deferred = False
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._end = threading.Event()

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        handlers = {number: signal.getsignal(number) for number in NUMBERS}
        self._before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        os.set_blocking(self._pipe[0], True)
        threading.Thread(target=self._watch, args=(self._pipe[0],), name="signals", daemon=True).start()
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._pipe[1])  # its reader ends, and closes the other end

    def take(self) -> None:
        """Handle the signals, again after Ray has taken some for itself."""
        for number in self._before:
            signal.signal(number, self._handle)

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Start processes that signals to all of a group or a job do not end. A signal to us ends us meanwhile: nothing
        runs yet."""
        if not self._before:
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        idle, self.idle = self.idle, _safe_to_end
        try:
            yield
        finally:
            self.idle = idle
            self.take()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Work that ends by itself soon after `asked`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @property
    def late(self) -> bool:
        """Whether the time for checkpoints is over."""
        return bool(self.asked) and time.monotonic() - self._since > self._grace_s

    @property
    def name(self) -> str:
        """The name of the signal, or ""."""
        return signal.Signals(self.asked).name if self.asked else ""

    def require_none(self) -> None:
        """Raise what a signal asked for."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked:
            raise Stopped(self.asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = bool(self.asked) and time.monotonic() - self._since > _TWICE_S
        if self._deferred and not self.asked and number == signal.SIGINT:
            os.write(2, b"checkpoints are written; Ctrl-C again does not wait for them\n")
        self._note(number)
        if again or not self._deferred:
            self.require_none()

    def _note(self, number: int) -> None:
        if not self.asked:
            self.asked, self._since = number, time.monotonic()

    def _watch(self, pipe: int) -> None:
        """Learn of signals while the main thread is in native code, and end the process where it does not end."""
        with suppress(OSError):
            while numbers := os.read(pipe, 64):
                ours = [number for number in numbers if number in self._before]
                if ours:
                    self._note(ours[0])
                    break
            while self.asked and not self._end.wait(0.2):
                over = time.monotonic() - self._since - self._grace_s
                if (self._deferred and self.idle()) or over > _BEYOND_S:
                    self._end_process()
            os.close(pipe)

    def _end_process(self) -> None:
        print(Stopped(self.asked), file=sys.stderr, flush=True)
        os._exit(128 + self.asked)
