"""Polynomials in an orthonormal basis, and functions of known smoothness to approximate. NumPy, float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array


def orthonormal(t: Array, order: int) -> Array:
    """Legendre polynomials of degree 0 to `order` at t, [..., order + 1]; means of p_i p_j over [-1, 1] are 1 or 0."""
    columns = np.polynomial.legendre.legvander(np.asarray(t, dtype=float), order)
    return columns * np.sqrt(2 * np.arange(order + 1) + 1)


def nodes(count: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes on [-1, 1] and weights that sum to 1: exact means of polynomials of degree < 2 count."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights / 2


@dataclass(frozen=True)
class Target:
    """A function on [0, 1] and its smoothness alpha: it is in the Sobolev space W^a of L2 for every a < alpha."""

    function: Callable[[Array], Array]
    smoothness: float
    formula: str


_KNOT = 1 / 3  # in the same place, but for reflection, of its cell for every m that is a power of two


TARGETS: Mapping[str, Target] = {
    "smooth": Target(lambda x: np.sin(3 * x) + np.exp(x), np.inf, "sin(3 x) + exp(x)"),
    "kink": Target(lambda x: np.abs(x - _KNOT), 1.5, "|x - 1/3|"),
    "cusp": Target(lambda x: np.sqrt(np.abs(x - _KNOT)), 1.0, "|x - 1/3|^(1/2)"),
}
"""|x - c|^b is of smoothness b + 1/2; equal cells approximate it in squared error m^(-2 min(alpha, k + 1)).

A logarithm of m comes in where alpha = k + 1.
"""
