"""What a training tells while it runs, and the observer that it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Phase = Literal["start", "compile", "train", "evaluate", "save", "wait", "stopped"]
"""What a worker does: load text and libraries, compile, take steps, evaluate, write a checkpoint, wait for the driver
between two cells; and how it ended before its cells were done."""


@dataclass(frozen=True)
class Steps:
    """Steps that were taken since the last report, by one trunk or by several side by side.

    budget: index of the cell that they lead to, within its trunk.   shared: whether they are the trunk's, which later
    budgets share, and not those of a cooldown.   last: steps taken so far.   names, metrics: what each step reported,
    [trunks, names] a step.   rates: learning rate of the last step by trunk.   seconds: that they took.
    past: taken before a training resumed, and told again.
    """

    budget: int
    shared: bool
    last: int
    names: tuple[str, ...]
    metrics: Sequence[NDArray[np.float32]]
    rates: tuple[float, ...]
    seconds: float
    past: bool = False


class Observer(Protocol):
    """Is told what a training does. All calls come from the thread that trains, so they must be short."""

    def phase(self, name: Phase) -> None:
        """Something else begins."""

    def trained(self, steps: Steps) -> None:
        """Steps were taken. At most about two seconds, or one step, lie between two calls."""

    def reason_to_stop(self) -> BaseException | None:
        """Asked after each report: training then writes a checkpoint, if it has a folder, and raises the reason."""


class Unobserved:
    """The observer of a training that nobody watches."""

    def phase(self, name: Phase) -> None:
        """Tells nobody."""

    def trained(self, steps: Any) -> None:
        """Tells nobody."""

    def reason_to_stop(self) -> None:
        """Never."""


UNOBSERVED = Unobserved()
