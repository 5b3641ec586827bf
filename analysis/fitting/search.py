"""Global search: starts spread over the parameters' ranges, and the lowest minimum that they reach."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.fitting.problem import Problem
from analysis.fitting.solver import Minima
from analysis.laws.law import Extension
from scaling.arrays import Array
from scaling.progress import Progress, part, silent

FEW_AGREE = 3
_SAME_MINIMUM = 1e-4  # relative: starts that end within .01 % of the lowest objective reached the minimum
_POOL, _CHOSEN = 64, 2  # starts drawn for many weightings, and those that each chooses
_CHOSEN_EXTENDED = 1  # where a law extends a simpler one, whose minimum leads into its own
_PATIENT = 2_000  # steps in a flat valley
_SEARCH_ROWS = 2_000  # starts search on this many rows, and the best is then polished on all
_NEAR, _FLAT = 0.15, 0.8  # of the time, until the estimate and until the starts are minimised
_LEAST_SHARE = 0.02  # of the loss that every term starts with: a term at zero has no gradient


@dataclass(frozen=True)
class GlobalMinimum:
    """Coordinates (P,) and objective of the lowest minimum, starts tried, and how many of them reached it.

    The objective is infinite where no start converged.
    """

    theta: Array
    objective: float
    n_starts: int
    n_agreeing: int


def search(problem: Problem, n_starts: int, rng: np.random.Generator) -> GlobalMinimum:
    """The lowest minimum of `n_starts` starts; where fewer than three agree, four times as many more are tried."""
    if not problem.free:
        return GlobalMinimum(np.empty(0), problem.value(problem.pinned), 1, 1)
    n_rows, part = problem.loss.size, problem
    if n_rows > _SEARCH_ROWS:
        part = problem.rows(np.sort(rng.choice(np.arange(n_rows), _SEARCH_ROWS, replace=False)))
    ends: list[Minima] = []
    for count in (n_starts, 4 * n_starts):
        ends.append(part.minimise(draw_starts(part, count, rng), np.ones((count, part.loss.size))))
        minima = Minima.join(ends)
        reached = np.where(minima.converged, minima.objective, np.inf)
        best = int(np.argmin(reached))
        theta, value = minima.theta[best], float(reached[best])
        agreeing = int(np.sum(reached <= value * (1 + _SAME_MINIMUM) + 1e-20)) if np.isfinite(value) else 0
        if agreeing >= FEW_AGREE:
            break
    if part is not problem and np.isfinite(value):
        end = problem.minimise(theta[None], np.ones((1, n_rows)), near=True)
        theta, value = end.theta[0], float(end.objective[0])
    return GlobalMinimum(theta, value, len(reached), agreeing)


def search_each(
    problem: Problem, estimate: Array, weights: Array, rng: np.random.Generator, progress: Progress = silent
) -> Minima:
    """The lowest minimum under each row of weights (B, rows).

    Each is minimised from the estimate on all runs and from the two of 64 fresh starts that suit its weights best (the
    one for a law that extends a simpler one).
    Where that ends in a valley too flat to reach its bottom in 200 steps, ten times as many are spent there; what has
    not converged then lies where the objective hardly falls any more.
    """
    pool = np.clip(draw_starts(problem, _POOL, rng), *problem.bounds)
    with np.errstate(all="ignore"):
        residuals = problem.model(pool)[0] - problem.observed
        penalties = np.nan_to_num(problem.objective.penalty(residuals), nan=1e9, posinf=1e9)
    fresh = _CHOSEN if problem.law.extends is None else _CHOSEN_EXTENDED
    chosen = np.argsort(weights @ penalties.T, axis=1)[:, :fresh]
    nearest = np.repeat(estimate[None], len(weights), axis=0)
    if problem.objective.kind == "lad":
        rivals = 1 + fresh
        starts = np.concatenate([nearest[:, None], pool[chosen]], axis=1).reshape(-1, estimate.size)
        met = problem.minimise(starts, weights, rivals=rivals, progress=part(progress, 0.0, _FLAT))
        ends = [Minima(met.theta[i::rivals], met.objective[i::rivals], met.converged[i::rivals]) for i in range(rivals)]
    else:
        ends = [problem.minimise(nearest, weights, near=True, progress=part(progress, 0.0, _NEAR))]
        for i in range(fresh):
            watched = part(progress, *(_NEAR + (_FLAT - _NEAR) * share / fresh for share in (i, i + 1)))
            ends.append(problem.minimise(pool[chosen[:, i]], weights, progress=watched))
    values = np.stack([end.objective for end in ends])
    best, rows = values.argmin(axis=0), np.arange(len(weights))
    theta, value = np.stack([end.theta for end in ends])[best, rows], values[best, rows]
    converged = np.stack([end.converged for end in ends])[best, rows]
    flat = np.flatnonzero(~converged & np.isfinite(value))
    if flat.size:
        last = part(progress, _FLAT, 1.0)
        end = problem.minimise(theta[flat], weights[flat], near=True, max_steps=_PATIENT, progress=last)
        lower = end.objective <= value[flat]
        theta[flat[lower]], value[flat[lower]] = end.theta[lower], end.objective[lower]
        converged[flat[lower]] = end.converged[lower]
    return Minima(theta, value, converged)


def draw_starts(problem: Problem, count: int, rng: np.random.Generator) -> Array:
    """Coordinates (count, P) of starts.

    Parameters that are not linear are spread as a Latin hypercube over their `start` ranges. The others then follow by
    linear least squares (variable projection): factors of terms of the loss on relative residuals, each positive one
    kept above 2 % of the loss; those of terms of ln loss on log residuals. With them solved, few starts are needed.
    Those of a law that extends a simpler one are the simpler law's, carried over.
    """
    law, free, loss = problem.law, problem.free, problem.loss
    if law.extends is not None:
        return _extended_starts(problem, law.extends, count, rng)
    theta = np.empty((count, len(free)))
    for index, name in enumerate(free):
        parameter = law.parameter(name)
        ends = {"loss": (1.0, 1.0), "log": (0.0, 0.0)}.get(parameter.linear, parameter.start)
        low, high = (law.to_coordinates(name, end) for end in ends)
        theta[:, index] = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
    for kind in ("loss", "log"):
        linear = [index for index, name in enumerate(free) if law.parameter(name).linear == kind]
        if linear:
            with np.errstate(all="ignore"):
                log_loss, jacobian = problem.log_loss(theta)
                factors = _factors(log_loss, jacobian[:, linear, :], loss, kind)
            for column, index in enumerate(linear):
                value = factors[:, column]
                if kind == "loss" and law.parameter(free[index]).bounds[0] > 0:
                    value = np.maximum(value, _LEAST_SHARE / _size(log_loss, jacobian[:, index], loss))
                theta[:, index] = law.to_coordinates(free[index], value)
    return theta


def _extended_starts(problem: Problem, extension: Extension, count: int, rng: np.random.Generator) -> Array:
    """Starts of a law that extends a simpler one: the simpler law's, each with a value of the new parameter, of which
    the first is 1 (the simpler law itself)."""
    law, name = problem.law, extension.parameter
    simpler = extension.simpler
    pinned = {held: value for held, value in problem.pinned.items() if held != name}
    free = tuple(each for each in simpler.names if each not in pinned)
    columns = {column: problem.columns[column] for column in simpler.columns}
    within = replace(problem, law=simpler, free=free, pinned=pinned, columns=columns)
    if name in problem.free:
        low, high = (law.to_coordinates(name, end) for end in law.parameter(name).start)
        spread = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
        added = law.from_coordinates(name, spread)
        added[0] = 1.0
    else:
        added = np.full(count, problem.pinned[name])
    params = extension.params({**pinned, **within.parameters(draw_starts(within, count, rng))}, added)
    coordinates = [np.broadcast_to(law.to_coordinates(each, params[each]), count) for each in problem.free]
    return np.stack(coordinates, axis=1) if coordinates else np.empty((count, 0))


def _factors(log_loss: Array, jacobian: Array, loss: Array, kind: str) -> Array:
    """Least-squares factors (count, linear) of terms whose factors are now all 1 ("loss") or 0 ("log")."""
    if kind == "log":
        basis, target = jacobian, np.log(loss) - log_loss
    else:
        total = np.exp(log_loss)
        terms = total[:, None, :] * jacobian
        basis, target = terms / loss, 1.0 - (total - terms.sum(axis=1)) / loss  # what the pinned terms leave to explain
    scale = np.sqrt(np.mean(basis**2, axis=2))
    basis = np.nan_to_num(basis / scale[..., None])
    matrix = basis @ basis.swapaxes(1, 2) + 1e-9 * loss.size * np.eye(basis.shape[1])
    solved = np.linalg.solve(matrix, (basis @ np.nan_to_num(target)[..., None]))[..., 0]
    return np.asarray(solved / scale, dtype=float)


def _size(log_loss: Array, slope: Array, loss: Array) -> Array:
    """Root mean square of one term with factor 1, relative to the loss."""
    return np.asarray(np.sqrt(np.mean((np.exp(log_loss) * slope / loss) ** 2, axis=1)), dtype=float)
