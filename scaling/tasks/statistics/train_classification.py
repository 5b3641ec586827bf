"""Cells of the task `mixture-classification`: the truth, a table of counts drawn from it, and fitted experts."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from scaling.arrays import Array
from scaling.observer import Observer
from scaling.tasks.cell import TaskCell
from scaling.tasks.mixture_classification import MixtureClassification
from scaling.tasks.statistics import gated_classification, replicates
from scaling.tasks.statistics.gated_classification import COVARIATE, TRANSFORMS, Mixture
from scaling.tasks.statistics.replicates import Measured
from scaling.tasks.statistics.voronoi import Exponents, distances_of_softmax
from scaling.tasks.task import CellResult

N_CLASSES = 2
_SLOPES = {"x": 1.0, "sigmoid": 4.0, "tanh": 2.0, "cos": 2.0}  # of the first gate, by what it reads
_INTERCEPTS = {"sigmoid": -2.0}  # the two gates are even where the covariate is 0


def truth(reads: str, vanishing: bool) -> Mixture:
    """The two true experts: softmax(3 -+ 3x, 0), or the first constant, softmax(-2, 0), where its slope vanishes.

    Chosen for what a sample says about them: among two to four classes and slopes up to 10, few truths have a smaller
    largest standard deviation of a parameter (20 / sqrt(n) behind the plain gate) or a larger change of the density
    where an atom is divided (.003 of the squared distance, in units of its own standard deviation).
    """
    gate = np.array([[_INTERCEPTS.get(reads, 0.0), _SLOPES[reads]], [0.0, 0.0]])
    first = [-2.0, 0.0] if vanishing else [3.0, -3.0]
    return Mixture(gate, np.array([[first, [0.0, 0.0]], [[3.0, 3.0], [0.0, 0.0]]]))


def train_cells(cells: Sequence[TaskCell], checkpoints: Path | None, observer: Observer) -> Iterator[CellResult]:
    """The results of cells of one call."""
    settings = cast(MixtureClassification, cells[0].settings)
    return replicates.train_cells(cells, functools.partial(_measure, settings), observer, settings.replicates)


def _measure(settings: MixtureClassification, cell: TaskCell, rng: np.random.Generator) -> Measured:
    true = truth(settings.reads, settings.vanishing)
    reads = TRANSFORMS[settings.reads](COVARIATE)
    chances = true.chances(reads)
    table = gated_classification.drawn(rng, cell.budget, chances)
    starts = np.stack([_start(settings, true, rng) for _ in range(settings.n_starts)])
    found = gated_classification.fit(starts, table, reads, settings.bound, settings.n_experts, settings.em_steps)
    fitted = gated_classification.mixture(found.parameters, settings.n_experts, N_CLASSES)
    log_truth = float((table * np.log(chances)).sum())
    return {
        "density_error": float(0.5 * np.abs(fitted.chances(reads) - chances).sum(axis=1).mean()),
        "gain": -cell.budget * found.loss - log_truth,
        "converged": float(found.converged),
        **_distances(fitted, true),
    }


def _distances(fitted: Mixture, true: Mixture) -> Measured:
    size = fitted.atoms().parameters.shape[1]
    found = distances_of_softmax(fitted.atoms(), true.atoms(), Exponents(np.ones(size), np.full(size, 2.0)))
    classes = N_CLASSES - 1
    return {
        "voronoi_loss": found.loss,
        "alone_distance": _norm(found.alone),
        "together_distance": _norm(found.together),
        "together_gate": float(found.together[0]),
        "together_slope": _norm(found.together[1 : 1 + classes]),
        "together_intercept": _norm(found.together[1 + classes :]),
        "first_together": float(found.occupants[0] > 1),
    }


def _norm(parts: Array) -> float:
    return float(np.sqrt((parts**2).sum()))


def _start(settings: MixtureClassification, true: Mixture, rng: np.random.Generator) -> Array:
    """Free parameters [P] near the truth, atoms beyond the true ones doubling one at random; or anywhere."""
    if settings.starts == "random":
        gate = rng.normal(0, 2, (settings.n_experts, 2))
        return Mixture(gate, rng.normal(0, 2, (settings.n_experts, N_CLASSES, 2))).free()
    doubles = rng.integers(len(true.gate), size=settings.n_experts - len(true.gate))
    if settings.doubled != "either":
        doubles[:] = ("first", "second").index(settings.doubled)
    atoms = np.concatenate([np.arange(len(true.gate)), doubles])
    gate, experts = true.gate[atoms].copy(), true.experts[atoms]
    gate[:, 0] -= np.log(np.bincount(atoms)[atoms])
    near = Mixture(gate, experts).free()
    return near + settings.spread * rng.standard_normal(near.shape)
