"""The solver: many starts and many resamples of one fit at once, each driven to the bottom of its own basin.

Every problem minimises sum_i w_i rho(f_i(theta) - y_i) within bounds by damped Newton steps. The Hessian is
J' diag(w rho'') J and, for problems that are slow, sum_i w_i rho'_i grad^2 f_i as well: where few residuals lie within
the corner of rho, that is all there is along some directions. Damping is lambda J' diag(w rho'/r) J: it limits the
change in the predictions, so the steps are the same in whatever units and around whatever centre the parameters are
expressed. Corners of rho are narrowed in stages (wide first), so that the early steps are nearly least squares and the
last ones solve the objective asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.fitting.objective import Objective
from scaling.arrays import Array, Booleans

Model = Callable[[Array], tuple[Array, Array]]
"""(B, P) coordinates -> predictions (B, n) and their derivatives (B, P, n)."""

_ELEMENTS_AT_ONCE = 120_000  # problems x rows handled together: small enough to stay in the processor's cache
_WIDEST_CORNER = 0.02  # about the residuals of a poor start, in log loss
_LAD_CORNER = 1e-8  # what lad is rounded to; far below any residual
_CORNER_STEP, _LAD_STEP = 5.0, 20.0  # between corners; lad has six decades of them to cross
_CONVERGED = 1e-11  # promised decrease, relative to the objective
_PATIENCE, _REFRESH = 10, 5  # steps before the model's own curvature is brought in, and between its renewals
_FLAT = 1e-200  # curvature below which a parameter moves nothing
_STUCK = 1e12  # damping at which no step helps any more: rounding error is all that is left


@dataclass(frozen=True)
class Minima:
    """Where each problem ended: coordinates (B, P), objective (B,) (inf where it failed) and whether it converged."""

    theta: Array
    objective: Array
    converged: Booleans


def minimise(
    model: Model,
    observed: Array,
    weights: Array,
    objective: Objective,
    starts: Array,
    lower: Array,
    upper: Array,
    *,
    near: bool = False,
    max_steps: int = 200,
) -> Minima:
    """The local minimum reached from each row of `starts` (B, P), under the weights (B, n) of that row.

    `lower` and `upper` bound the coordinates, shape (P,). `near` says that the starts are close to their minima, so
    the widest corners are skipped. A problem whose predictions are not finite, or that runs out
    of `max_steps` in the last stage, is returned as not converged.
    """
    size = max(1, _ELEMENTS_AT_ONCE // observed.size)
    corners = _corners(objective)[-2 if near and objective.kind != "lad" else 0 :]
    parts = [
        _minimise_together(
            model, observed, weights[i : i + size], objective, corners, starts[i : i + size], lower, upper, max_steps
        )
        for i in range(0, len(starts), size)
    ]
    return Minima(
        theta=np.concatenate([part.theta for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
    )


def _minimise_together(
    model: Model,
    observed: Array,
    weights: Array,
    objective: Objective,
    corners: list[float],
    starts: Array,
    lower: Array,
    upper: Array,
    max_steps: int,
) -> Minima:
    theta = np.clip(starts, lower, upper)
    converged = np.zeros(len(theta), dtype=bool)
    with np.errstate(all="ignore"):  # a start that overflows is dropped by its value, below
        for corner in corners:
            stage = objective.rounded(corner)
            theta, converged = _descend(model, observed, weights, stage, theta, lower, upper, max_steps)
        value = np.einsum("bn,bn->b", weights, objective.penalty(model(theta)[0] - observed))
    finite = np.isfinite(value)
    return Minima(theta, np.where(finite, value, np.inf), converged & finite)


def _corners(objective: Objective) -> list[float]:
    """Widths of the corner of rho from wide to narrow; least squares has no corner."""
    if objective.kind == "least-squares":
        return [objective.delta]
    corners, step = ([_LAD_CORNER], _LAD_STEP) if objective.kind == "lad" else ([objective.delta], _CORNER_STEP)
    while corners[-1] * step < _WIDEST_CORNER:
        corners.append(corners[-1] * step)
    return corners[::-1]


def _descend(
    model: Model,
    observed: Array,
    weights: Array,
    objective: Objective,
    starts: Array,
    lower: Array,
    upper: Array,
    max_steps: int,
) -> tuple[Array, Booleans]:
    """One stage. Problems leave the working set as they converge, so late steps cost little."""
    theta = starts.copy()
    converged = np.zeros(len(theta), dtype=bool)
    prediction, jacobian = model(theta)
    residual = prediction - observed
    value = np.einsum("bn,bn->b", weights, objective.penalty(residual))
    finite = np.isfinite(value)
    active = np.flatnonzero(finite)
    residual, jacobian, value, w = residual[finite], jacobian[finite], value[finite], weights[finite]
    damping = np.full(active.size, 0.1)
    bend = np.zeros((active.size, theta.shape[1], theta.shape[1]))
    for count in range(max_steps):
        if active.size == 0:
            break
        if count >= _PATIENCE and (count - _PATIENCE) % _REFRESH == 0:
            bend = _model_curvature(model, theta[active], w * objective.slope(residual), jacobian)
        step, promised = _step(theta[active], residual, jacobian, w, objective, bend, damping, lower, upper)
        trial = np.clip(theta[active] + step, lower, upper)
        prediction, trial_jacobian = model(trial)
        trial_residual = prediction - observed
        trial_value = np.einsum("bn,bn->b", w, objective.penalty(trial_residual))
        better = trial_value < value
        trusted = value - trial_value > 0.25 * promised
        theta[active[better]] = trial[better]
        residual = np.where(better[:, None], trial_residual, residual)
        jacobian = np.where(better[:, None, None], trial_jacobian, jacobian)
        value = np.where(better, trial_value, value)
        damping = np.where(better, np.maximum(damping * np.where(trusted, 0.1, 0.5), 1e-9), damping * 6.0)
        done = ((promised >= 0) & (promised <= _CONVERGED * value)) | (damping > _STUCK)
        converged[active[done]] = True
        going = ~done
        active, residual, jacobian = active[going], residual[going], jacobian[going]
        value, damping, w, bend = value[going], damping[going], w[going], bend[going]
    return theta, converged


def _step(
    theta: Array,
    residual: Array,
    jacobian: Array,
    weights: Array,
    objective: Objective,
    bend: Array,
    damping: Array,
    lower: Array,
    upper: Array,
) -> tuple[Array, Array]:
    """The damped step and the decrease it promises to first order; a parameter pushed against its bound stays."""
    gradient = np.einsum("bpn,bn->bp", jacobian, weights * objective.slope(residual))
    curvature = objective.curvature(residual) + damping[:, None] * objective.majoriser(residual)
    matrix = (jacobian * (weights * curvature)[:, None, :]) @ jacobian.swapaxes(1, 2) + bend
    held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
    gradient = np.where(held, 0.0, gradient)
    diagonal = np.einsum("bpp->bp", matrix)
    ridge = np.where(held | (diagonal <= _FLAT), 1.0, 1e-11 * diagonal)
    matrix = np.where(held[:, :, None] | held[:, None, :], 0.0, matrix) + np.eye(theta.shape[1]) * ridge[:, None, :]
    step = np.nan_to_num(np.linalg.solve(matrix, -gradient[..., None])[..., 0])
    return step, -np.einsum("bp,bp->b", gradient, step)


def _model_curvature(model: Model, theta: Array, slopes: Array, jacobian: Array) -> Array:
    """sum_i c_i grad^2 f_i (B, P, P) for fixed c = w rho', by differences of the analytic gradient."""
    base = np.einsum("bpn,bn->bp", jacobian, slopes)
    columns = []
    for index in range(theta.shape[1]):
        moved = theta.copy()
        width = 1e-6 * (1.0 + np.abs(theta[:, index]))
        moved[:, index] += width
        columns.append((np.einsum("bpn,bn->bp", model(moved)[1], slopes) - base) / width[:, None])
    curvature = np.stack(columns, axis=2)
    return 0.5 * (curvature + curvature.swapaxes(1, 2))
