"""The worker's side of live files: an observer of training that writes its beats (`scaling.live`)."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from scaling import live
from scaling.config.cell import Cell
from scaling.config.run import by_trunk
from scaling.errors import InputError
from scaling.files import require_no_links
from scaling.live import Beat, LiveCell
from scaling.observer import Phase, Steps
from scaling.tasks.costs import per_step, shared_budget
from scaling.tasks.rows import describe
from sweeps.store import Store

EVERY_S = 3.0
"""Seconds between two beats."""
_SPEED_S = 20.0  # seconds of training after which the speed of its steps counts a third
_LOG = logging.getLogger("scaling.live")


class LiveWriter:
    """Tells how far a call is, in its live file, while the context lasts.

    The thread that trains only leaves its reports here; a thread of our own averages and writes them, so that a slow
    disk does not keep training waiting. It also beats while nothing is reported. The file is removed at the end, and
    left with the phase `stopped` if an exception ended the call; a file that cannot be written is a warning.
    """

    def __init__(self, store: Store, cells: Sequence[Cell], corpus_hash: str, every_s: float = EVERY_S) -> None:
        trunks = by_trunk(cells)
        name = store.checkpoints(cell.trunk_id(corpus_hash) for cell in cells).name
        self._store, self._every_s = store, every_s
        self._path = live.folder_of(store.out) / f"{name}.jsonl"
        self._trunks = [[_told(cell, corpus_hash) for cell in trunk] for trunk in trunks]
        self._batch_tokens = per_step(cells[0]) * len(trunks)
        self._reports: list[Steps] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._handle: int | None = None
        self._pace = (0.0, 0.0)  # recent tokens, and the seconds that they took
        now = time.time()
        self._phase: Phase = "start"
        self._moved = now
        self._last = Beat(now, "start", now, 0, 0, True, 0, None, (), {})
        self._thread = threading.Thread(target=self._beats, name="live", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._handle = self._opened()
        except (OSError, InputError) as error:
            _LOG.warning("%s: nothing is told while cells train (%s)", self._path, error)
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is None:
            return
        self._end.set()
        self._thread.join()
        if kind is None:
            self._remove()
        else:
            self.phase("stopped")
            with suppress(OSError):
                self._tell()
        os.close(self._handle)
        self._handle = None

    def phase(self, name: Phase) -> None:
        """Something else begins."""
        self._phase, self._moved = name, time.time()

    def trained(self, steps: Steps) -> None:
        """Keep what these steps reported, for the next line."""
        with self._lock:
            self._reports.append(steps)
        self._moved = time.time()

    def reason_to_stop(self) -> None:
        """It has none of its own."""

    def _opened(self) -> int:
        """A new file with its first lines; another attempt's is no longer found under the name."""
        require_no_links(self._path, self._store.out)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        header = live.header_line(self._trunks, socket.gethostname(), os.getpid(), self._last.time)
        os.write(handle, header + live.beat_line(self._last))
        return handle

    def _beats(self) -> None:
        told = True
        while not self._end.wait(self._every_s):
            try:
                self._tell()
                told = True
            except OSError as error:  # a full disk, or a folder that is gone: training goes on, and so does this
                if told:
                    _LOG.warning("%s: nothing is told while cells train (%s)", self._path, error.strerror)
                told = False

    def _tell(self) -> None:
        """Write what was reported since the last time, or that nothing was."""
        assert self._handle is not None
        with self._lock:
            reports, self._reports = self._reports, []
        for alike in _alike(reports):
            self._last = self._averaged(alike)
            self._write(self._last)
        if not reports:
            self._write(replace(self._last, averaged=0))

    def _write(self, beat: Beat) -> None:
        assert self._handle is not None
        told = replace(beat, time=time.time(), phase=self._phase, moved=self._moved)
        os.write(self._handle, live.beat_line(told))

    def _averaged(self, reports: Sequence[Steps]) -> Beat:
        """The beat of steps that follow each other."""
        last = reports[-1]
        metrics = np.stack([step for report in reports for step in report.metrics]).astype(np.float64)
        means, seconds = metrics.mean(axis=0), sum(report.seconds for report in reports)
        fade = math.exp(-seconds / _SPEED_S)
        self._pace = (self._pace[0] * fade + len(metrics) * self._batch_tokens, self._pace[1] * fade + seconds)
        return replace(
            self._last,
            budget=last.budget,
            step=last.last,
            shared=last.shared,
            averaged=len(metrics),
            tokens_per_s=_short(self._pace[0] / self._pace[1]) if self._pace[1] else None,
            rates=tuple(float(f"{rate:.6g}") for rate in last.rates),
            metrics={name: tuple(_short(value) for value in means[:, place]) for place, name in enumerate(last.names)},
        )

    def _remove(self) -> None:
        """Remove the file, unless another attempt has made its own of the name."""
        assert self._handle is not None
        with suppress(OSError):
            if os.fstat(self._handle).st_ino == self._path.stat().st_ino:
                self._path.unlink()


def remove_told(store: Store, is_needed: Callable[[str], bool]) -> None:
    """Remove the live files that no cell needs any more: those of workers that died, once their cells have rows; and
    their folder if nothing is left in it.

    Only for the driver that holds the lock, while it has no workers.
    """
    for path in live.files(store.out):
        call = live.read_call(path)
        if call is None or not any(is_needed(cell.run_id) for cell in call.cells):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        live.folder_of(store.out).rmdir()


def _told(cell: Cell, corpus_hash: str) -> LiveCell:
    leaves_at = shared_budget(cell) // per_step(cell)
    columns = describe(cell, corpus_hash)
    del columns["config"]  # the same again, as text
    return LiveCell(columns["run_id"], columns["trunk_id"], cell.steps, leaves_at, per_step(cell), columns)


def _alike(reports: Sequence[Steps]) -> list[list[Steps]]:
    """Reports in groups that one line can tell: of one budget, all of the trunk or none; past ones one by one."""
    groups: list[list[Steps]] = []
    for report in reports:
        before = groups[-1][-1] if groups else None
        if before is not None and _key(before) == _key(report) and not report.past:
            groups[-1].append(report)
        else:
            groups.append([report])
    return groups


def _key(report: Steps) -> tuple[int, bool, bool]:
    return report.budget, report.shared, report.past


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
