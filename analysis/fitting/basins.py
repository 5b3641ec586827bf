"""Basin hopping: independent searches, each of which perturbs the best minima that it has until nothing lower is found.

Where a law's minima lie in long flat valleys, few starts come near the lowest. Each search begins with starts of its
own and knows nothing of the others, so that several which end at one value are evidence that it is the global minimum.
A perturbation goes far where the predictions hardly change and not far where they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.fitting.problem import Problem
from scaling.arrays import Array

SAME_MINIMUM = 1e-4  # relative: objectives within .01 % of the lowest reached the minimum
_KIDS, _PARENTS = 12, 4  # perturbed minima of each search in every round, and the minima that they come from
_STEPS, _PATIENT = 40, 600  # of a perturbed minimum, and at the end of a search
_STALLED, _MOST_ROUNDS = 4, 60  # rounds without progress, after which the best is minimised patiently; rounds in all
_APART = 1e-6  # relative: objectives closer than this are taken for one minimum
_LENGTHS = (0.5, 2.0, 8.0)  # of a perturbation, in the size of the residuals that it would make
_MOST_MOVE = 2.0  # of a coordinate in one perturbation, in units of one plus its size


@dataclass(frozen=True)
class Basins:
    """Where independent searches ended: coordinates (searches, P), objectives (searches,), and the objective (starts,)
    of every minimum on the way. Searches that others made needless are left out."""

    theta: Array
    objective: Array
    tried: Array


def hop(
    problem: Problem, theta: Array, objective: Array, searches: int, enough: int, rng: np.random.Generator
) -> Basins:
    """The lowest minimum of each of `searches` searches, whose first minima (starts, P) are dealt out in turn.

    Once `enough` of them have ended at one value, and none has come below it, the others are not followed further.
    """
    own = [theta[search::searches] for search in range(searches)]
    values = [objective[search::searches] for search in range(searches)]
    tried: list[Array] = []
    idle, finished = np.zeros(searches, dtype=int), np.zeros(searches, dtype=bool)
    for _ in range(_MOST_ROUNDS):
        moving = np.flatnonzero(~finished)
        ended = np.array([values[search].min() for search in np.flatnonzero(finished)])
        lowest = min(found.min() for found in values)
        if not moving.size or np.sum(ended <= lowest * (1 + SAME_MINIMUM)) >= enough:
            break
        parents = np.concatenate([own[search][_parents(values[search])] for search in moving])
        found, reached = _minima(problem, perturbed(problem, parents, rng), _STEPS)
        tried.append(reached)
        for number, search in enumerate(moving):
            part = slice(number * _KIDS, (number + 1) * _KIDS)
            idle[search] = 0 if _lower(reached[part].min(), values[search].min()) else idle[search] + 1
            own[search] = np.concatenate([own[search], found[part]])
            values[search] = np.concatenate([values[search], reached[part]])
        stalled = np.flatnonzero(~finished & (idle >= _STALLED))
        if stalled.size:
            found, reached = _minima(problem, np.stack([own[s][values[s].argmin()] for s in stalled]), _PATIENT)
            tried.append(reached)
            for number, search in enumerate(stalled):
                finished[search] = not _lower(reached[number], values[search].min())
                own[search] = np.concatenate([own[search], found[number : number + 1]])
                values[search] = np.append(values[search], reached[number])
                idle[search] = 0
    lowest = min(found.min() for found in values)
    ends = [search for search in range(searches) if finished[search] or values[search].min() <= lowest]
    best = [values[search].argmin() for search in ends]
    return Basins(
        np.stack([own[search][place] for search, place in zip(ends, best, strict=True)]),
        np.array([values[search][place] for search, place in zip(ends, best, strict=True)]),
        np.concatenate(tried) if tried else np.empty(0),
    )


def perturbed(problem: Problem, theta: Array, rng: np.random.Generator) -> Array:
    """Each of `theta` (B, P) moved at random, by about as much in the predictions along every direction.

    Directions are those of the singular vectors of the derivatives of the predictions, so a step along one is the
    longer the flatter the valley is there.
    """
    predicted, jacobian = problem.model(theta)
    moved = np.empty_like(theta)
    for row, (place, residual, slopes) in enumerate(zip(theta, predicted - problem.observed, jacobian, strict=True)):
        size = np.linalg.norm(slopes, axis=1)
        size = np.where(np.isfinite(size) & (size > 0), size, 1.0)
        _, strength, directions = np.linalg.svd(np.nan_to_num(slopes / size[:, None]).T, full_matrices=False)
        length = np.linalg.norm(residual) * rng.choice(_LENGTHS) / np.maximum(strength, 1e-12)
        move = directions.T @ (rng.standard_normal(len(strength)) * length) / size
        largest = float(np.max(np.abs(move) / (1.0 + np.abs(place))))
        moved[row] = place + move / max(1.0, largest / _MOST_MOVE)
    return np.clip(moved, *problem.bounds)


def _parents(values: Array) -> Array:
    """Rows of the lowest minima that differ, repeated until there are enough of them."""
    order = np.argsort(values)
    ranked = values[order]
    with np.errstate(invalid="ignore"):
        different = np.append(True, ~(ranked[1:] <= ranked[:-1] * (1 + _APART))) & np.isfinite(ranked)
    chosen = order[different][:_PARENTS] if different.any() else order[:1]
    return np.asarray(chosen[np.arange(_KIDS) % len(chosen)])


def _minima(problem: Problem, starts: Array, steps: int) -> tuple[Array, Array]:
    ends = problem.minimise(starts, np.ones((len(starts), problem.loss.size)), max_steps=steps)
    return ends.theta, ends.objective


def _lower(found: float, before: float) -> bool:
    """Whether a minimum lies below another by more than two that are the same."""
    return bool(found < before * (1 - SAME_MINIMUM))
