"""Starts: points from which a fit begins, spread over the parameters' ranges, with the linear ones solved for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.laws import Law
from scaling.arrays import Array

_LEAST_SHARE = 0.02  # of the loss that every term starts with: a term at zero has no gradient


def draw(
    law: Law,
    free: tuple[str, ...],
    pinned: Mapping[str, float],
    columns: Mapping[str, Array],
    loss: Array,
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Coordinates (count, P) of starts.

    Parameters that are not linear are spread as a Latin hypercube over their `start` ranges. The others then follow by
    linear least squares (variable projection): factors of terms of the loss on relative residuals, each positive one
    kept above 2 % of the loss; those of terms of ln loss on log residuals. With them solved, few starts are needed.
    """
    theta = np.empty((count, len(free)))
    for index, name in enumerate(free):
        parameter = law.parameter(name)
        fixed = {"loss": (1.0, 1.0), "log": (0.0, 0.0)}.get(parameter.linear, parameter.start)
        low, high = (law.to_coordinates(name, end) for end in fixed)
        theta[:, index] = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
    for kind in ("loss", "log"):
        linear = [index for index, name in enumerate(free) if law.parameter(name).linear == kind]
        if linear:
            with np.errstate(all="ignore"):
                log_loss, jacobian = law.log_loss_gradient(theta, free, pinned, columns)
                factors = _factors(log_loss, jacobian[:, linear, :], loss, kind)
            for column, index in enumerate(linear):
                value = factors[:, column]
                if kind == "loss" and law.parameter(free[index]).bounds[0] > 0:
                    value = np.maximum(value, _LEAST_SHARE / _size(log_loss, jacobian[:, index], loss))
                theta[:, index] = law.to_coordinates(free[index], value)
    return theta


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
