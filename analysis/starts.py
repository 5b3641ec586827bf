"""Starts: points from which a fit begins, spread over the parameters' ranges, with the linear ones solved for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.dual import Array
from analysis.laws import Law

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

    Parameters that are not linear are spread as a Latin hypercube over their `start` ranges. The factors of the terms
    of the loss then follow by least squares on relative residuals (variable projection), each kept above 2 % of the
    loss; with them solved, few starts are needed.
    """
    theta = np.empty((count, len(free)))
    for index, name in enumerate(free):
        parameter = law.parameter(name)
        low, high = (law.to_coordinates(name, end) for end in ((1.0, 1.0) if parameter.linear else parameter.start))
        theta[:, index] = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
    linear = [index for index, name in enumerate(free) if law.parameter(name).linear]
    if not linear:
        return theta
    with np.errstate(all="ignore"):
        log_loss, jacobian = law.log_loss_gradient(theta, free, pinned, columns)
        total = np.exp(log_loss)
        terms = total[:, None, :] * jacobian[:, linear, :]  # the loss is linear in these factors, which are all 1 here
        share = terms / loss
        target = 1.0 - (total - terms.sum(axis=1)) / loss  # what the pinned terms leave to explain
        scale = np.sqrt(np.mean(share**2, axis=2))
        share = np.nan_to_num(share / scale[..., None])
        matrix = share @ share.swapaxes(1, 2) + 1e-9 * loss.size * np.eye(len(linear))
        factors = np.linalg.solve(matrix, (share @ np.nan_to_num(target)[..., None]))[..., 0]
        factors = np.maximum(factors, _LEAST_SHARE) / scale
    for column, index in enumerate(linear):
        theta[:, index] = law.to_coordinates(free[index], factors[:, column])
    return theta
