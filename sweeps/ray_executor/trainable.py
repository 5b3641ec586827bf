"""The worker's side: an actor that trains one call after another, one cell per step."""

from __future__ import annotations

import math
import signal
from dataclasses import asdict
from types import FrameType
from typing import Any

from scaling.config.cell import Cell
from scaling.config.run import by_trunk
from scaling.errors import WorkError
from scaling.tasks.costs import device_bytes
from sweeps import worker
from sweeps.calls import Together
from sweeps.job import Job
from sweeps.plan.capacity import host_memory_bytes
from sweeps.ray_executor.nodes import TITLE
from sweeps.stopping.interruption import Interrupted
from sweeps.stopping.orders import not_shared
from sweeps.store import Store

LEFT = "the worker was asked to leave"
"""What a worker says that was ended by SIGTERM, as on a node that is drained; its call goes on elsewhere."""


class WorkerLeft(Exception):
    """This process was told to end by its system, and has written a checkpoint."""


class CellByCell:
    """One call, one cell per step, without cells that an earlier worker finished."""

    def __init__(self, job: Job, call: Together, corpus_hash: str) -> None:
        left = [cell for cell in call if not ended_well(cell, corpus_hash, job.store)]
        self._job, self._left = job, len(left)
        self._resources, self._spread = call[0].resources, worker.spreads(call[0])
        self._told_to_leave = False
        self._outcomes = worker.train_cells(left, corpus_hash, job.store, "ray", job.functions, self._asked)

    def step(self) -> dict[str, Any]:
        """Train the next cell; returns a result for Tune."""
        if self._job.out_of_time() or not self._left or self._asked():
            return {"done": True, "outcome": None}
        if reason := self._job.orders.unseen():
            return {"done": True, "outcome": None, "fatal": str(not_shared(self._job.store.out, [reason]))}
        worker.pin(self._resources.cpus, self._resources.gpus, spread=self._spread)
        _leave_on_sigterm(self)
        try:
            outcome = next(self._outcomes)
        except Interrupted as interruption:
            if self._told_to_leave:
                raise WorkerLeft(LEFT) from interruption
            return {"done": True, "outcome": None}
        except WorkError as error:
            return {"done": True, "outcome": None, "fatal": str(error)}
        self._left -= 1
        return {"done": not self._left, "outcome": asdict(outcome)}

    def leave(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGTERM."""
        self._told_to_leave = True

    def _asked(self) -> str:
        return LEFT if self._told_to_leave else self._job.orders.stop()


def _leave_on_sigterm(call: CellByCell) -> None:
    """Write a checkpoint on SIGTERM; Ray's own handler ends the process at once, with a native stack."""
    signal.signal(signal.SIGTERM, call.leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # which an instance of our own blocks


def memory_bytes(call: Together) -> float:
    """Bytes of main memory to reserve for a call: its peak by the plan's count, rounded up to 1, 2, 4, ... GiB, because
    Tune reuses an actor for what asks for the very same."""
    cell, trunks = call[0], len(by_trunk(call))
    peak = host_memory_bytes(cell, trunks * device_bytes(cell))
    return float(2 ** max(30, math.ceil(math.log2(peak))))


def trainable(job: Job, calls: list[tuple[Together, str]], most_memory: float) -> type:
    """The class of the actors for these calls. A call reserves its memory, but no more than the largest node has: what
    does not fit by the plan's count is tried alone on a node."""
    from ray import tune

    class SweepCall(tune.Trainable):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> Any:
            call, _ = calls[config["call"]]
            cpus, gpus = call[0].resources.cpus, call[0].resources.gpus
            memory = int(min(memory_bytes(call), most_memory))
            return tune.PlacementGroupFactory([{"CPU": cpus, "GPU": gpus, "memory": memory}])

        def setup(self, config: dict[str, Any]) -> None:
            self.cells = CellByCell(job, *calls[config["call"]])

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            return self.cells.step()

    assert SweepCall.__name__ == TITLE
    return SweepCall


def ended_well(cell: Cell, corpus_hash: str, store: Store) -> bool:
    """Whether a cell has a row with a loss."""
    part = store.part(cell.run_id(corpus_hash))
    return part is not None and part.ok
