"""A trunk and its branches: one run at a constant rate that serves every token budget, each through a cooldown of its
own.

A cell that is branched off equals the same cell trained alone, bit for bit on one device: both take the same steps of
the same program, and nothing before the cooldown depends on the budget (arXiv 2405.18392).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.data.batches import TrainBatches
from scaling.errors import InputError
from scaling.model.sharding import placement
from scaling.training.checkpoint import Checkpoint, Checkpoints, TrainingState
from scaling.training.phases import spawns
from scaling.training.program import Program, ProgramShape, program
from scaling.training.router_metrics import Choices, next_probe
from scaling.training.schedule import learning_rate
from scaling.training.step import Params, metric_names

CURVE_ROWS = 40  # about as many rows as a figure can show
_CHECK_EVERY = 32  # steps between looks at the loss: each look waits for the device


@dataclass(frozen=True)
class TrainedCell:
    """What the training of one cell leaves.

    params: None when it diverged, and then `error` says where.   probes: the choices of the router on a fixed text
    after so many steps, trunk and branch (`scaling/training/router_metrics.py`).   tokens_own: tokens that no other
    cell shares. train_s: seconds of all its steps, those of the trunk in.   own_s: seconds of the steps since the
    budget before it.
    """

    config: RunConfig
    params: Params | None
    curves: list[dict[str, Any]]
    probes: dict[int, Choices]
    error: str
    tokens_own: int
    train_s: float
    own_s: float


def bundles(cells: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Cells by trunk, each trunk's in the order of their budgets. Raises InputError when the budgets of trunks
    differ."""
    trunks: dict[RunConfig, list[RunConfig]] = {}
    for cell in cells:
        trunks.setdefault(cell.model_copy(update={"tokens": 1}), []).append(cell)
    found = [sorted(trunk, key=lambda cell: cell.steps) for trunk in trunks.values()]
    if any([c.steps for c in trunk] != [c.steps for c in found[0]] for trunk in found):
        raise InputError("trunks that train side by side have the same token budgets")
    return found


def shape_of(train: TrainConfig) -> TrainConfig:
    """Without what cells of one program may differ in."""
    return train.model_copy(update={"lr": None, "warmup_tokens": 0, "cooldown": 1.0})


def devices_of(config: RunConfig, trunks: int = 1) -> tuple[jax.Device, ...]:
    """The devices a cell trains on: as many as it reserves and this process has, and as divide its sequences evenly.
    Trunks side by side share one."""
    if trunks > 1:
        return tuple(jax.local_devices()[:1])
    wanted = max(1, int(config.resources.gpus)) if jax.devices()[0].platform != "cpu" else config.resources.cpus
    have = jax.local_devices()[:wanted]
    return tuple(have[: config.train.devices(len(have))])


def program_of(config: RunConfig, vocab_size: int, kernel: str, trunks: int = 1) -> Program:
    """The compiled program of a cell's shape, for as many trunks side by side."""
    devices = devices_of(config, trunks)
    shape = ProgramShape(
        config.model,
        vocab_size,
        shape_of(config.train),
        packed=config.data.packing == "documents",
        kernel=kernel,
        where=placement(config, len(devices)),
        trunks=None if trunks == 1 else trunks,
    )
    return program(shape, devices)


def train_trunks(
    trunks: Sequence[Sequence[RunConfig]],
    tokens: NDArray[np.uint16],
    vocab_size: int,
    kernel: str,
    checkpoints: Path | None = None,
    probe: Callable[[Params], Choices] | None = None,
) -> Iterator[TrainedCell]:
    """Train the cells of some trunks side by side; each comes as its last step is done, in the order of the budgets.

    With a folder for checkpoints a run that was killed goes on from the last of them and ends with the same weights.
    `probe` gives the choices of given weights, where the model routes.
    """
    first, beside = trunks[0], len(trunks)
    compiled = program_of(first[0], vocab_size, kernel, beside)
    saved = Checkpoints(checkpoints, first[0].resources.checkpoint_minutes)
    drive = _Drive(compiled, [trunk[0] for trunk in trunks], tokens, vocab_size, saved, probe)
    trunk, branch = _resume(saved, compiled, first, [trunk[0].seed for trunk in trunks])
    for budget in range(len(first)):
        cells = [trunk_[budget] for trunk_ in trunks]
        before_at, before_s = trunk.left
        if branch is None:
            branch = drive.leave(trunk, cells, last=budget + 1 == len(first))
        drive.cool(trunk, branch, cells)
        for index, cell in enumerate(cells):
            curves, error = _curves(cell, np.stack([step[index] for step in branch.metrics]))
            yield TrainedCell(
                config=cell,
                params=None if error else _one(branch.state.params, index, beside),
                curves=curves,
                probes={step: choices[index] for step, choices in branch.probes.items()},
                error=error,
                tokens_own=(cell.steps - before_at) * cell.train.batch_tokens,
                train_s=(trunk.seconds + branch.seconds) / beside,
                own_s=(trunk.seconds - before_s + branch.seconds) / beside,
            )
        branch, trunk.left = None, (trunk.at, trunk.seconds)
    saved.remove()


