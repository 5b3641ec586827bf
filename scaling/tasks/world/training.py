"""Trains the cells of `text-world`: imitation, exploration, learning from it; and measures what was learnt."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from scaling.config import counts
from scaling.observer import UNOBSERVED, Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.rows import result
from scaling.tasks.task import CellResult
from scaling.tasks.text_world import TextWorld
from scaling.tasks.world import lessons, measures
from scaling.tasks.world.instances import Instances, drawn
from scaling.tasks.world.learning import REPORTED, rate_of
from scaling.tasks.world.lessons import Lessons
from scaling.tasks.world.programs import WALKS, Programs, learning_of, programs_of
from scaling.tasks.world.rollout import FREE, GUIDED, TAUGHT, Settings, Walks
from scaling.tasks.world.vocabulary import WORDS
from scaling.training import host, malloc
from scaling.training.step import State, initial_params, state_of

ROWS = 40  # of a curve, about
_ASKED = 16  # updates between two questions whether to stop
_HELD_OUT_SEED = 0  # the same instances for every cell
_MODES = {"teacher-guided": GUIDED, "teacher-free": FREE}


def train_cells(
    cells: Sequence[TaskCell], checkpoints: Path | None = None, observer: Observer = UNOBSERVED
) -> Iterator[CellResult]:
    """Train each cell from its beginning: its schedule follows from its updates, so cells share no training.

    A cell is not resumed: it starts again, and ends with the same result. Raises what the observer gives as the reason
    to stop.
    """
    malloc.keep()
    settings = cells[0].settings
    assert isinstance(settings, TextWorld)
    observer.phase("compile")
    clock = time.perf_counter()
    programs = programs_of(settings)
    held_out = _held_out(programs, settings)
    compile_s = time.perf_counter() - clock
    for cell in cells:
        observer.phase("train")
        clock = time.perf_counter()
        training = Training(settings, cell.seed, cell.budget, programs)
        error = training.run(observer)
        train_s = time.perf_counter() - clock
        observer.phase("evaluate")
        metrics: dict[str, Any] = {"success_rate": np.full(settings.n_heldout, np.nan)}
        if not error:
            metrics = training.metrics() | _evaluated(training.state, programs, held_out, settings)
        columns: dict[str, Any] = {
            "compile_s": compile_s,
            "train_s": train_s,
            "devices": 1,
            "threads": host.threads() if jax.default_backend() == "cpu" else None,
        }
        compile_s = 0.0
        yield result(cell, metrics, columns=columns, curves=training.rows(), error=error)


@dataclass
class Training:
    """One training: its instances, its state, and what it reported."""

    settings: TextWorld
    seed: int
    updates: int
    programs: Programs
    reported: list[NDArray[np.float32]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        learning = learning_of(settings)
        params = initial_params(settings.model, len(WORDS), self.seed)
        self.state: State = state_of(params, settings.model, learning.train, jax.random.key(self.seed))
        self.instances = drawn(settings.facts, settings.n_trajectories, self.seed, self.programs.plan, held_out=False)
        self.expert = lessons.of_expert(walks(params, self.programs, self.instances, TAUGHT))
        self.explored: Lessons | None = None
        self.order = np.random.default_rng((self.seed, 2))

    def run(self, observer: Observer = UNOBSERVED) -> str:
        """Take all updates, exploring where it is time; why it diverged, or ""."""
        explores_at, waiting = self.settings.explores_at(self.updates), []
        for update in range(self.updates):
            for number in np.flatnonzero(np.asarray(explores_at) == update):
                self._explore(int(number))
            rate = np.float32(rate_of(update, self.updates, self.settings.lr))
            self.state, reported = self.programs.learn(self.state, *self.batch(), rate)
            waiting.append(reported)
            if len(waiting) == _ASKED or update + 1 == self.updates:
                self.reported += jax.device_get(waiting)
                waiting = []
                if not np.isfinite(self.reported[-1][0]):
                    return f"training loss is not finite at update {update + 1} of {self.updates}"
                observer.phase("train")  # a worker that tells nothing for long is taken to hang
                if reason := observer.reason_to_stop():
                    raise reason
        return ""

    def batch(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The next texts and weights: of the expert, and once there are some, a share of explored ones."""
        size = self.settings.batch_texts
        explored = 0 if self.explored is None else round(self.settings.explored_share * size)
        parts = [(self.expert, size - explored)] + ([(self.explored, explored)] if self.explored else [])
        rows = [(one, self.order.integers(len(one), size=count)) for one, count in parts]
        text = np.concatenate([one.text_NxT[chosen] for one, chosen in rows])
        return text, np.concatenate([one.weight_NxT[chosen] for one, chosen in rows])

    def _explore(self, number: int) -> None:
        """Walk through the instances of training once for each way of exploring, and keep what was seen."""
        found = [] if self.explored is None else [self.explored]
        for mode in (_MODES[way] for way in self.settings.ways):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), number), mode)
            made = walks(self.state.params, self.programs, self.instances, mode, self.settings.temperature, key)
            found.append(lessons.of_exploration(made))
        self.explored = lessons.joined(found)

    def metrics(self) -> dict[str, float]:
        """Means over the last tenth of the updates, and the size of the model."""
        last = np.mean(self.reported[-max(1, self.updates // 10) :], axis=0)
        return {
            "train_loss": float(last[0]),
            "utilisation": float(last[1]),
            "n_parameters": float(counts.parameters(self.settings.model, len(WORDS)).allocated),
        }

    def rows(self) -> list[dict[str, Any]]:
        """The curve: about `ROWS` rows of means since the previous one."""
        every = max(1, self.updates // ROWS)
        rows = []
        for start in range(0, len(self.reported), every):
            part = np.asarray(self.reported[start : start + every], float)
            done = start + len(part)
            values = dict(zip(REPORTED, np.mean(part, axis=0).tolist(), strict=True))
            rate = rate_of(done - 1, self.updates, self.settings.lr)
            rows.append({"step": done, "updates": done, "lr": rate} | values)
        return [{name: None if value != value else value for name, value in row.items()} for row in rows]


def walks(
    params: Any,
    programs: Programs,
    instances: Instances,
    mode: int,
    temperature: float = 0.0,
    key: jax.Array | None = None,
    *,
    speculates: bool = False,
) -> Walks:
    """A walk through each instance, by calls of `WALKS`; the last call is filled up and cut."""
    key = jax.random.key(0) if key is None else key
    settings = Settings(jnp.float32(temperature), jnp.int32(mode), jnp.bool_(speculates))
    count, found = len(instances.plans.first), []
    for start in range(0, count, WALKS):
        rows = np.resize(np.arange(start, min(start + WALKS, count)), WALKS)
        several = type(instances.instances)(*(part[rows] for part in instances.instances))
        plan = np.asarray(instances.plans.plan_Sx2)[rows]
        made = programs.walk(params, several, plan, jax.random.fold_in(key, start), settings)
        found.append([np.asarray(part)[: count - start] for part in made])
    return Walks(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _evaluated(state: State, programs: Programs, held_out: Instances, settings: TextWorld) -> dict[str, Any]:
    """The metrics of a trained model on instances that no training has seen."""
    greedy = walks(state.params, programs, held_out, FREE)
    thinking = walks(state.params, programs, held_out, FREE, speculates=True)
    expert = lessons.of_expert(walks(state.params, programs, held_out, TAUGHT))
    return {
        **measures.measured(greedy, held_out),
        **measures.speculative(thinking),
        "random_success": measures.random_success(held_out, settings.attempts),
        "action_loss": _loss(state, programs, expert, settings.batch_texts),
    }


def _loss(state: State, programs: Programs, texts: Lessons, size: int) -> float:
    """Mean cross-entropy of the words to be predicted. A step of learning reports it before it changes anything, so
    that no program of its own is needed; its new state is dropped."""
    total = 0.0
    for start in range(0, len(texts), size):
        rows = np.resize(np.arange(start, min(start + size, len(texts))), size)
        weight = texts.weight_NxT[rows]
        weight[len(texts) - start :] = 0
        _, reported = programs.learn(state, texts.text_NxT[rows], weight, np.float32(0))
        total += float(reported[0]) * float(weight.sum())
    return total / float(texts.weight_NxT.sum())


@functools.lru_cache(maxsize=4)
def _held_out_of(planner: Any, layout: Any, count: int) -> Instances:
    return drawn(layout, count, _HELD_OUT_SEED, planner, held_out=True)


def _held_out(programs: Programs, settings: TextWorld) -> Instances:
    """The instances of evaluation, the same in every cell of a layout."""
    return _held_out_of(programs.plan, settings.facts, settings.n_heldout)
