"""The live file of a call: what a worker says of the cells that it trains, while it trains them.

`live/<call>.jsonl` in a study's folder. Its first line says who trains what, each further line is a beat: how far the
call is. A beat is written every few seconds whatever the training does, so the file is the curve of a running cell and
the heartbeat of its worker. It is removed once all its cells have rows; the file of a worker that died is left. Lines
that are torn or make no sense are left out: a worker may be killed while it writes.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling.files import require_file

LIVE = "live"
_TAIL = 1 << 16  # bytes at the end of a file in which its last whole line lies
_MOST_OF_HEADER = 1 << 20
_BEGINNING = 128  # bytes of a header in which host, process and start stand
_DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class LiveCell:
    """A cell of a call: `steps` of its budget, and the step after which its cooldown leaves the trunk.

    columns: what is known of its row in the table `runs` before it is trained.
    """

    run_id: str
    trunk_id: str
    steps: int
    leaves_at: int
    batch_tokens: int
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Beat:
    """One line. Times are Unix seconds of the worker's clock.

    moved: when training last did something, a chunk of steps or another phase.   budget: index of the current cell in
    each trunk.   step: steps taken.   shared: whether the last of them are the trunk's.   averaged: steps since the
    previous line, over which `metrics` are means, one for each trunk; 0 if there were none, and then the metrics are
    those of the previous line.   tokens_per_s: of all trunks together, None before the first step.
    """

    time: float
    phase: str
    moved: float
    budget: int
    step: int
    shared: bool
    averaged: int
    tokens_per_s: float | None
    rates: tuple[float, ...]
    metrics: dict[str, tuple[float | None, ...]]

    @property
    def still_s(self) -> float:
        """Seconds since training last did something, when the line was written."""
        return max(0.0, self.time - self.moved)


@dataclass(frozen=True)
class LiveCall:
    """Who trains what, and how far it was at the last beat. `trunks`: the budgets of each trunk side by side."""

    path: Path
    host: str
    pid: int
    started: float
    trunks: tuple[tuple[LiveCell, ...], ...]
    last: Beat

    @property
    def cells(self) -> tuple[LiveCell, ...]:
        """All cells of the call."""
        return tuple(cell for trunk in self.trunks for cell in trunk)

    @property
    def current(self) -> tuple[LiveCell, ...]:
        """The cell of each trunk to which the steps now lead."""
        return tuple(trunk[min(self.last.budget, len(trunk) - 1)] for trunk in self.trunks)


def folder_of(study: Path) -> Path:
    """The folder of the live files."""
    return study / LIVE


def files(study: Path) -> list[Path]:
    """The live files of a study, by name."""
    try:
        return sorted(path for path in folder_of(study).glob("*.jsonl") if not path.name.startswith("."))
    except OSError:
        return []


def calls(study: Path) -> list[LiveCall]:
    """Every call that has a readable live file, alive or not."""
    return [call for path in files(study) if (call := read_call(path)) is not None]


def read_call(path: Path) -> LiveCall | None:
    """A call with its last beat, from both ends of its file; None where these cannot be read."""
    try:
        require_file(path)
        with path.open("rb") as handle:
            header = handle.readline(_MOST_OF_HEADER)
            begin = max(handle.tell(), handle.seek(0, os.SEEK_END) - _TAIL)
            handle.seek(begin)
            *lines, _torn = handle.read(_TAIL).split(b"\n")
        last = next((beat for line in reversed(lines) if (beat := _beat(line)) is not None), None)
        return None if last is None else _call(path, header, last)
    except _DAMAGED:
        return None


def read_beats(path: Path) -> tuple[LiveCall, list[Beat]] | None:
    """A call with all its beats; None where it cannot be read."""
    try:
        require_file(path)
        with path.open("rb") as handle:
            header, *lines = handle.read().split(b"\n")
        beats = [beat for line in lines[:-1] if (beat := _beat(line)) is not None]
        return (_call(path, header, beats[-1]), beats) if beats else None
    except _DAMAGED:
        return None


def curve_rows(call: LiveCall, beats: Iterable[Beat], run_id: str) -> list[dict[str, Any]]:
    """The training curve of one cell so far, in columns of the table `curves`; none where the call lacks the cell.

    A cell has the steps of its trunk up to where its cooldown leaves it, whichever budget these were taken for, and
    those of its own cooldown.
    """
    places = [
        (number, budget)
        for number, trunk in enumerate(call.trunks)
        for budget, cell in enumerate(trunk)
        if cell.run_id == run_id
    ]
    if not places:
        return []
    number, budget = places[0]
    cell, rows = call.trunks[number][budget], []
    for beat in beats:
        own = beat.step <= cell.leaves_at if beat.shared else beat.budget == budget
        if beat.averaged and own and _fits(beat, call.trunks):
            row: dict[str, Any] = {"step": beat.step, "tokens": beat.step * cell.batch_tokens, "lr": beat.rates[number]}
            told = {name: values[number] for name, values in beat.metrics.items()}
            rows.append(row | {name: math.nan if value is None else value for name, value in told.items()})
    return sorted(rows, key=lambda row: row["step"])


@dataclass(frozen=True)
class Seen:
    """A call, the beats that are new since the last look, and for how long its file has not grown, by the clock of the
    reader: clocks of hosts may differ."""

    call: LiveCall
    new: tuple[Beat, ...]
    silent_s: float


@dataclass
class _Place:
    offset: int
    header: bytes
    last: Beat | None
    grew: float


@dataclass
class Tail:
    """Follows the live files of a study and reads what was appended since the last look."""

    study: Path
    _places: dict[Path, _Place] = field(default_factory=dict)

    def look(self) -> list[Seen]:
        """Every call that has a live file now."""
        found = {path: seen for path in files(self.study) if (seen := self._look(path)) is not None}
        self._places = {path: place for path, place in self._places.items() if path in found}
        return [*found.values()]

    def _look(self, path: Path) -> Seen | None:
        try:
            require_file(path)
            with path.open("rb") as handle:
                place = self._places.get(path)
                # The number of a file that was removed is given to the next one: its beginning says whose it is.
                first = place is None or handle.read(_BEGINNING)[: len(place.header)] != place.header[:_BEGINNING]
                if place is None or first:
                    handle.seek(0)
                    header = handle.readline(_MOST_OF_HEADER)
                    if not header.endswith(b"\n"):
                        return None
                    place = _Place(len(header), header, None, time.monotonic())
                handle.seek(place.offset)
                added = handle.read()
            whole = added[: added.rfind(b"\n") + 1]
            new = tuple(beat for line in whole.split(b"\n") if (beat := _beat(line)) is not None)
            if whole:
                place.offset, place.grew = place.offset + len(whole), time.monotonic()
            place.last = new[-1] if new else place.last
            if place.last is None:
                return None
            call = _call(path, place.header, place.last)
            if first and call.host == socket.gethostname():  # what we find may be old, which our own clock can tell
                place.grew -= max(0.0, time.time() - place.last.time)
            self._places[path] = place
            return Seen(call, new, time.monotonic() - place.grew)
        except _DAMAGED:
            return None


def header_line(trunks: Iterable[Iterable[LiveCell]], host: str, pid: int, started: float) -> bytes:
    """The first line of a live file."""
    told = [[vars(cell) for cell in trunk] for trunk in trunks]
    return _line({"host": host, "pid": pid, "started": started, "trunks": told})


def beat_line(beat: Beat) -> bytes:
    """A beat as a line."""
    return _line(vars(beat))


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _call(path: Path, header: bytes, last: Beat) -> LiveCall:
    told = json.loads(header)
    trunks = tuple(tuple(_cell(cell) for cell in trunk) for trunk in told["trunks"])
    if not trunks or not all(trunks) or (last.rates and not _fits(last, trunks)):
        raise ValueError("the beat is not one of these trunks")
    return LiveCall(path, str(told["host"]), int(told["pid"]), float(told["started"]), trunks, last)


def _fits(beat: Beat, trunks: tuple[tuple[LiveCell, ...], ...]) -> bool:
    return all(len(values) == len(trunks) for values in (beat.rates, *beat.metrics.values()))


def _cell(told: dict[str, Any]) -> LiveCell:
    steps, leaves_at, batch_tokens = (int(told[name]) for name in ("steps", "leaves_at", "batch_tokens"))
    columns = dict(told.get("columns", {}))
    return LiveCell(str(told["run_id"]), str(told["trunk_id"]), steps, leaves_at, batch_tokens, columns)


def _beat(line: bytes) -> Beat | None:
    """The beat of a line, or None if it is none."""
    try:
        told = json.loads(line)
        return Beat(
            time=_real(told["time"]),
            phase=str(told["phase"]),
            moved=_real(told["moved"]),
            budget=max(0, int(told["budget"])),
            step=int(told["step"]),
            shared=bool(told["shared"]),
            averaged=int(told["averaged"]),
            tokens_per_s=None if told["tokens_per_s"] is None else _real(told["tokens_per_s"]),
            rates=tuple(_real(rate) for rate in told["rates"]),
            metrics={
                str(name): tuple(None if value is None else _real(value) for value in values)
                for name, values in told["metrics"].items()
            },
        )
    except (*_DAMAGED, AttributeError):
        return None


def _real(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"not finite: {number}")
    return number
