"""Cells of the task `shared-experts`: the truth, a sample of it, and the experts fitted to it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from scipy.optimize import Bounds

from scaling.arrays import Array
from scaling.observer import Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.shared_experts import SharedExperts
from scaling.tasks.statistics import replicates, shared_and_routed
from scaling.tasks.statistics.replicates import Measured
from scaling.tasks.statistics.shared_and_routed import Mixture, Model
from scaling.tasks.statistics.voronoi import Distances, Exponents, distances, distances_of_softmax
from scaling.tasks.task import CellResult

_VARIANCE = {"linear": 0.25, "relu": 0.1}
_SHARED = {"linear": [[1.0, 6.0]], "relu": [[2.0, 2.0]]}
_ROUTED = {"linear": [[-2.0, -1.0], [2.0, 2.0]], "relu": [[-2.0, 3.0], [-1.5, -1.5]]}
_GATE = {"softmax": [[0.0, 2.0], [0.0, 0.0]], "sigmoid": [[0.0, 3.0], [-0.5, 0.0]]}  # intercept, slope


def truth(experts: str, gate: str) -> Mixture:
    """One shared and two routed experts. Each ReLU begins within [-3, 3]: one that is active everywhere is linear."""

    def with_variance(lines: list[list[float]]) -> Array:
        return np.array([[a, b, math.log(_VARIANCE[experts])] for a, b in lines])

    return Mixture(np.ones(1), with_variance(_SHARED[experts]), np.array(_GATE[gate]), with_variance(_ROUTED[experts]))


def train_cells(cells: Sequence[TaskCell], checkpoints: Path | None, observer: Observer) -> Iterator[CellResult]:
    """The results of cells of one call."""
    settings = cast(SharedExperts, cells[0].settings)
    return replicates.train_cells(cells, functools.partial(_measure, settings), observer, settings.replicates)


def _measure(settings: SharedExperts, cell: TaskCell, rng: np.random.Generator) -> Measured:
    n, true = cell.budget, truth(settings.experts, settings.gate)
    true_model = Model(1, 2, settings.experts, settings.gate)
    model = Model(settings.n_shared, settings.n_experts, settings.experts, settings.gate)
    data = shared_and_routed.drawn(rng, n, true, true_model)
    starts = np.stack([_start(settings, model, true, data, n, rng) for _ in range(settings.n_starts)])
    found = shared_and_routed.fit(starts, data, n, _bounds(settings, model), model)
    fitted, exact = shared_and_routed.mixture(found.parameters, model), true.free(true_model)
    loss_of_truth = float(shared_and_routed.mean_loss(exact, data, n, true_model)[0])
    shared, routed = _distances(settings, model, fitted, true)
    return {
        "voronoi_loss": shared.loss + routed.loss,
        "shared_loss": shared.loss,
        "routed_loss": routed.loss,
        "density_error": float(
            shared_and_routed.total_variation(
                found.parameters, exact, model, true_model, *_range(true, settings.experts)
            )
        ),
        "alone_distance": float(np.sqrt((routed.alone**2).sum())),
        "together_distance": float(np.sqrt((routed.together**2).sum())),
        "gain": n * (loss_of_truth - found.loss),
        "converged": float(found.converged),
    }


def _distances(settings: SharedExperts, model: Model, fitted: Mixture, true: Mixture) -> tuple[Distances, Distances]:
    """Of shared and of routed experts; see the task's module for the powers."""
    of_b = 4.0 if settings.experts == "linear" else 2.0
    together = np.array([2.0, 2.0, of_b, 2.0])  # slope of the gate, a, b, variance
    of_routed, of_shared = Exponents(np.ones(4), together), Exponents(np.ones(3), together[1:])
    measure = distances_of_softmax if model.gate == "softmax" else distances
    return (
        distances(fitted.shared_atoms(), true.shared_atoms(), of_shared),
        measure(fitted.routed_atoms(model), true.routed_atoms(model), of_routed),
    )


def _bounds(settings: SharedExperts, model: Model) -> Bounds:
    """Of the parameter space: without a least variance the likelihood has no maximum."""
    size = model.ends[2] + 3 * model.n_routed
    middle, half = np.zeros(size), np.full(size, settings.bound)
    log_variances = np.r_[model.ends[0] + 2 : model.ends[1] : 3, model.ends[2] + 2 : size : 3]
    middle[log_variances], half[log_variances] = (
        math.log(_VARIANCE[settings.experts]),
        math.log(settings.variance_factor),
    )
    return Bounds(middle - half, middle + half)


def _range(true: Mixture, experts: str) -> tuple[float, float]:
    """Values of y beyond which the true density is less than 1e-14 of its peak."""
    lines = np.concatenate([true.shared, true.routed])
    means = np.outer(lines[:, 0], [-3, 3]) + lines[:, 1:2]
    if experts == "relu":
        means = np.maximum(means, 0)
    reach = 8 * math.exp(lines[:, 2].max() / 2)
    return float(means.min() - reach), float(means.max() + reach)


def _start(
    settings: SharedExperts, model: Model, true: Mixture, data: tuple[Array, Array], n: int, rng: np.random.Generator
) -> Array:
    """Free parameters [P] near the truth, atoms beyond the true ones doubling one of them; or random lines.

    Under the sigmoid gate the true expert whose gate has no slope is doubled: see the task's module.
    """
    if settings.starts == "random":
        return _anywhere(model, data, n, rng)
    extra = model.n_routed - 2
    doubles = rng.integers(2, size=extra) if model.gate == "softmax" else np.ones(extra, dtype=int)
    atoms = np.concatenate([np.arange(2), doubles])
    gate, share = true.gate[atoms], 1 / np.bincount(atoms)[atoms]
    masses = share * (np.exp(gate[:, 0]) if model.gate == "softmax" else 1 / (1 + np.exp(-gate[:, 0])))
    gate[:, 0] = np.log(masses) if model.gate == "softmax" else np.log(masses / (1 - masses))
    omega = np.full(model.n_shared, 1 / model.n_shared)
    near = Mixture(omega, true.shared[np.zeros(model.n_shared, dtype=int)], gate, true.routed[atoms]).free(model)
    return near + settings.spread * rng.standard_normal(near.shape)


def _anywhere(model: Model, data: tuple[Array, Array], n: int, rng: np.random.Generator) -> Array:
    """Each expert is the line through two samples that are drawn, with a quarter of the variance of all y."""
    x, y = (rows[:n] for rows in data)

    def lines(count: int) -> Array:
        first, second = rng.integers(n, size=(2, count))
        a = ((y[second] - y[first]) / np.where(first == second, 1, x[second] - x[first])).clip(-5, 5)
        return np.stack([a, y[first] - a * x[first], np.full(count, math.log(y.var() / 4))], axis=1)

    gate = rng.standard_normal((model.n_routed, 2))
    return Mixture(
        np.full(model.n_shared, 1 / model.n_shared), lines(model.n_shared), gate, lines(model.n_routed)
    ).free(model)
