"""Trains the cells of `policy-rl`, and measures what was learnt and what became of the networks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from scaling.observer import UNOBSERVED, Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.policy_rl import PolicyRL, column_of, rounds
from scaling.tasks.rl.games import SIDE
from scaling.tasks.rl.pace import Pace
from scaling.tasks.rl.policy.checkpoint import Checkpoint, Saved
from scaling.tasks.rl.policy.curve import Curve
from scaling.tasks.rl.policy.examination import PROBE_ROWS, inspected_rows
from scaling.tasks.rl.policy.learner import Learner
from scaling.tasks.rl.policy.measures import inside_metrics
from scaling.tasks.rl.policy.phases import Phase, joint_return, transfer
from scaling.tasks.rl.policy.ppo import new_moments
from scaling.tasks.rl.policy.programs import ROOM, Examining, Playing, examining_of, playing_of, schedule_of
from scaling.tasks.rl.policy.towers import CHANNELS, channels_of, forward_flops, parameters
from scaling.tasks.rows import result
from scaling.tasks.task import CellResult
from scaling.training import host, malloc

Programs = dict[tuple[str, ...], Playing]  # by the games that they play
Observations = dict[str, NDArray[np.bool_]]  # [B, 10, 10, C] of each game
EPISODES, RANDOM_EPISODES = 128, 512  # of each game at least, whose mean return is measured
_TRAIN, _EVALUATE = 0, 1  # of the keys of a seed


def train_cells(
    cells: Sequence[TaskCell], checkpoints: Path | None = None, observer: Observer = UNOBSERVED
) -> Iterator[CellResult]:
    """Train cells that differ in their frames alone, each going on where the one before ended.

    A training that was stopped goes on from its checkpoint. Raises InputError where gymnax is not installed, and what
    the observer gives as the reason to stop.
    """
    malloc.keep()
    settings = cells[0].settings
    assert isinstance(settings, PolicyRL)
    observer.phase("compile")
    clock = time.perf_counter()
    trainer = Trainer(settings, cells[0].seed, observer)
    compile_s = time.perf_counter() - clock
    checkpoint = Checkpoint(checkpoints, cells[0].resources.checkpoint_minutes)
    trainer.resume(checkpoint, rounds(cells[0]))
    for cell in cells:
        trainer.advance(rounds(cell), checkpoint)
        observer.phase("evaluate")
        columns: dict[str, Any] = {
            "compile_s": compile_s,
            "train_s": trainer.seconds,
            "devices": 1,
            "threads": host.threads() if jax.default_backend() == "cpu" else None,
        }
        compile_s = 0.0
        yield result(cell, trainer.measured(), columns=columns, curves=trainer.curve_rows())
    checkpoint.remove()


class Trainer:
    """A training of one seed, as far as it is, with the programs that it needs."""

    def __init__(self, settings: PolicyRL, seed: int, observer: Observer) -> None:
        self._settings, self._observer = settings, observer
        root = jax.random.key(seed)
        self._train_key, self._evaluation_key = (jax.random.fold_in(root, part) for part in (_TRAIN, _EVALUATE))
        groups = [settings.games] if settings.setting != "continual" else [(game,) for game in settings.games]
        self._playing: Programs = {games: playing_of(settings, games) for games in groups}
        self._examining: Examining = examining_of(settings)
        self._learner = self._started(0)
        self._phase = settings.phase_of(0)  # of the episodes in `_learner`
        self._curve = Curve(settings.games, settings.round_frames)
        self._after: list[dict[str, float]] = []
        self.seconds = 0.0

    def resume(self, checkpoint: Checkpoint, most_rounds: int) -> None:
        """Go on from the checkpoint, if there is one of at most so many rounds."""
        saved = checkpoint.load(self._started, most_rounds)
        if saved is not None:
            self._learner, self.seconds = saved.learner, saved.seconds
            self._phase = self._settings.phase_of(max(0, saved.rounds - 1))
            self._curve.parts[:] = [saved.curve]
            self._after[:] = saved.after

    def advance(self, last: int, checkpoint: Checkpoint) -> None:
        """Train to the end of round number `last`."""
        self._observer.phase("train")
        done = int(self._learner.rounds)
        self._close(done)  # a training may have been stopped just there
        while done < last:
            self._enter(self._settings.phase_of(done))
            end = last if self._phase.end is None else min(last, self._phase.end)
            self._rounds(done, end, checkpoint)
            done = end
            self._close(done)

    def curve_rows(self) -> list[dict[str, float | int | None]]:
        """Of the curve so far, those of the ends of phases among them."""
        rows = self._curve.rows()
        for number, returns in enumerate(self._after, start=1):
            step = number * (self._settings.phase_rounds or 0)
            rows.append(
                {"step": step, "frames": step * self._settings.round_frames}
                | {column_of("return", game): value for game, value in returns.items()}
            )
        return sorted(rows, key=lambda row: row["step"] or 0)

    def measured(self) -> dict[str, float]:
        """Every metric of the training so far."""
        settings = self._settings
        games, towers, channels = settings.games, settings.towers, channels_of(settings.games)
        returns, observations = self._returns()
        random, random_observations = _random_play(settings, self._playing, self._learner.params)
        metrics = self._curve.metrics() | self._inside(observations) | {
            "episode_return": joint_return([returns[game] for game in games]),
            "random_return": joint_return([random[game] for game in games]),
            "plasticity": self._plasticity(random_observations),
            "n_parameters": float(sum(map(parameters, towers))),
            "forward_flops": float(sum(forward_flops(tower, channels) for tower in towers)),
            "needed_flops": float(sum(forward_flops(tower, channels, needed=True) for tower in towers)),
            "frames_per_s": self._curve.frames / self.seconds,
        }  # fmt: skip
        for game in games:
            metrics |= {column_of("return", game): returns[game], column_of("random_return", game): random[game]}
        if settings.setting == "continual":
            is_complete = int(self._learner.rounds) == self._phase.end
            metrics |= transfer(games, self._after if is_complete else [*self._after, returns], random)
        return metrics

    def _started(self, done: int) -> Learner:
        """A learner with new weights, in new episodes of the games that are played in round number `done`."""
        weights_key, own_key = jax.random.split(self._train_key)
        params = self._examining.start(weights_key)
        phase = self._settings.phase_of(max(0, done - 1))
        return Learner(params, new_moments(params), self._episodes(phase), jnp.int32(0), own_key)

    def _episodes(self, phase: Phase) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(self._train_key, 1), phase.number)
        return self._playing[phase.games].begin(key)

    def _enter(self, phase: Phase) -> None:
        """New episodes where another phase begins; weights and the optimiser's moments stay."""
        if phase != self._phase:
            self._learner, self._phase = replace(self._learner, play=self._episodes(phase)), phase

    def _close(self, done: int) -> None:
        """Evaluate every game where a phase ends."""
        if done == self._phase.end and len(self._after) == self._phase.number:
            self._after.append(self._returns()[0])

    def _rounds(self, done: int, last: int, checkpoint: Checkpoint) -> None:
        """Rounds of one phase, their records in the curve."""
        phase, pace = self._phase, Pace(ROOM)
        schedule, playing = schedule_of(self._settings, phase.first, phase.first_task), self._playing[phase.games]
        while done < last:
            count = pace.rounds(last - done)
            clock = time.perf_counter()
            self._learner, records = playing.advance(self._learner, schedule, jnp.int32(count))
            self._curve.add(records, count, phase.games)
            took = time.perf_counter() - clock
            self.seconds += took
            pace.took(count, took)
            done += count
            self._observer.phase("train")  # a worker that tells nothing for long is taken to hang
            reason = self._observer.reason_to_stop()
            if reason is not None or checkpoint.due:
                checkpoint.save(Saved(self._learner, done, self._curve.table, self._after, self.seconds))
            if reason is not None:
                raise reason

    def _returns(self) -> tuple[dict[str, float], Observations]:
        """Of every game, acting by the policy: the mean return and observations of the last steps."""
        return _played(self._settings, self._playing, self._learner.params, self._evaluation_key, EPISODES, 1.0)

    def _inside(self, observations: Observations) -> dict[str, float]:
        n_games = len(self._settings.games)
        observation, task = _rows(observations, inspected_rows(n_games))
        actor, critic = self._examining.inspect(self._learner.params, observation, task)
        return inside_metrics(actor, critic, np.asarray(task))

    def _plasticity(self, observations: Observations) -> float:
        rows = _rows(observations, PROBE_ROWS)
        first = self._started(0).params
        left = [float(self._examining.probe(params, *rows)) for params in (first, self._learner.params)]
        return left[0] / left[1] if left[1] > 0 else float("nan")


