"""A job: what an executor needs to train the cells of a study."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal

from scaling.config.bench import Resources
from scaling.config.run import RunConfig
from scaling.errors import InputError
from sweeps.calls import Together
from sweeps.store import Store
from sweeps.worker import CellFunctions

Executor = Literal["ray", "inline"]


@dataclass(frozen=True)
class Options:
    """How a sweep runs. Nothing here changes what a cell is."""

    executor: Executor = "ray"
    address: str | None = None
    max_concurrent: int | None = None
    max_hours: float | None = None
    retry_failed: bool = False
    fail_fast: bool = False

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to use: the address given, or that of `ray job submit`; None is an instance of our own."""
        return self.address or os.environ.get("RAY_ADDRESS")

    def __post_init__(self) -> None:
        if self.executor == "inline" and (self.address or (self.max_concurrent or 1) > 1):
            raise InputError("`address` and `max_concurrent` need `executor` ray: inline is one cell after another")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise InputError(f"`max_concurrent` {self.max_concurrent}: at least 1")
        if self.max_hours is not None and not self.max_hours > 0:
            raise InputError(f"`max_hours` {self.max_hours:g}: more than 0")


@dataclass(frozen=True)
class Job:
    """What an executor needs: the calls in their order and where their cells go."""

    calls: list[tuple[Together, str]]  # with the hash of the corpus each trains on
    store: Store
    functions: CellFunctions
    options: Options
    deadline: float
    resources: Resources
    labels: dict[RunConfig, str]

    def out_of_time(self) -> bool:
        return time.time() > self.deadline
