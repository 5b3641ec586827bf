"""A trunk and its branches: one run at a constant rate serves all token budgets, each with its own cooldown.

On one device a branched cell equals the same cell trained alone bit for bit, because both take the same steps of the
same program and nothing before the cooldown depends on the budget (arXiv 2405.18392).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.config.run import RunConfig
from scaling.data.batches import TrainBatches
from scaling.data.shards import Tokens
from scaling.errors import InputError
from scaling.model.sharding import placement_of
from scaling.observer import UNOBSERVED, Observer, Steps
from scaling.training import host
from scaling.training.checkpoint import Checkpoint, Checkpoints, TrainingState
from scaling.training.phases import spawns
from scaling.training.program import Program, program
from scaling.training.router_metrics import Choices, next_probe
from scaling.training.schedule import learning_rate
from scaling.training.step import Params, StepFunction, metric_names

CURVE_ROWS = 40  # approximate number of rows, as many as a figure can show
_CHECK_EVERY = 32  # steps between checks of the loss, each of which waits for the device
_TELL_S = 2.0  # seconds between two reports to the observer, unless a step takes longer
_PAST_ROWS = 200  # reports of the steps before a training resumed


@dataclass(frozen=True)
class TrainedCell:
    """A trained cell.

    params: None if it diverged; `error` then has the step.
    probes: the choices of the router on a fixed text by step, of trunk and branch (`router_metrics.py`).
    tokens_own: tokens that no earlier cell of the trunk has trained.
    train_s: seconds of all its steps, including those of the trunk.   own_s: seconds since the previous budget.
    """

    config: RunConfig
    params: Params | None
    curves: list[dict[str, Any]]
    probes: dict[int, Choices]
    error: str
    tokens_own: int
    train_s: float
    own_s: float


def devices_of(config: RunConfig, trunks: int = 1) -> tuple[jax.Device, ...]:
    """The devices of a cell: the most that are reserved, available and divide its sequences evenly. Trunks side by side
    share one. Raises InputError where a GPU is reserved and there is none."""
    host.require_gpu(config)
    if trunks > 1:
        return tuple(jax.local_devices()[:1])
    reserved = max(1, int(config.resources.gpus)) if jax.devices()[0].platform != "cpu" else config.resources.cpus
    available = jax.local_devices()[:reserved]
    return tuple(available[: config.train.devices(len(available))])


def program_of(config: RunConfig, vocab_size: int, kernel: str, trunks: int = 1) -> Program:
    """The compiled program of a cell's shape for this number of trunks side by side."""
    devices = devices_of(config, trunks)
    function = StepFunction(
        config.model,
        vocab_size,
        # Without the fields in which cells of one program may differ.
        config.train.model_copy(update={"lr": None, "warmup_tokens": 0, "cooldown": 1.0}),
        separator=config.data.packed_separator,
        kernel=kernel,
        placement=placement_of(config, len(devices)),
    )
    return program(function, devices, None if trunks == 1 else trunks)


def train_trunks(
    trunks: Sequence[Sequence[RunConfig]],
    tokens: Tokens,
    vocab_size: int,
    kernel: str,
    checkpoints: Path | None = None,
    probe: Callable[[Params], Choices] | None = None,
    observer: Observer = UNOBSERVED,
) -> Iterator[TrainedCell]:
    """Train the cells of some trunks side by side and yield each after its last step, in the order of budgets.

    With a folder for checkpoints, a killed run resumes from the last one and ends with the same weights. `probe`
    returns the router's choices for given weights. `observer` is told of all steps, and may stop the training. Raises
    InputError if the budgets of the trunks differ.
    """
    first = trunks[0]
    if any([cell.steps for cell in trunk] != [cell.steps for cell in first] for trunk in trunks):
        raise InputError("trunks that train side by side must have the same token budgets")
    compiled = program_of(first[0], vocab_size, kernel, len(trunks))
    saved = Checkpoints(checkpoints, first[0].resources.checkpoint_minutes)
    trainer = _Trainer(compiled, [trunk[0] for trunk in trunks], tokens, saved, probe, observer)
    trunk, branch = _resume(saved, compiled, first, [trunk[0].seed for trunk in trunks])
    trainer.tell_past(trunk, branch, [trunk[0] for trunk in trunks])
    for budget in range(len(first)):
        cells = [cells_of_trunk[budget] for cells_of_trunk in trunks]
        if branch is None:
            branch = trainer.branch_off(trunk, cells, budget, last=budget + 1 == len(first))
        trainer.cool_down(trunk, branch, cells, budget)
        for index, cell in enumerate(cells):
            yield _trained_cell(cell, index, len(trunks), trunk, branch)
        branch, trunk.left = None, (trunk.at, trunk.seconds)
    saved.remove()


