"""The replicates of a cell, one after the other: each ends when its own fit has converged.

Fits of different replicates need different numbers of steps, so side by side all would wait for the slowest; and one by
one a replicate's numbers do not depend, to the last bit, on how many others there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from scaling.arrays import Array
from scaling.observer import Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.rows import result
from scaling.tasks.statistics.draws import generator
from scaling.tasks.task import CellResult

Measured = Mapping[str, float]
Measure = Callable[[TaskCell, np.random.Generator], Measured]
"""(cell, generator of the replicate) -> its metrics, in float64 of JAX."""


def train_cells(
    cells: Sequence[TaskCell], measure: Measure, observer: Observer, n_replicates: int
) -> Iterator[CellResult]:
    """The results of cells whose metrics are measured in `n_replicates` independent replicates."""
    for cell in cells:
        yield result(cell, _measured(cell, measure, observer, n_replicates))


def _measured(cell: TaskCell, measure: Measure, observer: Observer, n_replicates: int) -> Mapping[str, Array]:
    rows = []
    for replicate in range(n_replicates):
        observer.phase("train")
        if reason := observer.reason_to_stop():
            raise reason
        with jax.enable_x64(True):
            rows.append(measure(cell, generator(cell.seed, cell.budget, replicate)))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
