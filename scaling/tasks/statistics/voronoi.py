"""Distances of fitted experts to true ones: the fitted atoms are divided among the true ones nearest to them.

Axes: I fitted atoms, J true atoms, P parameters of an atom, S shifts. NumPy, float64.
An atom has a mass (the weight of its expert: omega, or exp(beta_0) of a gate) and parameters (slope of the gate,
parameters of the expert). A Voronoi cell is the set of fitted atoms nearest to one true atom (arXiv 2310.14188 and
2505.10860). Nothing depends on the order of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array, Booleans, Integers

_ROUNDS, _POINTS = 7, 41  # of the search for a gate's shift: each round's step is a twentieth of the last one's


@dataclass(frozen=True)
class Atoms:
    """masses [I] > 0, parameters [I, P]."""

    masses: Array
    parameters: Array


@dataclass(frozen=True)
class Exponents:
    """Powers of a loss: of the P differences of an atom that is alone in its cell, and of one that is not."""

    alone: Array
    together: Array


@dataclass(frozen=True)
class Distances:
    """What became of the true atoms.

    loss: the Voronoi loss.   mass: sum over cells of |mass of its atoms - true mass|.   occupants: fitted atoms of
    each true one [J].
    alone: root mean square, over true atoms with exactly one fitted atom, of the distance to it [P], by parameter.
    together: the same over true atoms with several, of the root mean square distance weighed by mass. NaN without
    such a cell.
    """

    loss: float
    mass: float
    occupants: Integers
    alone: Array
    together: Array


def distances(fitted: Atoms, true: Atoms, exponents: Exponents) -> Distances:
    """Loss and distances of atoms whose masses and parameters are identified as they stand.

    loss = sum_j |sum_{i in V_j} m_i - m_j| + sum_i m_i sum_p |difference_ip|^exponent,
    with the exponents of an atom alone in its cell or together with others.
    """
    nearest = _nearest(fitted.parameters, true)
    loss, mass = _losses(fitted.masses, fitted.parameters, true, exponents)
    differences = fitted.parameters - true.parameters[nearest.argmax(axis=-1)]
    occupants, cell_masses = nearest.sum(axis=0), fitted.masses @ nearest
    shares = fitted.masses / (nearest @ cell_masses)
    squares = np.einsum("ij,i,ip->jp", nearest, shares, differences**2)
    return Distances(
        float(loss), float(mass), occupants, _root_mean(squares[occupants == 1]), _root_mean(squares[occupants > 1])
    )


def distances_of_softmax(fitted: Atoms, true: Atoms, exponents: Exponents) -> Distances:
    """`distances` under a softmax gate, which is the same after a shift of its slopes or its intercepts.

    The intercepts are shifted so that the masses sum to the true ones. The shift of the slopes (the first parameter) is
    the one of least loss, sought among those that bring a fitted atom onto a true one, then in ever smaller steps
    around the best.
    """
    masses = fitted.masses * (true.masses.sum() / fitted.masses.sum())
    shifts = (fitted.parameters[:, :1] - true.parameters[None, :, 0]).ravel()
    spread = float(np.ptp(shifts))
    for _ in range(_ROUNDS):
        losses = _losses(masses, _shifted(fitted.parameters, shifts), true, exponents)[0]
        best = shifts[int(np.argmin(losses))]
        shifts = best + spread * np.linspace(-0.5, 0.5, _POINTS)
        spread /= _POINTS // 2
    return distances(Atoms(masses, _shifted(fitted.parameters, np.array([best]))[0]), true, exponents)


def _shifted(parameters: Array, shifts: Array) -> Array:
    """Parameters [S, I, P] whose first is less by each shift."""
    moved = np.repeat(parameters[None], len(shifts), axis=0)
    moved[..., 0] -= shifts[:, None]
    return moved


def _nearest(parameters: Array, true: Atoms) -> Booleans:
    """Whether the true atom is the nearest, [..., I, J], by Euclidean distance of parameters."""
    squares = ((parameters[..., :, None, :] - true.parameters) ** 2).sum(axis=-1)
    return np.argmin(squares, axis=-1)[..., None] == np.arange(len(true.masses))


def _losses(masses: Array, parameters: Array, true: Atoms, exponents: Exponents) -> tuple[Array, Array]:
    """The loss and its part of masses [...], of masses [..., I] and parameters [..., I, P]."""
    nearest = _nearest(parameters, true)
    differences = np.abs(parameters - true.parameters[nearest.argmax(axis=-1)])
    occupants = (nearest.sum(axis=-2, keepdims=True) * nearest).sum(axis=-1)
    powers = np.where((occupants == 1)[..., None], exponents.alone, exponents.together)
    mass = np.abs((masses[..., None] * nearest).sum(axis=-2) - true.masses).sum(axis=-1)
    return mass + (masses * (differences**powers).sum(axis=-1)).sum(axis=-1), mass


def _root_mean(squares: Array) -> Array:
    return np.sqrt(squares.mean(axis=0)) if len(squares) else np.full(squares.shape[1], np.nan)