def _trained_cell(cell: RunConfig, index: int, trunks: int, trunk: TrainingState, branch: TrainingState) -> TrainedCell:
    """The result of a branch for the trunk with this index; seconds are divided evenly among trunks."""
    curves, error = _curves(cell, np.stack([step[index] for step in branch.metrics]))
    left_at, left_s = trunk.left
    return TrainedCell(
        config=cell,
        params=None if error else _params_of(branch.state.params, index, trunks),
        curves=curves,
        probes={step: choices[index] for step, choices in branch.probes.items()},
        error=error,
        tokens_own=(cell.steps - left_at) * cell.train.batch_tokens,
        train_s=(trunk.seconds + branch.seconds) / trunks,
        own_s=(trunk.seconds - left_s + branch.seconds) / trunks,
    )


def _resume(
    saved: Checkpoints, compiled: Program, cells: Sequence[RunConfig], seeds: list[int]
) -> tuple[TrainingState, TrainingState | None]:
    """Trunk and branch of the checkpoint if these cells can resume from it, else the initial state."""
    point, next_cell = saved.load(compiled.state_shape, compiled.state_sharding), cells[0]
    if point is not None and point.branch is not None and point.steps == next_cell.steps:
        return point.trunk, point.branch
    leaves_at = next_cell.steps - next_cell.cooldown_steps
    if point is not None and point.trunk.state is not None and point.trunk.at <= leaves_at:
        if point.steps != next_cell.steps:  # its budget is finished
            point.trunk.left = (point.trunk.at, point.trunk.seconds)
        return point.trunk, None
    return TrainingState(compiled.first(seeds), 0, []), None


