"""Polynomial experts behind an oracle gate of equal cells: least squares in closed form. NumPy, float64.

Axes: M cells of [0, 1], B = order + 1 polynomials, Q nodes of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array
from scaling.tasks.statistics.polynomials import Target, nodes, orthonormal

_NODES = 48  # of a cell: a polynomial of degree 95 is integrated exactly


@dataclass(frozen=True)
class Experts:
    """Coefficients [M, B] of the cells' polynomials in the basis that is orthonormal on each cell."""

    coefficients: Array

    @property
    def order(self) -> int:
        return self.coefficients.shape[1] - 1

    def __call__(self, x: Array) -> Array:
        """Values at x in [0, 1]."""
        cell, t = _places(x, len(self.coefficients))
        return (self.coefficients[cell] * orthonormal(t, self.order)).sum(axis=-1)


def projection(target: Target, n_cells: int, order: int) -> Experts:
    """The piecewise polynomial of least squared error to a target: what infinitely many samples without noise give."""
    values, basis, weights = _at_nodes(target, n_cells, order)
    return Experts(np.einsum("mq,qb,q->mb", values, basis, weights))


def fitted(x: Array, y: Array, n_cells: int, order: int) -> Experts:
    """The maximum likelihood estimate under Gaussian noise: least squares in each cell.

    Of a cell with fewer samples than coefficients the solution of least norm is taken, that of an empty cell is 0.
    """
    cell, t = _places(x, n_cells)
    basis = orthonormal(t, order)
    right = np.stack([np.bincount(cell, basis[:, b] * y, n_cells) for b in range(order + 1)], axis=-1)
    gram = np.empty((n_cells, order + 1, order + 1))
    for i in range(order + 1):
        for j in range(i + 1):
            gram[:, i, j] = gram[:, j, i] = np.bincount(cell, basis[:, i] * basis[:, j], n_cells)
    return Experts(np.einsum("mij,mj->mi", np.linalg.pinv(gram, rcond=1e-12, hermitian=True), right))


def squared_error(target: Target, experts: Experts) -> float:
    """The mean of (target - experts)^2 over x uniform on [0, 1], by Gauss-Legendre quadrature in each cell."""
    values, basis, weights = _at_nodes(target, len(experts.coefficients), experts.order)
    return float((((values - experts.coefficients @ basis.T) ** 2) @ weights).mean())


def distance(first: Experts, second: Experts) -> float:
    """The mean of (first - second)^2 over x of experts on the same cells, by Parseval's identity."""
    return float(((first.coefficients - second.coefficients) ** 2).sum(axis=1).mean())


def _places(x: Array, n_cells: int) -> tuple[np.ndarray, Array]:
    """The cell of each x, and its place in the cell on [-1, 1]."""
    cell = np.minimum((x * n_cells).astype(np.int64), n_cells - 1)
    return cell, 2 * (x * n_cells - cell) - 1


def _at_nodes(target: Target, n_cells: int, order: int) -> tuple[Array, Array, Array]:
    """Values of the target [M, Q], basis [Q, B] and weights [Q] at the nodes of the cells."""
    points, weights = nodes(_NODES)
    x = (np.arange(n_cells)[:, None] + (points + 1) / 2) / n_cells
    return target.function(x), orthonormal(points, order), weights
