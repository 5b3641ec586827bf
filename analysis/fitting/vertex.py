"""Vertices: the exact end of a fit by least absolute deviations, where as many residuals are zero as parameters move.

The residuals are linearised (Gauss-Newton), the weighted linear problem is solved by exchanges of one zero residual for
another (Bloomfield and Steiger, "Least Absolute Deviations", 1983: each is a weighted median along an edge), and the
step is taken until the zeros are zeros of the model itself. Many problems move at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scaling.arrays import Array, Booleans, Integers

_ROUNDS, _EXCHANGES = 12, 40  # linearisations, and exchanges in each, before a problem is given up
_ZERO = 1e-12  # what the zero residuals may still add to the objective, relative to it
_OPTIMAL = 1e-9  # how far a multiplier may lie beyond its weight, relative to it


def to_vertices(
    residuals: Callable[[Array], tuple[Array, Array]], theta: Array, weights: Array, bounds: tuple[Array, Array]
) -> tuple[Array, Booleans]:
    """The vertex near each row of theta (B, P) that minimises sum_i w_i |r_i|, and which rows reached one.

    `residuals` gives r (B, n) and its derivatives (B, P, n). A row reaches a vertex where P residuals are zero, their
    multipliers lie within their weights (so that it is a local minimum, whatever the curvature of the model), it lies
    within the bounds and the objective is no higher than at the start. Others come back as they were.
    """
    ends, reached = theta.copy(), np.zeros(len(theta), dtype=bool)
    residual, jacobian = residuals(theta)
    start = np.einsum("bn,bn->b", weights, np.abs(residual))
    enough = (weights > 0).sum(axis=1) >= theta.shape[1]
    index = np.flatnonzero(enough & np.isfinite(start) & np.isfinite(jacobian).all(axis=(1, 2)))
    moving, residual, jacobian = theta[index], residual[index], jacobian[index]
    zeros = _first_zeros(residual, jacobian, weights[index])
    for _ in range(_ROUNDS):
        if index.size == 0:
            break
        step, optimal = _solve(residual, jacobian, weights[index], zeros)
        moving = moving + step
        residual, jacobian = residuals(moving)
        size = weights[index] * np.abs(residual)
        value = size.sum(axis=1)
        at_zero = np.take_along_axis(size, zeros, axis=1).sum(axis=1) <= _ZERO * value
        sound = np.isfinite(value) & np.isfinite(jacobian).all(axis=(1, 2))
        sound &= ((moving > bounds[0]) & (moving < bounds[1])).all(axis=1)
        done = sound & optimal & at_zero & (value <= start[index])
        ends[index[done]], reached[index[done]] = moving[done], True
        on = sound & ~done
        index, moving, zeros, residual, jacobian = index[on], moving[on], zeros[on], residual[on], jacobian[on]
    return ends, reached


def _first_zeros(residual: Array, jacobian: Array, weights: Array) -> Integers:
    """Rows (B, P) of small residuals whose derivatives are independent: Gram-Schmidt with pivoting."""
    count, width, _ = jacobian.shape
    rest, rows = jacobian.copy(), np.arange(count)
    small = np.where(weights > 0, 1.0 / (np.abs(residual) + 1e-3 * np.abs(residual).mean(axis=1, keepdims=True)), 0.0)
    rest /= np.sqrt(np.mean(rest**2, axis=2, keepdims=True)) + 1e-300
    zeros = np.empty((count, width), dtype=np.intp)
    for position in range(width):
        length = np.sqrt(np.einsum("bpn,bpn->bn", rest, rest))
        zeros[:, position] = np.argmax(length * small, axis=1)
        pivot = rest[rows, :, zeros[:, position]]
        pivot = pivot / (np.sqrt(np.einsum("bp,bp->b", pivot, pivot)) + 1e-300)[:, None]
        rest -= pivot[:, :, None] * (pivot[:, None, :] @ rest)
    return zeros


def _solve(residual: Array, jacobian: Array, weights: Array, zeros: Integers) -> tuple[Array, Booleans]:
    """The step that minimises sum_i w_i |r_i + J_i' step|, and where it stands without an exchange; changes `zeros`."""
    step, optimal = np.zeros(jacobian.shape[:2]), np.zeros(len(residual), dtype=bool)
    active = np.arange(len(residual))
    for number in range(_EXCHANGES):
        r, slopes, w, basis, rows = residual, jacobian, weights, zeros[active], np.arange(active.size)
        if active.size < len(jacobian):
            r, slopes, w = residual[active], jacobian[active], weights[active]
        square = np.take_along_axis(slopes, basis[:, None, :], axis=2)
        singular = np.linalg.det(square) == 0
        square[singular] = np.eye(square.shape[1])
        inverse = np.linalg.inv(square)
        step[active] = -np.einsum("bq,bqp->bp", np.take_along_axis(r, basis, axis=1), inverse)
        moved = r + (step[active][:, None, :] @ slopes)[:, 0]
        np.put_along_axis(moved, basis, 0.0, axis=1)
        pull = slopes @ (w * np.sign(moved))[..., None]
        multiplier = -(inverse @ pull)[..., 0]
        own = np.take_along_axis(w, basis, axis=1)
        excess = np.abs(multiplier) - own
        leaving = excess.argmax(axis=1)
        slope = excess[rows, leaving]
        stands = (slope <= _OPTIMAL * own[rows, leaving]) & ~singular
        if number == 0:
            optimal[active[stands]] = True
        edge = np.sign(multiplier[rows, leaving])[:, None] * inverse[rows, leaving]
        go = np.flatnonzero(~stands & ~singular)
        if go.size == 0:
            break
        along = (edge[go][:, None, :] @ slopes[go])[:, 0]
        entering = _weighted_median(moved[go], along, w[go], slope[go])
        zeros[active[go], leaving[go]] = entering
        active = active[go]
    return step, optimal


def _weighted_median(residual: Array, along: Array, weights: Array, slope: Array) -> Integers:
    """The row (B,) whose residual is zero at the minimum over t > 0 of sum_i w_i |r_i + t a_i|, falling at first."""
    with np.errstate(all="ignore"):
        crossing = np.where(residual * along < 0, -residual / along, np.inf)
    order = np.argsort(crossing, axis=1)
    turned = np.cumsum(np.take_along_axis(2.0 * weights * np.abs(along), order, axis=1), axis=1)
    first = np.argmax(turned >= slope[:, None], axis=1)
    return np.asarray(order[np.arange(len(order)), first])
