"""The solver: many starts and many resamples of one fit at once, each driven to the bottom of its own basin.

Every problem minimises sum_i w_i rho(f_i(theta) - y_i) within bounds by damped Newton steps. The Hessian is
J' diag(w rho'') J and, for problems that are slow, sum_i w_i rho'_i grad^2 f_i as well: where few residuals lie within
the corner of rho, that is all there is along some directions. Damping is lambda J' diag(w rho'/r) J: it limits the
change in the predictions, so the steps are the same in whatever units and around whatever centre the parameters are
expressed. Corners of rho are narrowed in stages (wide first), so that the early steps are nearly least squares and the
last ones solve the objective asked for. Under lad the narrow corners only follow the minimum to a vertex, which
`vertex.to_vertices` reaches exactly; those corners are left to the problems whose minimum is not one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from analysis.fitting.objective import Objective
from analysis.fitting.vertex import to_vertices
from scaling.arrays import Array, Booleans, Integers
from scaling.progress import Progress, part, silent

Model = Callable[[Array], tuple[Array, Array]]
"""(B, P) coordinates -> predictions (B, n) and their derivatives (B, P, n)."""

_ELEMENTS_AT_ONCE = 120_000  # problems x rows handled together: small enough to stay in the processor's cache
_WIDEST_CORNER = 0.02  # about the residuals of a poor start, in log loss
_LAD_CORNER = 1e-8  # what lad is rounded to; far below any residual
_VERTEX_CORNER = 1e-5  # narrower than this, a vertex is in sight; from wider ones another vertex may be found
_MET = 1e-8, 1e-3  # relative difference of objectives, and difference of coordinates, of starts that met
_CORNER_STEP, _LAD_STEP = 5.0, 20.0  # between corners; lad has six decades of them to cross
_CONVERGED = 1e-11  # promised decrease, relative to the objective
_PATIENCE, _REFRESH = 10, 5  # steps before the model's own curvature is brought in, and between its renewals
_FLAT = 1e-200  # curvature below which a parameter moves nothing
_STUCK = 1e12  # damping at which no step helps any more: rounding error is all that is left


@dataclass(frozen=True, eq=False)
class Regression:
    """A model against observations (n,), the objective of its residuals, and bounds (P,) of its coordinates."""

    model: Model
    observed: Array
    objective: Objective
    lower: Array
    upper: Array

    def residuals(self, theta: Array) -> tuple[Array, Array]:
        """Prediction minus observation (B, n), and its derivatives (B, P, n)."""
        prediction, jacobian = self.model(theta)
        return prediction - self.observed, jacobian

    def value(self, residuals: Array, weights: Array) -> Array:
        """The weighted objective (B,)."""
        return np.asarray(np.einsum("bn,bn->b", weights, self.objective.penalty(residuals)))


@dataclass(frozen=True)
class Minima:
    """Where each problem ended: coordinates (B, P), objective (B,) (inf where it failed) and whether it converged."""

    theta: Array
    objective: Array
    converged: Booleans

    @staticmethod
    def join(parts: list[Minima]) -> Minima:
        """The problems of all parts, in their order."""
        return Minima(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Minima)))


def minimise(
    regression: Regression,
    starts: Array,
    weights: Array,
    *,
    near: bool = False,
    rivals: int = 1,
    max_steps: int = 200,
    progress: Progress = silent,
) -> Minima:
    """The local minimum reached from each row of `starts` (B rivals, P), under weights (B, n).

    Each row of weights is minimised from `rivals` starts, which follow each other; those that meet at the widest corner
    go on as one. `near` says that the starts are close to their minima, so the widest corners are skipped. A problem
    whose predictions are not finite, or that runs out of `max_steps` in the last stage, is returned as not converged.
    """
    size = max(1, _ELEMENTS_AT_ONCE // (rivals * regression.observed.size))
    objective = regression.objective
    corners = _corners(objective)[-2 if near and objective.kind != "lad" else 0 :]
    stages = [replace(regression, objective=objective.rounded(corner)) for corner in corners]
    batches = [slice(i, i + size) for i in range(0, len(weights), size)]
    ends = []
    for number, batch in enumerate(batches):
        watched = part(progress, number / len(batches), (number + 1) / len(batches))
        first = starts[batch.start * rivals : batch.stop * rivals]
        repeated = np.repeat(weights[batch], rivals, axis=0) if rivals > 1 else weights[batch]
        ends.append(_minimise_together(regression, stages, first, repeated, rivals, max_steps, watched))
    return Minima.join(ends)


def _minimise_together(
    regression: Regression,
    stages: list[Regression],
    starts: Array,
    weights: Array,
    rivals: int,
    max_steps: int,
    progress: Progress,
) -> Minima:
    """The minima of one batch, through the stages one after the other."""
    theta = np.clip(starts, regression.lower, regression.upper)
    converged, at_vertex = np.zeros(len(theta), dtype=bool), np.zeros(len(theta), dtype=bool)
    leader = moving = np.arange(len(theta))
    with np.errstate(all="ignore"):  # a start that overflows is dropped by its value, below
        for number, stage in enumerate(stages):
            watched = part(progress, number / len(stages), (number + 1) / len(stages))
            theta[moving], converged[moving] = _descend(stage, theta[moving], weights[moving], max_steps, watched)
            if number == 0 and rivals > 1:
                leader = _leaders(stage, theta, weights, rivals)
                moving = np.flatnonzero(leader == moving)
            if regression.objective.kind == "lad" and stage.objective.delta < _VERTEX_CORNER:
                bounds = regression.lower, regression.upper
                theta[moving], at_vertex[moving] = to_vertices(
                    regression.residuals, theta[moving], weights[moving], bounds
                )
                converged |= at_vertex
                moving = moving[~at_vertex[moving]]
        theta, converged = theta[leader], converged[leader]
        value = regression.value(regression.residuals(theta)[0], weights)
    finite = np.isfinite(value)
    return Minima(theta, np.where(finite, value, np.inf), converged & finite)


def _leaders(regression: Regression, theta: Array, weights: Array, rivals: int) -> Integers:
    """The row (B rivals,) of the first of its rivals that each start has met, or its own."""
    value = regression.value(regression.residuals(theta)[0], weights).reshape(-1, rivals)
    place = theta.reshape(-1, rivals, theta.shape[1])
    leader = np.arange(len(theta)).reshape(-1, rivals)
    for rival in range(1, rivals):
        for earlier in reversed(range(rival)):
            met = np.abs(value[:, rival] - value[:, earlier]) <= _MET[0] * value[:, rival]
            met &= (np.abs(place[:, rival] - place[:, earlier]) <= _MET[1]).all(axis=1)
            leader[met, rival] = leader[met, earlier]
    return leader.ravel()


def _corners(objective: Objective) -> list[float]:
    """Widths of the corner of rho from wide to narrow; least squares has no corner."""
    if objective.kind == "least-squares":
        return [objective.delta]
    corners, step = ([_LAD_CORNER], _LAD_STEP) if objective.kind == "lad" else ([objective.delta], _CORNER_STEP)
    while corners[-1] * step < _WIDEST_CORNER:
        corners.append(corners[-1] * step)
    return corners[::-1]


@dataclass
class _Active:
    """The problems of a stage that are still descending, all arrays by problem. `bend` is `_model_curvature`."""

    index: Integers
    theta: Array
    weights: Array
    residual: Array
    jacobian: Array
    value: Array
    damping: Array
    bend: Array

    def rows(self, chosen: Booleans) -> _Active:
        return _Active(*(getattr(self, f.name)[chosen] for f in fields(self)))


def _descend(
    regression: Regression, starts: Array, weights: Array, max_steps: int, progress: Progress
) -> tuple[Array, Booleans]:
    """One stage. Problems leave the working set as they converge, so late steps cost little."""
    theta, converged = starts.copy(), np.zeros(len(starts), dtype=bool)
    count, width = starts.shape
    residual, jacobian = regression.residuals(theta)
    value = regression.value(residual, weights)
    damping, bend = np.full(count, 0.1), np.zeros((count, width, width))
    active = _Active(np.arange(count), theta.copy(), weights, residual, jacobian, value, damping, bend)
    active = active.rows(np.isfinite(value))
    for step_number in range(max_steps):
        if active.index.size == 0:
            break
        if step_number >= _PATIENCE and (step_number - _PATIENCE) % _REFRESH == 0:
            active.bend = _model_curvature(regression, active)
        done = _advance(regression, active)
        theta[active.index] = active.theta
        converged[active.index[done]] = True
        if done.any():
            active = active.rows(~done)
        progress(1.0 - active.index.size / count)
    return theta, converged


def _advance(regression: Regression, active: _Active) -> Booleans:
    """Try one damped step for each problem, keep it where it helps, adjust the damping; which problems are done."""
    step, promised = _step(regression, active)
    trial = np.clip(active.theta + step, regression.lower, regression.upper)
    residual, jacobian = regression.residuals(trial)
    value = regression.value(residual, active.weights)
    better = value < active.value
    trusted = active.value - value > 0.25 * promised
    active.theta = np.where(better[:, None], trial, active.theta)
    active.residual = np.where(better[:, None], residual, active.residual)
    active.jacobian = np.where(better[:, None, None], jacobian, active.jacobian)
    active.value = np.where(better, value, active.value)
    eased = np.maximum(active.damping * np.where(trusted, 0.1, 0.5), 1e-9)
    active.damping = np.where(better, eased, active.damping * 6.0)
    return ((promised >= 0) & (promised <= _CONVERGED * active.value)) | (active.damping > _STUCK)


def _step(regression: Regression, active: _Active) -> tuple[Array, Array]:
    """The damped step and the decrease it promises to first order; a parameter pushed against its bound stays."""
    objective, theta, jacobian, residual = regression.objective, active.theta, active.jacobian, active.residual
    gradient = np.einsum("bpn,bn->bp", jacobian, active.weights * objective.slope(residual))
    curvature = objective.curvature(residual) + active.damping[:, None] * objective.majoriser(residual)
    matrix = (jacobian * (active.weights * curvature)[:, None, :]) @ jacobian.swapaxes(1, 2) + active.bend
    held = ((theta <= regression.lower) & (gradient > 0)) | ((theta >= regression.upper) & (gradient < 0))
    gradient = np.where(held, 0.0, gradient)
    diagonal = np.einsum("bpp->bp", matrix)
    ridge = np.where(held | (diagonal <= _FLAT), 1.0, 1e-11 * diagonal)
    matrix = np.where(held[:, :, None] | held[:, None, :], 0.0, matrix) + np.eye(theta.shape[1]) * ridge[:, None, :]
    step = np.nan_to_num(_solved(matrix, -gradient))
    return step, -np.einsum("bp,bp->b", gradient, step)


def _solved(matrices: Array, right: Array) -> Array:
    """The solutions (B, P) of one linear system each; where one is exactly singular, all get a ridge that is lost in
    rounding otherwise."""
    try:
        return np.asarray(np.linalg.solve(matrices, right[..., None])[..., 0])
    except np.linalg.LinAlgError:
        ridge = 1e-9 * np.abs(matrices).max(axis=(1, 2), keepdims=True)
        return np.asarray(np.linalg.solve(matrices + ridge * np.eye(matrices.shape[1]), right[..., None])[..., 0])


def _model_curvature(regression: Regression, active: _Active) -> Array:
    """sum_i c_i grad^2 f_i (B, P, P) for fixed c = w rho', by differences of the analytic gradient."""
    theta, slopes = active.theta, active.weights * regression.objective.slope(active.residual)
    base = np.einsum("bpn,bn->bp", active.jacobian, slopes)
    columns = []
    for index in range(theta.shape[1]):
        moved = theta.copy()
        width = 1e-6 * (1.0 + np.abs(theta[:, index]))
        moved[:, index] += width
        columns.append((np.einsum("bpn,bn->bp", regression.model(moved)[1], slopes) - base) / width[:, None])
    curvature = np.stack(columns, axis=2)
    return 0.5 * (curvature + curvature.swapaxes(1, 2))
