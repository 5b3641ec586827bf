"""The cells of a study that train now, and those that did when their worker died: from the live files of its folder."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from scaling import live
from scaling.formatting import loss, si
from scaling.live import LiveCall, LiveCell
from sweeps.progress import duration

SILENT_S = 30.0
"""Seconds without a beat, of which there is one every 3 s, after which a worker counts as silent: stopped, hung or out
of reach."""
_GONE_S = 7.0  # the same for a process of this machine that is no longer there: two beats are missing


DOES = {
    "start": "starting",
    "compile": "compiling",
    "train": "training",
    "evaluate": "evaluating",
    "save": "saving",
    "wait": "waiting",
    "stopped": "stopped",
}
"""What a worker does in each phase, in a word for people."""


@dataclass(frozen=True)
class RunningCell:
    """A cell that trains, or did.

    phase: what its worker does (`scaling.observer.Phase`).   step, steps, tokens: how far it is.   loss, lr, grad_norm:
    means since the previous beat; None before the first step, and where not finite.   tokens_per_s: of this cell.
    left_s: seconds of training left, by this speed.   host, pid: of its worker.   seen: last beat, Unix seconds.
    seen_s: how long ago that was.   silent: whether that is too long.   gone: whether its process is known not to exist
    any more.   still_s: seconds for which training had done nothing by then.   then: cells of its trunk that follow in
    the same call.   metrics: all that training reports.
    """

    run_id: str
    cell: str
    phase: str
    step: int
    steps: int
    tokens: int
    loss: float | None
    lr: float | None
    grad_norm: float | None
    tokens_per_s: float | None
    left_s: float | None
    host: str
    pid: int
    seen: float
    seen_s: float
    silent: bool
    gone: bool
    still_s: float
    then: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)


def running_cells(study: Path, labels: Mapping[str, str], is_told: Callable[[str], bool]) -> list[RunningCell]:
    """The cells with a live file and no row yet, by label; those that nobody knows are left out.

    labels: of each cell of the grid, by run_id.   is_told: whether a cell has a row.
    """
    latest: dict[str, RunningCell] = {}
    for call in live.calls(study):
        for cell in cells_of(call, labels, is_told, _age(call)):
            if cell.run_id not in latest or latest[cell.run_id].seen < cell.seen:
                latest[cell.run_id] = cell
    return sorted(latest.values(), key=lambda cell: cell.cell)


def how_far(cell: RunningCell) -> str:
    """A running cell in one line."""
    does = DOES.get(cell.phase, cell.phase)
    if not cell.step:
        return f"{cell.cell}: {does}"
    parts = [f"step {cell.step:,} of {cell.steps:,}", f"loss {loss(cell.loss)}"]
    if cell.tokens_per_s:
        parts.append(f"{si(cell.tokens_per_s)} tokens/s")
    if cell.left_s:
        parts.append(f"about {duration(cell.left_s)} left")
    if cell.silent:
        parts.append(f"not heard of for {duration(cell.seen_s)}")
    return f"{cell.cell}: {', '.join(parts)}" + ("" if cell.phase == "train" else f" ({does})")


def cells_of(
    call: LiveCall, labels: Mapping[str, str], is_told: Callable[[str], bool], seen_s: float
) -> Iterator[RunningCell]:
    """The current cell of each trunk of a call: the first from its budget on that has no row."""
    for number, trunk in enumerate(call.trunks):
        left = [cell for cell in trunk[call.last.budget :] if cell.run_id in labels and not is_told(cell.run_id)]
        if left:
            yield _running(call, number, left, labels[left[0].run_id], seen_s)


def _running(call: LiveCall, number: int, left: list[LiveCell], label: str, seen_s: float) -> RunningCell:
    cell, last, trunks = left[0], call.last, len(call.trunks)
    before = call.trunks[number][last.budget]
    cooled = not last.shared and before != cell  # the steps of the cell before are those up to where it left the trunk
    step = min(cell.steps, before.leaves_at if cooled else last.step)
    metrics: dict[str, float | None] = {name: values[number] for name, values in last.metrics.items()}
    speed = last.tokens_per_s / trunks if last.tokens_per_s else None
    gone = _is_gone(call)
    return RunningCell(
        run_id=cell.run_id,
        cell=label,
        phase=last.phase,
        step=step,
        steps=cell.steps,
        tokens=step * cell.batch_tokens,
        loss=metrics.get("loss"),
        lr=last.rates[number] if last.rates else None,
        grad_norm=metrics.get("grad_norm"),
        tokens_per_s=speed,
        left_s=(cell.steps - step) * cell.batch_tokens / speed if speed else None,
        host=call.host,
        pid=call.pid,
        seen=last.time,
        seen_s=seen_s,
        silent=seen_s > (_GONE_S if gone else SILENT_S),
        gone=gone,
        still_s=last.still_s,
        then=len(left) - 1,
        metrics=metrics,
    )


def _is_gone(call: LiveCall) -> bool:
    """Whether the process is known not to exist any more."""
    return call.host == socket.gethostname() and Path("/proc/self").exists() and not Path(f"/proc/{call.pid}").exists()


def _age(call: LiveCall) -> float:
    """Seconds since the last beat. Another host's clock may differ from ours: its file's time counts, where that is
    later."""
    latest = call.last.time
    if call.host != socket.gethostname():
        with suppress(OSError):
            latest = max(latest, call.path.stat().st_mtime)
    return max(0.0, time.time() - latest)
