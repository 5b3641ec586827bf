"""Global search: starts spread over the parameters' ranges, and the lowest minimum that they reach."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.fitting.basins import SAME_MINIMUM, hop
from analysis.fitting.problem import Problem
from analysis.fitting.solver import Minima
from analysis.laws.law import Extension
from scaling.arrays import Array
from scaling.progress import Progress, part, silent

FEW_AGREE = 3
_SETTLED = 0.25  # of the starts at the lowest minimum: more would find no other
_STARTS_A_SEARCH = 8  # of the first starts, for each independent search of flat valleys
_SETS = 2  # of independent searches, the second where too few of the first agree
_POOL, _CHOSEN = 64, 2  # starts drawn for many weightings, and those that each chooses
_CHOSEN_EXTENDED = 1  # where a law extends a simpler one, whose minimum leads into its own
_PATIENT = 2_000  # steps in a flat valley
_SEARCH_ROWS = 2_000  # starts search on this many rows, and the best is then polished on all
_NEAR, _FLAT = 0.15, 0.8  # of the time, until the estimate and until the starts are minimised
_ROUNDING = 1e-9  # residuals that are nothing but rounding
_LEAST_SHARE = 0.02  # of the loss that every term starts with: a term at zero has no gradient


@dataclass(frozen=True)
class GlobalMinimum:
    """Coordinates (P,) and objective of the lowest minimum, starts tried, and how many of them reached it.

    Where the first starts disagreed, independent searches followed, `n_searches` of them, of which
    `n_searches_agreeing` ended at the lowest minimum. The objective is infinite where no start converged.
    """

    theta: Array
    objective: float
    n_starts: int
    n_agreeing: int
    n_searches: int = 0
    n_searches_agreeing: int = 0

    @property
    def doubt(self) -> str:
        """Why it may not be the global minimum, with numbers; "" where enough independent starts reached it."""
        if self.n_searches and self.n_searches_agreeing < FEW_AGREE:
            return (
                f"the minimum is not certainly global: {self.n_searches_agreeing} of {self.n_searches} independent "
                f"searches, of {self.n_starts:,} starts together, ended at the lowest objective; raise `starts`"
            )
        if not self.n_searches and self.n_agreeing < FEW_AGREE:
            return (
                f"the minimum is not certainly global: {self.n_agreeing} of {self.n_starts} starts reached the lowest "
                "objective; raise `starts`"
            )
        return ""


def search(problem: Problem, n_starts: int, rng: np.random.Generator) -> GlobalMinimum:
    """The lowest minimum that starts reach.

    Where at least a quarter of `n_starts` starts reach the lowest, that is it. Otherwise valleys are flat, and an
    independent search follows for every eight of them (`basins.hop`); where fewer than three end at the lowest minimum,
    as many more follow.
    """
    if not problem.free:
        return GlobalMinimum(np.empty(0), problem.value(problem.pinned), FEW_AGREE, FEW_AGREE)
    n_rows, part = problem.loss.size, problem
    if n_rows > _SEARCH_ROWS:
        part = problem.rows(np.sort(rng.choice(np.arange(n_rows), _SEARCH_ROWS, replace=False)))
    first = part.minimise(draw_starts(part, n_starts, rng), np.ones((n_starts, part.loss.size)))
    reached = np.where(first.converged, first.objective, np.inf)
    zero = _nothing(part)
    found = GlobalMinimum(first.theta[reached.argmin()], float(reached.min()), n_starts, _agreeing(reached, zero))
    if found.n_agreeing < max(_SETTLED * n_starts, min(FEW_AGREE, n_starts)) or n_starts < FEW_AGREE:
        found = _search_basins(part, first, n_starts, rng)
    if part is not problem and np.isfinite(found.objective):
        end = problem.minimise(found.theta[None], np.ones((1, n_rows)), near=True)
        found = replace(found, theta=end.theta[0], objective=float(end.objective[0]))
    return found


def _search_basins(problem: Problem, first: Minima, n_starts: int, rng: np.random.Generator) -> GlobalMinimum:
    """The lowest minimum of independent searches, until three end there or two sets of them are through; fewer than
    three searches were asked for speed, and are one set."""
    searches = max(1, n_starts // _STARTS_A_SEARCH)
    tried, zero = first.objective, _nothing(problem)
    thetas, ends = np.empty((0, len(problem.free))), np.empty(0)
    for number in range(_SETS if searches >= FEW_AGREE else 1):
        if number:
            first = problem.minimise(draw_starts(problem, n_starts, rng), np.ones((n_starts, problem.loss.size)))
            tried = np.append(tried, first.objective)
        basins = hop(problem, first.theta, first.objective, searches, FEW_AGREE, rng)
        thetas, ends = np.concatenate([thetas, basins.theta]), np.append(ends, basins.objective)
        tried = np.append(tried, basins.tried)
        if _agreeing(ends, zero) >= FEW_AGREE:
            break
    best = int(ends.argmin())
    lowest = float(ends[best])
    at_lowest = int(np.sum(tried <= lowest * (1 + SAME_MINIMUM) + zero)) if np.isfinite(lowest) else 0
    return GlobalMinimum(thetas[best], lowest, len(tried), at_lowest, len(ends), _agreeing(ends, zero))


def _agreeing(objectives: Array, zero: float) -> int:
    """How many of them are the lowest, to within what tells minima apart; all up to `zero` are alike."""
    lowest = objectives.min()
    return int(np.sum(objectives <= lowest * (1 + SAME_MINIMUM) + zero)) if np.isfinite(lowest) else 0


def _nothing(problem: Problem) -> float:
    """The objective of residuals that are nothing but rounding."""
    return float(problem.objective.penalty(np.full(problem.loss.size, _ROUNDING)).sum())


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
