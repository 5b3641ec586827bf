"""Cells of the task `mixture-regression`: a sample of a target with noise, and the experts fitted to it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from scaling.arrays import Array
from scaling.observer import Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.mixture_regression import MixtureRegression
from scaling.tasks.statistics import gated_regression, oracle_cells, replicates
from scaling.tasks.statistics.polynomials import TARGETS
from scaling.tasks.statistics.replicates import Measured
from scaling.tasks.task import CellResult


def train_cells(cells: Sequence[TaskCell], checkpoints: Path | None, observer: Observer) -> Iterator[CellResult]:
    """The results of cells of one call."""
    settings = cast(MixtureRegression, cells[0].settings)
    measure = _under_oracle if settings.gate == "oracle" else _with_learnt_gate
    measure_with = functools.partial(measure, settings)
    return replicates.train_cells(cells, measure_with, observer, settings.replicates)


def _sample(settings: MixtureRegression, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    x = rng.random(n)
    return x, TARGETS[settings.target].function(x) + settings.noise * rng.standard_normal(n)


def _under_oracle(settings: MixtureRegression, cell: TaskCell, rng: np.random.Generator) -> Measured:
    target = TARGETS[settings.target]
    best = _projection(settings.target, settings.n_experts, settings.order)
    x, y = _sample(settings, cell.budget, rng)
    experts = oracle_cells.fitted(x, y, settings.n_experts, settings.order)
    squared_error = oracle_cells.squared_error(target, experts)
    return {
        "squared_error": squared_error,
        "kl": squared_error / (2 * settings.noise**2),
        "approximation_error": oracle_cells.squared_error(target, best),
        "estimation_error": oracle_cells.distance(experts, best),
        "gain": float(((y - best(x)) ** 2 - (y - experts(x)) ** 2).sum()) / (2 * settings.noise**2),
        "converged": 1.0,
    }


@functools.cache
def _projection(target: str, n_experts: int, order: int) -> oracle_cells.Experts:
    return oracle_cells.projection(TARGETS[target], n_experts, order)


def _with_learnt_gate(settings: MixtureRegression, cell: TaskCell, rng: np.random.Generator) -> Measured:
    n = cell.budget
    model = gated_regression.Model(settings.n_experts, settings.order, settings.noise)
    x, y = _sample(settings, n, rng)
    gates = _gates(settings, rng)
    starts = np.stack([gated_regression.start_of_gate(gate, x, y, settings.order) for gate in gates])
    data = gated_regression.padded(x, y, settings.order)
    found = gated_regression.fit(starts, data, n, settings.bound, model, settings.em_steps)
    kl, squared_error = gated_regression.errors(found.parameters, TARGETS[settings.target], model)
    noise_alone = 0.5 * ((y - TARGETS[settings.target].function(x)) / settings.noise) ** 2
    log_truth = -noise_alone.mean() - np.log(settings.noise * np.sqrt(2 * np.pi))
    return {
        "squared_error": squared_error,
        "kl": kl,
        "gain": n * (-found.loss - log_truth),
        "converged": float(found.converged),
    }


def _gates(settings: MixtureRegression, rng: np.random.Generator) -> list[Array]:
    """Gates to start from: equal cells of three sharpnesses, and beyond them, or from the first, random centres."""
    m = settings.n_experts
    equal = 0 if settings.starts == "random" else 3
    return [
        gated_regression.gate_of_cells(m, m**2 * 4.0 ** (start % 3), None if start < equal else np.sort(rng.random(m)))
        for start in range(settings.n_starts)
    ]
