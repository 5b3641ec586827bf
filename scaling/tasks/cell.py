"""A cell of a task: one point of its grid, and the content hashes that identify it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny

from scaling.config.bench import Resources
from scaling.config.fields import Count, Frozen, Whole
from scaling.schema import SCHEMA_VERSION


class Settings(Frozen):
    """The settings of a task: a subclass has one field a setting, each with a default and a `description`.

    Every field is an axis of grids and a column of the table `runs`, under its own name. Numbers, flags and texts are
    columns of that type; a tuple is a text in JSON.
    """

    def identity(self) -> dict[str, Any]:
        """What of the settings shapes a result: all of them, unless a task leaves out what others make unused."""
        return self.model_dump(mode="json")


class TaskCell(Frozen):
    """One cell of a task that is not the language model (`scaling.config.run.RunConfig` is a cell of that one).

    budget: how much the cell learns from, in the unit of the task's budget: samples, frames.
    """

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "study"
    task: str
    settings: SerializeAsAny[Settings]
    seed: Whole = 0
    budget: Count
    resources: Resources = Resources()

    @property
    def sections(self) -> tuple[Frozen, ...]:
        """What cells of one trunk have in common, beside study, task and seed."""
        return self.settings, self.resources

    @property
    def steps(self) -> int:
        """The budget, by which cells of one trunk are in order."""
        return self.budget

    def identity(self, corpus_hash: str = "") -> dict[str, Any]:
        """Everything that shapes the result: two cells with equal identities are the same run.

        Excludes `study` and `resources`. `corpus_hash` is that of the data that a task reads, "" for one that draws
        its own.
        """
        return {
            "task": self.task,
            "settings": self.settings.identity(),
            "seed": self.seed,
            "budget": self.budget,
            "corpus_hash": corpus_hash,
            "schema_version": SCHEMA_VERSION,
        }

    def run_id(self, corpus_hash: str = "") -> str:
        """Content hash of the cell: 16 hex digits, the name of its files."""
        return self._digest(corpus_hash)

    def trunk_id(self, corpus_hash: str = "") -> str:
        """Content hash of the cell without its budget: such cells are handed to one call of the task."""
        return self._digest(corpus_hash, "budget")

    def configuration(self, corpus_hash: str = "") -> str:
        """Content hash of the cell without its seed and budget: its runs are replicates."""
        return self._digest(corpus_hash, "budget", "seed")

    def shape_id(self) -> str:
        """Content hash of what determines the speed of what was trained: cells of one shape are measured once."""
        return self._digest("", "budget", "seed", "schema_version")

    def _digest(self, corpus_hash: str, *without: str) -> str:
        hashed = {name: value for name, value in self.identity(corpus_hash).items() if name not in without}
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
