"""The driver's side: the calls, and the reports of their workers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaling.config.cell import Cell
from scaling.errors import WorkError
from scaling.training.jax_start import cause_of_death
from sweeps import worker
from sweeps.calls import Together, apart
from sweeps.job import Job
from sweeps.progress import Progress
from sweeps.ray_executor.trainable import LEFT
from sweeps.ray_executor.watch import Watch
from sweeps.stopping.signals import Signals
from sweeps.store import Store
from sweeps.worker import Outcome

_LOG_CHARACTERS = 20_000
_NODE_LOST = ("node has died", "node was terminated", "preempted", LEFT)
"""What Ray, or the worker, says where a call was lost with its node: that does not count as a failure of the call."""
_PERHAPS = "is unavailable"
"""What Ray says where it does not know yet whether the worker died or its node: does not count so many times."""
_PERHAPS_TIMES = 5


@dataclass
class Pool:
    """The calls of a job while Tune runs them.

    `calls`: those of the job, followed by trunks that failed together and are retried separately. An exception in a
    callback would look like a failed trial, so a reason to stop is kept in `stopped_by` and raised at the end.
    """

    job: Job
    ended: Callable[[Outcome], None]
    progress: Progress
    calls: list[tuple[Together, str]]
    logs: Path  # of Ray; empty on a cluster, whose logs lie on its nodes
    signals: Signals
    end: Callable[[str, int, float], None]  # kills a worker, given host, process and when it began
    noted: set[str] = field(default_factory=set)
    trials: dict[int, Any] = field(default_factory=dict)  # Tune's, of running calls
    condemned: dict[int, tuple[str, str]] = field(default_factory=dict)  # calls whose worker we ended: status, reason
    stopped_by: WorkError | None = None
    watch: Watch = field(init=False)
    _asked: bool = False

    def __post_init__(self) -> None:
        self.watch = Watch(self.job.store.out, self.job.options.patience, self.end, self.condemn)

    def started(self, number: int, trial: Any) -> None:
        """A worker has taken a call."""
        call, corpus_hash = self.calls[number]
        self.trials[number] = trial
        self.watch.started(number, call, (cell.run_id(corpus_hash) for cell in call))
        self.progress.cell_started()

    def result(self, number: int, result: dict[str, Any]) -> None:
        """Handle the result of one step of a call (`CellByCell`)."""
        self.watch.cell_ended(number)
        if "fatal" in result:
            self.stop(WorkError(result["fatal"]))
        elif result["outcome"]:
            self.note(Outcome(**result["outcome"]))

    def completed(self, number: int) -> None:
        """A call has come to its end."""
        self.watch.ended(number)
        self.trials.pop(number, None)

    def note(self, outcome: Outcome) -> None:
        """A cell has ended."""
        self.noted.add(outcome.run_id)
        try:
            self.ended(outcome)
        except WorkError as error:
            self.stop(error)

    def stop(self, error: WorkError) -> None:
        """End the sweep with the first of such errors."""
        self.stopped_by = self.stopped_by or error

    def look(self) -> None:
        """From time to time: pass a signal on to the workers, and end those that do not live."""
        if self.signals.asked and not self._asked:
            self._asked = True
            try:
                self.job.orders.give(stop=self.signals.name)
            except WorkError as error:
                self.stop(error)
        if self.signals.late:
            self.watch.end_all()
        self.watch.look()

    @property
    def over(self) -> bool:
        """Whether Tune should stop all that is left: after an error, or after a signal once no call has anything to
        save."""
        busy = any(call.phase not in ("start", "compile", "") for call in self.watch.running.values())
        return self.stopped_by is not None or (self._asked and (self.signals.late or not busy))

    def condemn(self, number: int, status: str, reason: str) -> None:
        """The worker of a call is about to be killed, for a reason; with status `timeout` it is not retried."""
        self.condemned[number] = (status, reason)
        if status == "timeout":
            self.trials[number].max_failures = 0

    def lost(self, number: int, trial: Any) -> None:
        """The worker of a call was killed; Tune retries the call once, and as often as a node is lost."""
        self.completed(number)
        _, reason = self.condemned.pop(number, ("", ""))
        report = last_failure(trial)
        why = f"{reason}, so its worker was ended" if reason else "the worker was killed"
        if not reason and any(words in report for words in _NODE_LOST):
            why, trial.max_failures = "its node was lost", trial.max_failures + 1
        elif not reason and _PERHAPS in report and trial.max_failures <= _PERHAPS_TIMES:
            why, trial.max_failures = "its worker or node was lost", trial.max_failures + 1
        if not self._asked:
            self.progress.cell_lost(self.job.labels[self.calls[number][0][0]], why)

    def failed(self, number: int, report: str) -> None:
        """A call was lost twice. If it had several parts, one may be the cause, so each gets its own call."""
        self.completed(number)
        status, reason = self.condemned.pop(number, ("", ""))
        if self._asked:
            return
        call, corpus_hash = self.calls[number]
        left = [cell for cell in call if cell.run_id(corpus_hash) not in self.noted]
        if len(separate := apart(left)) > 1 and status != "timeout":
            self.calls.extend((some, corpus_hash) for some in separate)
            return
        report = f"\n{reason}: the driver ended its worker" if reason else with_last_words(report, self.logs)
        try:
            for cell in left:
                self.note(lost_cell(cell, corpus_hash, self.job.store, report, status))
        except WorkError as error:
            self.stop(error)


def last_failure(trial: Any) -> str:
    """Tune's report of a trial's latest failure: a line with its time, then what happened."""
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    return "Failure # " + text.rpartition("Failure # ")[2]


def with_last_words(report: str, logs: Path) -> str:
    """Ray's report of a worker that died, and below its first line the cause, where that wrote one before its end."""
    pid = re.search(r"\bpid[:=] ?(\d+)", report)
    files: Iterable[Path] = logs.glob(f"worker-*-{pid[1]}.err") if pid else ()
    written = "\n".join(path.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:] for path in files)
    words = cause_of_death(written)
    when, _, rest = report.partition("\n")
    return f"{when}\n{words}\n{rest}" if words else report


def lost_cell(cell: Cell, corpus_hash: str, store: Store, report: str, status: str = "") -> Outcome:
    """The outcome of a cell whose worker died; writes its row with Ray's report unless the worker had written one."""
    part = store.part(cell.run_id(corpus_hash))
    if part and part.status in ("ok", "diverged"):  # the worker died between writing and reporting
        return worker.outcome(asdict(part))
    status = status or ("oom" if worker.is_out_of_memory(report) else "error")
    text = f"the worker ended before its row was written: {report.partition(chr(10))[2]}"  # the first line is the time
    row = worker.failed_row(cell, corpus_hash, status, text, "ray")
    store.write_cell(row, [], [])
    return worker.outcome(row)
