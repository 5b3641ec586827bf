"""Hands the curves and results of a study's cells on to a logger, each value once, over all drivers of the study."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaling.config.cell import Cell
from scaling.errors import InputError, WorkError
from scaling.files import write_json
from scaling.formatting import first_line
from scaling.json_text import read_json
from scaling.live import Beat, LiveCall, Seen, curve_rows
from scaling.schema import CHANCES
from scaling.tasks import TASKS
from scaling.tasks.rows import describe
from sweeps.loggers.logger import FOLDER, LoggedRun, Logger
from sweeps.loggers.revision import git_revision
from sweeps.store import Store

_SAVE_S = 10.0  # at most between two writings of what was logged
_TRAINED = ("loss", "lr", "grad_norm")


@dataclass
class _Logged:
    """What a logger has of a run: its handle there, the last step, and the status in the row that ended it, or ""."""

    handle: str = ""
    step: int = 0
    ended: str = ""


@dataclass
class Forwarder:
    """Forwards to one logger. Its memory is `log/<name>.json` in the study's folder.

    A logger that fails is given up with a message: cells train on.
    """

    name: str
    logger: Logger
    store: Store
    cells: Mapping[str, Cell]
    labels: Mapping[str, str]
    corpora: Mapping[str, str]
    note: Callable[[str], None]
    _logged: dict[str, _Logged] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    _beats: dict[Path, tuple[float, list[Beat]]] = field(default_factory=dict)
    _saved_at: float = 0.0
    _changed: bool = False
    _failed: bool = False

    def __post_init__(self) -> None:
        self._revision = git_revision()
        try:
            told = read_json(self._memory)
            self._logged = {str(run_id): _Logged(**about) for run_id, about in told.items()}
        except (OSError, InputError, TypeError, AttributeError):
            self._logged = {}

    @property
    def _memory(self) -> Path:
        return self.store.out / FOLDER / f"{self.name}.json"

    def look(self, seen: Iterable[Seen], ended: Collection[str]) -> None:
        """Forward what live files tell anew, and the cells that have ended since the last time."""
        self._guarded(self._look, seen, ended)

    def close(self) -> None:
        """Close the logger and remember what it has."""
        self._guarded(self.logger.close)
        self._guarded(self._save)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            work(*arguments)
        except Exception as error:  # loggers, and the services behind them, have no common type
            self._failed = True
            self.note(f"warning: `log` {self.name} failed and is given up, cells train on: {first_line(error)}")

    def _look(self, seen: Iterable[Seen], ended: Collection[str]) -> None:
        for one in seen:
            started, beats = self._beats.get(one.call.path, (0.0, []))
            if started != one.call.started:
                beats = []
            beats += one.new
            self._beats[one.call.path] = (one.call.started, beats)
            if one.new:
                for cell in one.call.current:
                    if cell.run_id in self.cells and cell.run_id not in ended:
                        self._forward(cell.run_id, _live_rows(one.call, beats, cell.run_id))
        for run_id in ended:
            if run_id in self.cells:
                self._end(run_id)
        if self._changed and time.monotonic() - self._saved_at > _SAVE_S:
            self._save()

    def _forward(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log the rows beyond the last step that was logged."""
        logged = self._logged.setdefault(run_id, _Logged())
        for row in rows:
            if row["step"] > logged.step:
                self._begin(run_id, logged)
                budget = TASKS[self.cells[run_id].task].budget.name
                self.logger.log(run_id, row["step"], row.get(budget, row["step"]), _named(row))
                logged.step, self._changed = row["step"], True

    def _begin(self, run_id: str, logged: _Logged) -> None:
        if run_id not in self._open:
            run = LoggedRun(run_id, self.labels[run_id], self.cells[run_id].study, self._settings(run_id))
            logged.handle, logged.ended = self.logger.begin(run, logged.handle, logged.step), ""
            self._open.add(run_id)
            self._changed = True

    def _end(self, run_id: str) -> None:
        """Log what is left of a cell that has a row, unless all of it was."""
        logged = self._logged.setdefault(run_id, _Logged())
        try:
            (row,) = self.store.read("runs", run_id)
            if logged.ended == row["status"] and run_id not in self._open:
                return
            has_curve = row["status"] == "ok" and "curves" in TASKS[self.cells[run_id].task].tables
            curve = self.store.read("curves", run_id) if has_curve else []
        except (WorkError, ValueError):
            return
        self._forward(run_id, curve)
        self._begin(run_id, logged)
        known = self._settings(run_id)
        results = {
            f"result/{name}": float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and math.isfinite(value) and name not in known
        }
        self.logger.end(run_id, row["status"], results)
        self._open.discard(run_id)
        logged.ended, self._changed = row["status"], True

    def _settings(self, run_id: str) -> dict[str, Any]:
        """The resolved configuration of a cell by dotted names, what follows from it, and the revisions."""
        cell = self.cells[run_id]
        described = describe(cell, self.corpora[run_id])
        described.pop("config")
        return {**_flat(cell.model_dump(mode="json")), **described, "git_revision": self._revision}

    def _save(self) -> None:
        write_json(self._memory, {run_id: asdict(logged) for run_id, logged in self._logged.items()}, self.store.out)
        self._saved_at, self._changed = time.monotonic(), False


def _live_rows(call: LiveCall, beats: list[Beat], run_id: str) -> Iterable[dict[str, Any]]:
    """The curve of a cell so far, with its tokens per second."""
    speeds = {beat.step: beat.tokens_per_s / len(call.trunks) for beat in beats if beat.tokens_per_s}
    return (row | {"tokens_per_s": speeds.get(row["step"])} for row in curve_rows(call, beats, run_id))


def _named(row: Mapping[str, Any]) -> dict[str, float]:
    """The values of a row of a curve that are known, by the group under which loggers show them."""
    return {
        f"{'train' if name in (*_TRAINED, 'tokens_per_s') else 'routing'}/{name}": float(value)
        for name, value in row.items()
        if name not in ("step", "tokens", *CHANCES) and isinstance(value, int | float) and math.isfinite(value)
    }


def _flat(document: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat
