"""What every cell has, whatever its task: who it is, and what it may use."""

from __future__ import annotations

from typing import Any, Protocol

from scaling.config.bench import Resources
from scaling.config.fields import Frozen


class Cell(Protocol):
    """One point of a grid, which is trained and becomes one row of the table `runs`. Frozen, so it can be hashed.

    The language model's cells are `scaling.config.run.RunConfig`, those of other tasks `scaling.tasks.cell.TaskCell`.
    """

    @property
    def study(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def resources(self) -> Resources: ...

    @property
    def sections(self) -> tuple[Frozen, ...]:
        """What cells of one trunk have in common, beside study, task and seed."""
        ...

    @property
    def steps(self) -> int:
        """What cells of one trunk are ordered by, and how far a running cell has to go."""
        ...

    def run_id(self, corpus_hash: str) -> str:
        """Content hash of the cell: the name of its files."""
        ...

    def trunk_id(self, corpus_hash: str) -> str:
        """Content hash of the cell without its budget."""
        ...

    def configuration(self, corpus_hash: str) -> str:
        """Content hash of the cell without its seed and budget."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Its fields as a document."""
        ...
