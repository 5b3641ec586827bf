"""The registry of tasks: a task trains and evaluates the cells of one call and yields the rows of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scaling.config.run import RunConfig
from scaling.observer import UNOBSERVED, Observer
from scaling.training import language_model
from scaling.training.language_model import CellResult

Task = Callable[[Sequence[RunConfig], Path | None, Observer], Iterator[CellResult]]
"""(cells of one call, folder for checkpoints, who is told how far it is) -> their results."""

TASKS: dict[str, Task] = {"lm": language_model.train_cells}
"""Tasks by their name in a grid."""


def train_cells(
    cells: Sequence[RunConfig], checkpoints: Path | None = None, observer: Observer = UNOBSERVED
) -> Iterator[CellResult]:
    """Train the cells of one call with their task."""
    return TASKS[cells[0].task](cells, checkpoints, observer)