def _rows(observations: Observations, count: int) -> tuple[jax.Array, jax.Array]:
    """So many observations with all channels, equally many of each game in turn, evenly spread over its own; and the
    numbers of their games."""
    n_games = len(observations)
    task = np.arange(count, dtype=np.int32) % n_games
    chosen = np.zeros((count, SIDE, SIDE, CHANNELS), bool)
    for number, seen in enumerate(observations.values()):
        own = task == number
        chosen[own, ..., : seen.shape[-1]] = seen[np.arange(own.sum()) * len(seen) // own.sum()]
    return jnp.asarray(chosen), jnp.asarray(task)


def _played(
    settings: PolicyRL,
    playing: Programs,
    params: Any,
    key: jax.Array,
    episodes: int,
    weight: float,
) -> tuple[dict[str, float], Observations]:
    """For each game of the cell the mean return of at least so many first episodes, and the observations of the last
    steps of the last ones."""
    returns, observations = {}, {}
    for games, programs in playing.items():
        first_task = settings.games.index(games[0])
        each = settings.n_envs // len(games)
        batches = -(-episodes // each)
        scores = []
        for batch in range(batches):
            own_key = jax.random.fold_in(jax.random.fold_in(key, first_task), batch)
            score, seen = programs.evaluate(params, own_key, jnp.int32(first_task), jnp.float32(weight))
            scores.append(np.asarray(score, dtype=float).reshape(len(games), each))
        last = np.asarray(seen)  # [T, N, ...]
        for number, game in enumerate(games):
            returns[game] = float(np.mean([score[number] for score in scores]))
            own = last[:, number * each : (number + 1) * each]
            observations[game] = own.reshape(-1, *own.shape[2:])
    return returns, observations


_random: dict[Any, tuple[dict[str, float], Observations]] = {}


def _random_play(settings: PolicyRL, playing: Programs, params: Any) -> tuple[dict[str, float], Observations]:
    """The same of random actions, which no network or seed changes: measured once in a process."""
    key = settings.setting, settings.games, settings.n_envs, settings.n_steps
    if key not in _random:
        _random[key] = _played(settings, playing, params, jax.random.key(0), RANDOM_EPISODES, 0.0)
    return _random[key]
