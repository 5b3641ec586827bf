"""The best value of a setting at each level: the minimum of a curve over that setting, interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array, Booleans


@dataclass(frozen=True, eq=False)
class Minima:
    """Minima of curves, each of shape (...): `log_m` interpolated, `log_grid` on the grid, and whether they are at an
    end of the grid, where the curve may fall further."""

    log_m: Array
    log_grid: Array
    edge: Booleans


def minima(log_m: Array, log_y: Array) -> Minima:
    """The minimum of each row of log_y (..., M) over log_m (M,), ascending.

    Interpolated by the parabola in ln m through the lowest point and its two neighbours; its vertex lies between the
    middles of the two gaps. At an end of the grid, and where three points are level, it is the lowest point itself.
    NaN where a value of the row is.
    """
    blank = np.isnan(log_y).any(axis=-1)
    lowest = np.argmin(np.where(np.isnan(log_y), np.inf, log_y), axis=-1)
    edge = (lowest == 0) | (lowest == len(log_m) - 1)
    log_grid = np.where(blank, np.nan, log_m[lowest])
    if len(log_m) < 3:
        return Minima(log_grid, log_grid, edge)
    middle = np.clip(lowest, 1, len(log_m) - 2)
    u = [log_m[middle + step] for step in (-1, 0, 1)]
    y = [np.take_along_axis(log_y, (middle + step)[..., None], axis=-1)[..., 0] for step in (-1, 0, 1)]
    falling, rising = ((y[i + 1] - y[i]) / (u[i + 1] - u[i]) for i in (0, 1))
    bend = (rising - falling) / (u[2] - u[0])  # Newton's divided differences
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = (u[0] + u[1]) / 2 - falling / (2 * bend)
    return Minima(np.where(edge | ~(bend > 0), log_grid, vertex), log_grid, edge)