def _resume(
    saved: Checkpoints, compiled: Program, cells: Sequence[RunConfig], seeds: list[int]
) -> tuple[TrainingState, TrainingState | None]:
    """Trunk and branch of the checkpoint if these cells, whose others are done, can go on from it; else the
    beginning."""
    point = saved.load(compiled.shape, compiled.state)
    if point is not None and point.branch is not None and point.steps == cells[0].steps:
        return point.trunk, point.branch
    if (
        point is not None
        and point.trunk.state is not None
        and point.trunk.at <= cells[0].steps - cells[0].cooldown_steps
    ):
        if point.steps != cells[0].steps:  # that budget is done
            point.trunk.left = (point.trunk.at, point.trunk.seconds)
        return point.trunk, None
    return TrainingState(compiled.first(seeds), 0, []), None


class _Drive:
    """Takes steps, and looks at the loss and the clock from time to time: each look waits for the device."""

    def __init__(
        self,
        compiled: Program,
        leaders: list[RunConfig],
        tokens: NDArray[np.uint16],
        vocab_size: int,
        saved: Checkpoints,
        probe: Callable[[Params], Choices] | None,
    ) -> None:
        self._probe, self._trunks = probe, len(leaders)
        self._spawn_at = leaders[0].dense_steps if spawns(leaders[0].model) else None
        settings, packed = leaders[0].train, leaders[0].data.packing == "documents"
        self._compiled, self._saved = compiled, saved
        self._batches = [
            TrainBatches(tokens, settings.seq_len, settings.sequences, leader.seed, vocab_size - 1 if packed else None)
            for leader in leaders
        ]

    def leave(self, trunk: TrainingState, cells: Sequence[RunConfig], *, last: bool) -> TrainingState:
        """Take the trunk to where these cells leave it; the run that goes on from there. The last one takes its
        state."""
        self._steps(trunk, cells, cells[0].steps - cells[0].cooldown_steps, Checkpoint(trunk, None, cells[0].steps))
        branch = TrainingState(
            trunk.state if last else self._compiled.copy(trunk.state), trunk.at, list(trunk.metrics), dict(trunk.probes)
        )
        if last:
            trunk.state = None
        return branch

    def cool(self, trunk: TrainingState, branch: TrainingState, cells: Sequence[RunConfig]) -> None:
        """Take a branch through its cooldown."""
        self._steps(branch, cells, cells[0].steps, Checkpoint(trunk, branch, cells[0].steps))

    def _steps(self, run: TrainingState, cells: Sequence[RunConfig], until: int, point: Checkpoint) -> None:
        """Take the steps from `run.at` to `until` at the rates of these cells, one per trunk.

        A run whose losses all are lost takes no more steps: what is missing counts as lost too. `point` is where a
        checkpoint taken meanwhile stands.
        """
        while run.at < until and not _lost(run):
            started, waiting = time.perf_counter(), []
            if run.at == self._spawn_at:
                run.state = self._compiled.spawn(run.state)
            for step in range(run.at, min(until, self._stop_after(run.at))):
                batch = [batches(step) for batches in self._batches]
                rate = [np.float32(learning_rate(cell, step)) for cell in cells]
                alone = len(cells) == 1
                run.state, reported = self._compiled.step(
                    run.state, batch[0] if alone else np.stack(batch), rate[0] if alone else np.stack(rate)
                )
                waiting.append(reported)
            run.metrics += [np.atleast_2d(one) for one in jax.device_get(waiting)]
            run.at += len(waiting)
            run.seconds += time.perf_counter() - started
            if self._probe is not None and run.at == next_probe(run.at - 1):
                weights = [_one(run.state.params, index, self._trunks) for index in range(self._trunks)]
                run.probes[run.at] = np.stack([self._probe(one) for one in weights])
            if self._saved.due:
                self._saved.save(point)

    def _stop_after(self, step: int) -> int:
        """The next step before which there is something to look at or to do."""
        stops = [step + _CHECK_EVERY, next_probe(step) if self._probe else None, self._spawn_at]
        return min(stop for stop in stops if stop is not None and stop > step)


def _lost(run: TrainingState) -> bool:
    return bool(run.metrics) and not np.isfinite(run.metrics[-1][:, 0]).any()


def _one(params: Params, index: int, of: int) -> Params:
    return params if of == 1 else jax.tree.map(lambda leaf: leaf[index], params)


def _curves(cell: RunConfig, reported: NDArray[np.float32]) -> tuple[list[dict[str, Any]], str]:
    """Curve rows of a cell from what its steps reported [steps, metrics], up to the first that is not finite, and where
    that is ("" for nowhere). Steps that were not taken, because the loss was lost, count as not finite."""
    names, every = metric_names(cell.model), max(1, cell.steps // CURVE_ROWS)
    rows: list[dict[str, Any]] = []
    for start in range(0, cell.steps, every):
        end = min(cell.steps, start + every)
        mean = (
            np.mean(reported[start:end].astype(np.float64), axis=0)
            if end <= len(reported)
            else np.full(len(names), np.nan)
        )
        rate = learning_rate(cell, end - 1)
        lost = not np.isfinite(mean[0])  # how many steps were taken after that does not show
        row = dict(zip(names, np.full(len(names), np.nan).tolist() if lost else mean.tolist(), strict=True))
        rows.append({"step": end, "tokens": end * cell.train.batch_tokens, "lr": rate, **row})
        if lost:
            return rows, f"training loss is not finite at step {end} of {cell.steps} (rate {rate:.3g})"
    return rows, ""
