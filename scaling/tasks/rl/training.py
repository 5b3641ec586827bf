"""Trains the cells of `value-rl`, and measures what was learnt and what became of the network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.observer import UNOBSERVED, Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.rl.arms import forward_flops, n_parameters
from scaling.tasks.rl.inside import dormancy, effective_rank
from scaling.tasks.rl.learning_curve import LearningCurve
from scaling.tasks.rl.pace import Pace
from scaling.tasks.rl.pqn import DECISIONS, Learner
from scaling.tasks.rl.programs import ROOM, Programs, programs_of, schedule_of
from scaling.tasks.rows import result
from scaling.tasks.task import CellResult
from scaling.tasks.value_rl import ValueRL, rounds
from scaling.training import host, malloc

EVALUATIONS, EVALUATION_EPSILON = 2, 0.05  # batches of `n_envs` first episodes, and the share of random actions in them
RANDOM_EVALUATIONS = 8
_LOOPS = 5  # of `DECISIONS` decisions


def train_cells(
    cells: Sequence[TaskCell], checkpoints: Path | None = None, observer: Observer = UNOBSERVED
) -> Iterator[CellResult]:
    """Train cells that differ in their frames alone, each going on where the one before ended.

    A cell is not resumed: it starts again. Raises InputError where gymnax is not installed, and what the observer gives
    as the reason to stop.
    """
    malloc.keep()
    settings = cells[0].settings
    assert isinstance(settings, ValueRL)
    observer.phase("compile")
    clock = time.perf_counter()
    programs = programs_of(settings)
    compile_s = time.perf_counter() - clock
    root = jax.random.key(cells[0].seed)
    train_key, evaluation_key = jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
    learner, curve = programs.start(train_key), LearningCurve(settings.round_frames)
    train_s = 0.0
    for cell in cells:
        observer.phase("train")
        clock = time.perf_counter()
        learner = _advanced(learner, rounds(cell), programs, settings, curve, observer)
        train_s += time.perf_counter() - clock
        observer.phase("evaluate")
        metrics = curve.metrics() | _measured(learner, programs, settings, evaluation_key)
        metrics["frames_per_s"] = curve.frames / train_s
        columns: dict[str, Any] = {
            "compile_s": compile_s,
            "train_s": train_s,
            "devices": 1,
            "threads": host.threads() if jax.default_backend() == "cpu" else None,
        }
        compile_s = 0.0
        error = "" if math.isfinite(metrics["td_loss"]) else "td_loss has no finite value"
        yield result(cell, metrics, columns=columns, curves=curve.rows(), error=error)


def _advanced(
    learner: Learner, last: int, programs: Programs, settings: ValueRL, curve: LearningCurve, observer: Observer
) -> Learner:
    """The learner after its round number `last`, its records in the curve."""
    schedule, done, pace = schedule_of(settings), int(learner.rounds), Pace(ROOM)
    while done < last:
        count = pace.rounds(last - done)
        clock = time.perf_counter()
        learner, records = programs.advance(learner, schedule, jnp.int32(count))
        curve.add(records, count)
        pace.took(count, time.perf_counter() - clock)
        done += count
        observer.phase("train")  # a worker that tells nothing for long is taken to hang
        if reason := observer.reason_to_stop():
            raise reason
    return learner


def _measured(learner: Learner, programs: Programs, settings: ValueRL, key: jax.Array) -> dict[str, float]:
    """Return without exploration but for 5 % of actions, what is inside the network, and what a decision takes."""
    layer, variables = settings.layer, learner.variables
    score, observation = _evaluated(variables, programs, key, EVALUATIONS, EVALUATION_EPSILON)
    inside = programs.inspect(variables, observation)
    dormant = dormancy(np.asarray(inside.hidden_ExRxF), np.asarray(inside.reached_ExR), np.random.default_rng(0))
    return {
        "episode_return": score,
        "random_return": _random_return(variables, programs, settings),
        "dormant_frac": float(np.mean(dormant.dormant)),
        "dormant_frac_worst": float(np.max(dormant.dormant)),
        "silent_frac": float(np.mean(dormant.silent)),
        "idle_experts": float(np.sum(dormant.idle)),
        "effective_rank": float(effective_rank(np.asarray(inside.features_BxH))),
        "dropped_frac": float(inside.dropped) if layer.form == "top1" and layer.slots else float("nan"),
        "decision_s": _latency(variables, programs, observation[:1]),
        "n_parameters": float(n_parameters(layer, settings.facts, settings.d_conv)),
        "forward_flops": float(forward_flops(layer, settings.facts, settings.d_conv)),
    }


def _latency(variables: Any, programs: Programs, observation_1xHxWxC: jax.Array) -> float:
    """Seconds of a decision, the median over loops."""
    took = []
    for _ in range(_LOOPS):
        clock = time.perf_counter()
        jax.block_until_ready(programs.decide(variables, observation_1xHxWxC))
        took.append((time.perf_counter() - clock) / DECISIONS)
    return float(np.median(took))


_random_returns: dict[tuple[str, int], float] = {}


def _random_return(variables: Any, programs: Programs, settings: ValueRL) -> float:
    """Mean return of random actions, the same for every network and seed: measured once in a process."""
    key = settings.game, settings.n_envs
    if key not in _random_returns:
        _random_returns[key], _ = _evaluated(variables, programs, jax.random.key(0), RANDOM_EVALUATIONS, 1.0)
    return _random_returns[key]


def _evaluated(
    variables: Any, programs: Programs, key: jax.Array, batches: int, epsilon: float
) -> tuple[float, jax.Array]:
    """Mean return of first episodes, `batches` times as many as there are environments, and the last observations."""
    found = [
        programs.evaluate(variables, jax.random.fold_in(key, batch), jnp.float32(epsilon)) for batch in range(batches)
    ]
    return float(np.mean([np.mean(score_N) for score_N, _ in found])), found[-1][1]
