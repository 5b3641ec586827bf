"""Problems: a law's free parameters against the losses of a table, and the global search for their minimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from analysis.fitting import initial_points
from analysis.fitting.objective import Objective
from analysis.fitting.solver import Minima, minimise
from analysis.laws import Law
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans, Integers

FEW_AGREE = 3
_SAME_MINIMUM = 1e-4  # relative: starts that end within .01 % of the lowest objective reached the minimum
_POOL, _CHOSEN = 64, 2  # starts drawn for many weightings, and those that each chooses
_PATIENT = 2_000  # steps in a flat valley
_SEARCH_ROWS = 2_000  # starts search on this many rows, and the best is then polished on all


@dataclass(frozen=True)
class Problem:
    """What is minimised: a law's free parameters against the losses of a table."""

    law: Law
    free: tuple[str, ...]
    pinned: Mapping[str, float]
    columns: Mapping[str, Array]
    loss: Array
    objective: Objective

    @property
    def observed(self) -> Array:
        return np.log(self.loss) if self.objective.residual == "log" else self.loss

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper coordinates of the free parameters."""
        ends = [[self.law.to_coordinates(name, end) for end in self.law.parameter(name).bounds] for name in self.free]
        lower, upper = np.array(ends, dtype=float).reshape(-1, 2).T
        return lower, upper

    def model(self, theta: Array) -> tuple[Array, Array]:
        """Predictions (B, n) in the residual's units and their derivatives (B, P, n)."""
        with np.errstate(all="ignore"):  # what overflows is told by its value
            log_loss, jacobian = self.law.log_loss_gradient(theta, self.free, self.pinned, self.columns)
        if self.objective.residual == "log":
            return log_loss, jacobian
        loss = np.exp(log_loss)
        return loss, jacobian * loss[:, None, :]

    def draw_starts(self, count: int, rng: np.random.Generator) -> Array:
        return initial_points.draw(self.law, self.free, self.pinned, self.columns, self.loss, count, rng)

    def minimise(self, theta: Array, weights: Array, *, near: bool = False, max_steps: int = 200) -> Minima:
        """The minimum reached from each start (B, P) under its weights (B, rows); see `solver.minimise`."""
        goal = self.objective
        return minimise(self.model, self.observed, weights, goal, theta, *self.bounds, near=near, max_steps=max_steps)

    def value(self, params: Mapping[str, float]) -> float:
        """The sum that is minimised, at these parameters."""
        log_loss = self.law.log_loss(params, self.columns)
        predicted = log_loss if self.objective.residual == "log" else np.exp(log_loss)
        return float(self.objective.penalty(predicted - self.observed).sum())

    def rows(self, chosen: Integers) -> Problem:
        """The same problem on some of its rows."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return replace(self, columns=columns, loss=self.loss[chosen])


def problem(table: RunTable, definition: Law, pinned: Mapping[str, float], objective: Objective) -> Problem:
    """The problem of fitting a law to a table with some parameters pinned."""
    free = tuple(name for name in definition.names if name not in pinned)
    return Problem(
        definition, free, pinned, table.columns(definition.columns), table.column(definition.target), objective
    )


def search(task: Problem, n_starts: int, rng: np.random.Generator) -> tuple[Array, float, int, int]:
    """Coordinates and objective of the lowest minimum, starts tried, and how many of them reached it.

    Where fewer than three of `n_starts` agree, four times as many more are tried.
    """
    if not task.free:
        return np.empty(0), task.value(task.pinned), 1, 1
    rows = np.arange(task.loss.size)
    searched = task.rows(np.sort(rng.choice(rows, _SEARCH_ROWS, replace=False))) if rows.size > _SEARCH_ROWS else task
    tried, agreeing, theta, value = 0, 0, np.empty(0), np.inf
    ends: list[Minima] = []
    for count in (n_starts, 4 * n_starts):
        ends.append(searched.minimise(searched.draw_starts(count, rng), np.ones((count, searched.loss.size))))
        tried += count
        reached = np.concatenate([np.where(end.converged, end.objective, np.inf) for end in ends])
        best = int(np.argmin(reached))
        theta, value = np.concatenate([end.theta for end in ends])[best], float(reached[best])
        agreeing = int(np.sum(reached <= value * (1 + _SAME_MINIMUM) + 1e-20)) if np.isfinite(value) else 0
        if agreeing >= FEW_AGREE:
            break
    if searched is not task and np.isfinite(value):
        end = task.minimise(theta[None], np.ones((1, rows.size)), near=True)
        theta, value = end.theta[0], float(end.objective[0])
    return theta, value, tried, agreeing


def search_each(
    task: Problem, estimate: Array, weights: Array, rng: np.random.Generator
) -> tuple[Array, Array, Booleans]:
    """The lowest minimum under each row of weights (B, rows): coordinates (B, P), objective (B,), and whether it
    settled.

    Each is minimised from the estimate on all runs and from the two of 64 fresh starts that suit its weights best.
    Where that ends in a valley too flat to reach its bottom in 200 steps, ten times as many are spent there; what has
    not settled then lies where the objective hardly falls any more. The objective is infinite where nothing was found.
    """
    pool = np.clip(task.draw_starts(_POOL, rng), *task.bounds)
    with np.errstate(all="ignore"):
        penalties = np.nan_to_num(task.objective.penalty(task.model(pool)[0] - task.observed), nan=1e9, posinf=1e9)
    chosen = np.argsort(weights @ penalties.T, axis=1)[:, :_CHOSEN]
    ends = [task.minimise(np.repeat(estimate[None], len(weights), axis=0), weights, near=True)]
    ends += [task.minimise(pool[chosen[:, i]], weights) for i in range(_CHOSEN)]
    values = np.stack([end.objective for end in ends])
    best, each = values.argmin(axis=0), np.arange(len(weights))
    theta, value = np.stack([end.theta for end in ends])[best, each], values[best, each]
    settled = np.stack([end.converged for end in ends])[best, each]
    flat = np.flatnonzero(~settled & np.isfinite(value))
    if flat.size:
        end = task.minimise(theta[flat], weights[flat], near=True, max_steps=_PATIENT)
        lower = end.objective <= value[flat]
        theta[flat[lower]], value[flat[lower]] = end.theta[lower], end.objective[lower]
        settled[flat[lower]] = end.converged[lower]
    return theta, value, settled
