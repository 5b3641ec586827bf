"""Progress of a sweep on standard error: live lines on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text


_PRINT_S = 60.0  # between two printings of running cells
_MOST_LINES = 10


@dataclass
class Progress:
    """Counts and reports ended cells. The time left is what was planned of it, by how long ended cells took."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    total: int = 0
    total_work: float = 0.0  # planned, in any unit
    done: int = 0
    failed: int = 0
    running: int = 0
    tokens: int = 0
    work: float = 0.0
    started: float = field(default_factory=time.monotonic)
    expected_s: float | None = None  # of the phase, until a cell has ended well
    last: float = 0.0  # seconds from the start to the last ended cell, the time base of all rates
    lines: tuple[str, ...] = ()  # how far each running cell is
    told: float = 0.0  # when they were last printed, at first the start of the phase
    _live: Live | None = None

    def __enter__(self) -> Progress:
        if self.stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream)
            self._live = Live(console=console, get_renderable=self._line, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Print a permanent message."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def begin(self, what: str, total: int, total_work: float, expected_s: float | None = None) -> None:
        """Start a phase of `total` cells, which is expected to take so long."""
        self.total, self.total_work, self.started = total, total_work, time.monotonic()
        self.done = self.failed = self.running = self.tokens = 0
        self.work = self.last = 0.0
        self.expected_s = expected_s
        self.told = self.started
        self.note(what)

    def cell_started(self) -> None:
        """A worker started a cell; the first one starts the clock of the phase."""
        if not self.done and not self.running:
            self.started = time.monotonic()
        self.running += 1

    def cell_lost(self, label: str, why: str) -> None:
        """The worker of a cell was killed; the cell is retried once."""
        self.running = max(0, self.running - 1)
        self.note(f"{label}: {why}; it is tried again")

    def cell_ended(self, label: str, status: str, tokens: int = 0, work: float = 0.0, wall_s: float = 0.0) -> None:
        """A cell ended; any status but `ok` counts as failed, and then its tokens and work as not done."""
        self.running = max(0, self.running - 1)
        self.done += 1
        self.failed += status != "ok"
        if status == "ok":
            self.tokens += tokens
            self.work += work
        else:
            self.total_work -= work
        self.last = time.monotonic() - self.started
        took = f" in {duration(wall_s)}" if wall_s else ""
        if not self._live:
            self.note(f"[{self.done}/{self.total}] {label}: {status}{took} | {self._rates()}")
        elif status != "ok":
            self.note(f"{label}: {status}")

    def cells_run(self, lines: Sequence[str]) -> None:
        """Show how far each running cell is; without a terminal, once a minute."""
        self.lines = tuple(lines)
        if not self._live and lines and time.monotonic() - self.told >= _PRINT_S:
            self.told = time.monotonic()
            for line in lines:
                self.note(f"  {line}")

    def _rates(self) -> str:
        elapsed = time.monotonic() - self.started
        parts = [f"{self.failed} failed"] if self.failed else []
        if self.tokens:
            parts.append(f"{self.tokens / max(self.last, 1e-9):,.0f} tokens/s")
        if self.done < self.total and (self.work or self.expected_s is not None):
            whole = self.last * self.total_work / self.work if self.work else self.expected_s or 0.0
            left = whole - elapsed
            parts.append(f"about {duration(max(0.0, left))} left")
        elif self.done < self.total:
            parts.append(f"{duration(elapsed)} so far")
        return ", ".join(parts) or f"{duration(elapsed)} in all"

    def _line(self) -> Text:
        from rich.text import Text

        if not self.total:
            return Text()
        running = f", {self.running} running" if self.running else ""
        more = len(self.lines) - _MOST_LINES
        shown = [*self.lines[:_MOST_LINES], *([f"and {more} more"] if more > 0 else [])]
        return Text("\n  ".join([f"{self.done}/{self.total} done{running}, {self._rates()}", *shown]))


def duration(seconds: float) -> str:
    """Seconds in a readable unit: 8 s, 4 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