class _Trainer:
    """Takes steps, and checks the loss and the clock only occasionally, because each check waits for the device."""

    def __init__(
        self,
        compiled: Program,
        leaders: list[RunConfig],
        tokens: Tokens,
        saved: Checkpoints,
        probe: Callable[[Params], Choices] | None,
        observer: Observer,
    ) -> None:
        self._compiled, self._saved = compiled, saved
        self._probe, self._trunks = probe, len(leaders)
        self._observer, self._names = observer, metric_names(leaders[0].model)
        self._step_s = _TELL_S  # of the latest steps; at first one step is told alone
        self._spawn_at = leaders[0].dense_steps if spawns(leaders[0].model) else None
        settings, separator = leaders[0].train, leaders[0].data.packed_separator
        self._batches = [
            TrainBatches(tokens, settings.seq_len, settings.sequences, leader.seed, separator) for leader in leaders
        ]

    def tell_past(self, trunk: TrainingState, branch: TrainingState | None, cells: Sequence[RunConfig]) -> None:
        """Tell the observer of the steps that an earlier process took, which a checkpoint brought."""
        run = branch or trunk
        every = max(1, run.at // _PAST_ROWS)
        ends = sorted({*range(every, run.at, every), trunk.at, run.at} - {0})
        for start, end in itertools.pairwise([0, *ends]):
            self._tell(cells, 0, run.metrics[start:end], end, 0.0, shared=end <= trunk.at, past=True)

    def branch_off(self, trunk: TrainingState, cells: Sequence[RunConfig], budget: int, *, last: bool) -> TrainingState:
        """Train the trunk up to the cooldown of these cells, which are those of the budget with this index, and return
        their branch; the last one takes the state."""
        point = Checkpoint(trunk, None, cells[0].steps)
        self._train(trunk, cells, cells[0].steps - cells[0].cooldown_steps, point, budget)
        state = trunk.state if last else self._compiled.copy(trunk.state)
        if last:
            trunk.state = None
        return TrainingState(state, trunk.at, list(trunk.metrics), dict(trunk.probes))

    def cool_down(self, trunk: TrainingState, branch: TrainingState, cells: Sequence[RunConfig], budget: int) -> None:
        """Train a branch through its cooldown."""
        self._train(branch, cells, cells[0].steps, Checkpoint(trunk, branch, cells[0].steps), budget)

    def _train(
        self, run: TrainingState, cells: Sequence[RunConfig], until: int, point: Checkpoint, budget: int
    ) -> None:
        """Take the steps from `run.at` to `until` at the rates of these cells, one per trunk.

        Stops early if no trunk has a finite loss; missing steps count as not finite. `point` is the checkpoint to save
        in the meantime, and when the observer has a reason to stop, which is raised.
        """
        self._observer.phase("train")
        while run.at < until and not _lost(run):
            started = time.perf_counter()
            if run.at == self._spawn_at:
                run.state = self._compiled.spawn(run.state)
            steps = range(run.at, min(until, self._stop_after(run.at)))
            reported = [self._step(run, cells, step) for step in steps]
            run.metrics += [np.atleast_2d(metrics) for metrics in jax.device_get(reported)]
            run.at = steps.stop
            seconds = time.perf_counter() - started
            run.seconds += seconds
            self._step_s = seconds / len(steps)
            self._tell(cells, budget, run.metrics[steps.start :], run.at, seconds, shared=point.branch is None)
            if self._probe is not None and run.at == next_probe(run.at - 1):
                weights = [_params_of(run.state.params, index, self._trunks) for index in range(self._trunks)]
                run.probes[run.at] = np.stack([self._probe(params) for params in weights])
            reason = self._observer.reason_to_stop()
            if self._saved.due or (reason and self._saved.possible):
                self._observer.phase("save")
                self._saved.save(point)
                self._observer.phase("train")
            if reason is not None:
                raise reason

    def _tell(
        self,
        cells: Sequence[RunConfig],
        budget: int,
        metrics: Sequence[NDArray[np.float32]],
        last: int,
        seconds: float,
        *,
        shared: bool,
        past: bool = False,
    ) -> None:
        rates = tuple(learning_rate(cell, last - 1) for cell in cells)
        self._observer.trained(Steps(budget, shared, last, self._names, metrics, rates, seconds, past))

    def _step(self, run: TrainingState, cells: Sequence[RunConfig], step: int) -> jax.Array:
        """Take one step of all trunks and return its metrics, which may not be computed yet."""
        batches = [batches(step) for batches in self._batches]
        rates = [np.float32(learning_rate(cell, step)) for cell in cells]
        inputs = (batches[0], rates[0]) if len(cells) == 1 else (np.stack(batches), np.stack(rates))
        run.state, reported = self._compiled.step(run.state, *inputs)
        return reported

    def _stop_after(self, step: int) -> int:
        """The next step with a check, a report, a probe or the copying of experts."""
        within = max(1, min(_CHECK_EVERY, int(_TELL_S / max(self._step_s, 1e-9))))
        stops = [step + within, next_probe(step) if self._probe else None, self._spawn_at]
        return min(stop for stop in stops if stop is not None and stop > step)


def _lost(run: TrainingState) -> bool:
    return bool(run.metrics) and not np.isfinite(run.metrics[-1][:, 0]).any()


def _params_of(params: Params, index: int, trunks: int) -> Params:
    return params if trunks == 1 else jax.tree.map(lambda leaf: leaf[index], params)


def _curves(cell: RunConfig, reported: NDArray[np.float32]) -> tuple[list[dict[str, Any]], str]:
    """Curve rows of a cell from the metrics of its steps [steps, metrics], up to the first with a loss that is not
    finite, and an error message for that one, or "". Steps that were not taken count as not finite."""
    names, interval = metric_names(cell.model), max(1, cell.steps // CURVE_ROWS)
    undefined = np.full(len(names), np.nan)
    rows: list[dict[str, Any]] = []
    for start in range(0, cell.steps, interval):
        end = min(cell.steps, start + interval)
        taken = end <= len(reported)
        mean = np.mean(reported[start:end].astype(np.float64), axis=0) if taken else undefined
        rate = learning_rate(cell, end - 1)
        lost = not np.isfinite(mean[0])  # independent of the number of steps taken afterwards
        row = dict(zip(names, (undefined if lost else mean).tolist(), strict=True))
        rows.append({"step": end, "tokens": end * cell.train.batch_tokens, "lr": rate, **row})
        if lost:
            return rows, f"training loss is not finite at step {end} of {cell.steps} (rate {rate:.3g})"
    return rows, ""
