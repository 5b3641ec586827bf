"""Problems: a law's free parameters against the losses of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from analysis.fitting.objective import Objective
from analysis.fitting.solver import Minima, Regression, minimise
from analysis.laws import Law
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans, Integers
from scaling.progress import Progress, silent

_AT_BOUND = 1e-6  # in coordinates


@dataclass(frozen=True)
class Problem:
    """What is minimised: the objective of a law's residuals over rows of `columns` and `loss`, in its free parameters.

    Parameters move as coordinates (P,), in the order of `free`: ln of those whose scale is "log".
    """

    law: Law
    free: tuple[str, ...]
    pinned: Mapping[str, float]
    columns: Mapping[str, Array]
    loss: Array
    objective: Objective

    @classmethod
    def of(cls, table: RunTable, law: Law, pinned: Mapping[str, float], objective: Objective) -> Problem:
        """The problem of fitting a law to a table with some parameters pinned."""
        free = tuple(name for name in law.names if name not in pinned)
        return cls(law, free, pinned, table.columns(law.columns), table.column(law.target), objective)

    @property
    def observed(self) -> Array:
        return np.log(self.loss) if self.objective.residual == "log" else self.loss

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper coordinates of the free parameters."""
        ends = [[self.law.to_coordinates(name, end) for end in self.law.parameter(name).bounds] for name in self.free]
        lower, upper = np.array(ends, dtype=float).reshape(-1, 2).T
        return lower, upper

    def within_bounds(self, theta: Array) -> Booleans:
        """Which coordinates (P,) lie off the bounds."""
        lower, upper = self.bounds
        return (theta > lower + _AT_BOUND) & (theta < upper - _AT_BOUND)

    def coordinates(self, params: Mapping[str, float]) -> Array:
        """The free parameters as coordinates (P,)."""
        return np.array([self.law.to_coordinates(name, params[name]) for name in self.free], dtype=float)

    def parameters(self, theta: Array) -> dict[str, Array]:
        """The free parameters of coordinates (B, P), each (B,)."""
        return {name: np.asarray(self.law.from_coordinates(name, theta[:, i])) for i, name in enumerate(self.free)}

    def log_loss(self, theta: Array) -> tuple[Array, Array]:
        """ln of the predicted loss (B, n) and its derivatives (B, P, n) by the coordinates (B, P)."""
        return self.law.log_loss_gradient(theta, self.free, self.pinned, self.columns)

    def model(self, theta: Array) -> tuple[Array, Array]:
        """Predictions (B, n) in the residual's units and their derivatives (B, P, n)."""
        with np.errstate(all="ignore"):  # an overflow shows in the value
            log_loss, jacobian = self.log_loss(theta)
        if self.objective.residual == "log":
            return log_loss, jacobian
        loss = np.exp(log_loss)
        return loss, jacobian * loss[:, None, :]

    def minimise(
        self,
        theta: Array,
        weights: Array,
        *,
        near: bool = False,
        rivals: int = 1,
        max_steps: int = 200,
        progress: Progress = silent,
    ) -> Minima:
        """The minimum reached from each start (B rivals, P) under weights (B, rows); see `solver.minimise`."""
        regression = Regression(self.model, self.observed, self.objective, *self.bounds)
        return minimise(regression, theta, weights, near=near, rivals=rivals, max_steps=max_steps, progress=progress)

    def value(self, params: Mapping[str, float]) -> float:
        """The sum that is minimised, at these parameters."""
        log_loss = self.law.log_loss(params, self.columns)
        predicted = log_loss if self.objective.residual == "log" else np.exp(log_loss)
        return float(self.objective.penalty(predicted - self.observed).sum())

    def rows(self, chosen: Integers) -> Problem:
        """The same problem on some of its rows."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return replace(self, columns=columns, loss=self.loss[chosen])
