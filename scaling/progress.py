"""Progress of long work: a callback that is given the share that is done."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]


def silent(share: float) -> None:
    """The callback of work that nobody watches."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """The callback of a part that takes the whole from the share `start` to `end`."""
    return lambda share: progress(start + (end - start) * share)
