"""A job: everything an executor needs to train the cells of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scaling.config.cell import Cell
from scaling.errors import InputError
from sweeps.calls import Together
from sweeps.loggers.logger import require_loggers
from sweeps.ray_executor.address import RayAddress
from sweeps.ray_executor.watch import Patience
from sweeps.stopping.deadline import Deadline
from sweeps.stopping.orders import Orders
from sweeps.stopping.signals import GRACE_S
from sweeps.store import Store
from sweeps.worker import CellFunctions

Executor = Literal["ray", "inline"]


@dataclass(frozen=True)
class Options:
    """Options of a sweep; none of them changes a cell.

    log: names of loggers (`sweeps.loggers`) that are told of its cells.   grace_s: time for checkpoints after a signal
    to the driver.   patience: with workers that give no sign of life.
    """

    executor: Executor = "ray"
    address: str | None = None
    max_concurrent: int | None = None
    max_hours: float | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    log: tuple[str, ...] = ()
    grace_s: float = GRACE_S
    patience: Patience = field(default_factory=Patience)

    @property
    def cluster(self) -> RayAddress | None:
        """The Ray cluster, given or from `ray job submit`; None starts a local instance."""
        return RayAddress.given(self.address) if self.executor == "ray" else None

    def __post_init__(self) -> None:
        if self.executor == "inline" and (self.address or (self.max_concurrent or 1) > 1):
            raise InputError("`address` and `max_concurrent` need `executor` ray; inline runs one cell at a time")
        require_loggers(self.log)
        _ = self.cluster  # an address that is none is an error at once
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise InputError(f"`max_concurrent` must be at least 1, found {self.max_concurrent}")
        if self.max_hours is not None and not self.max_hours > 0:
            raise InputError(f"`max_hours` must be above 0, found {self.max_hours:g}")
        if not 0 <= self.grace_s < float("inf"):
            raise InputError(f"`grace_s` must be a number of seconds from 0, found {self.grace_s:g}")


@dataclass(frozen=True)
class Job:
    """The calls to run, in order, and the store of their results."""

    calls: list[tuple[Together, str]]  # cells, corpus hash
    store: Store
    functions: CellFunctions
    options: Options
    deadline: Deadline
    labels: dict[Cell, str]
    orders: Orders

    def out_of_time(self) -> bool:
        return self.deadline.passed()
