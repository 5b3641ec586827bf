"""How measured steps depart from a law of time, carried over to steps near them.

    measured / modelled = exp(f(x)),    f(x) = g(x) + sum_i w_i v prod_j (1 + a_ij) exp(-a_ij)

x are the logarithms to base 2 of `PLACE`, x_i those of a measured step, a_ij = 3^.5 |x_j - x_ij| / l_j: simple kriging
of what the law leaves over (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.27) with
Matern's covariance of order 3/2 along each axis (eq. 4.17), which halves within l_j octaves. g is 0 for the mean, and a
draw of the process before the measurement for a draw after it (Matheron's rule; Wilson et al., arXiv 2002.09309, eq.
9). Far from every measured step the mean is 0: the law alone. `analysis.latency.kriging` estimates all this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from scaling.arrays import Array, Values

PLACE = ("n_experts", "top_k", "d_model", "n_layers", "batch", "context")
"""What places a step among those measured. `top_k` is 1 in a dense model."""
_REMEMBERED = 16  # covariances of the same steps: a draw of a speed asks for some six sets, and so does the next
_TOGETHER = 1_000_000  # of their numbers, 8 MB; their features take some twice as much
_NODES = 128  # of a longer row of models by width: over ten decades of N .26 octaves of N apart, .1 of the width
_ROOTS = np.sqrt([2.0, 3.0, 5.0, 7.0, 11.0, 13.0])  # one for each of `PLACE`


@dataclass(frozen=True)
class Neighbours:
    """Measured steps of one phase, and how far they tell of others.

    `places`: rows of `PLACE`, log2. `lengths`: octaves. `variance`: of f where nothing was measured. `waves`: rows of
    `PLACE` and a phase, the frequencies of random Fourier features, from which g is made.
    """

    places: tuple[tuple[float, ...], ...]
    lengths: tuple[float, ...]
    variance: float
    waves: tuple[tuple[float, ...], ...] = ()

    @cached_property
    def _hash(self) -> int:
        return hash((self.places, self.lengths, self.variance, self.waves))

    def __hash__(self) -> int:
        return self._hash

    def covariance(self, places: Array) -> Array:
        """Of f at places (n, 6) and at those measured, (n, rows)."""
        return self.variance * matern(places, np.array(self.places), self.lengths)

    def features(self, places: Array) -> Array:
        """Random features (n, waves) of places (n, 6): their products are the covariance on average.

        sqrt(2 v / m) cos(omega x + b) with omega from the spectral density (Rahimi and Recht, NIPS 2007, section 3),
        here along each axis Student's t of 3 degrees of freedom over l (Rasmussen and Williams 2006, eq. 4.15).
        """
        waves = np.array(self.waves)
        return np.sqrt(2 * self.variance / len(waves)) * np.cos(places @ waves[:, :-1].T + waves[:, -1])


@dataclass(frozen=True)
class PhaseDepartures:
    """f of one phase: the weights of its measured steps, and those of the waves of g (none: the mean)."""

    near: Neighbours
    weights: tuple[float, ...]
    of_waves: tuple[float, ...] = ()

    def factor(self, places: Array) -> Array:
        """exp(f), measured over modelled time, of steps at places (n, 6)."""
        rows = max(_TOGETHER // len(self.weights), 1)
        return np.exp(np.concatenate([self._departure(places[i : i + rows]) for i in range(0, len(places), rows)]))

    def _departure(self, places: Array) -> Array:
        covariance, features = _of_places(self.near, places.tobytes(), bool(self.of_waves))
        departure = covariance @ np.array(self.weights)
        return departure if features is None else departure + features @ np.array(self.of_waves)


@dataclass(frozen=True)
class Departures:
    """f of decode and of prefill; None: that phase was not measured, or too little of it."""

    decode: PhaseDepartures | None = None
    prefill: PhaseDepartures | None = None


NONE_MEASURED = Departures()


def times(of: PhaseDepartures | None, place: tuple[Values, ...]) -> Values:
    """The factor of steps whose `PLACE` are these numbers or arrays; 1 without departures.

    Of a long row of models by ascending width, ln of the factor is taken as linear between `_NODES` of them.
    """
    if of is None:
        return 1.0
    shape = np.broadcast_shapes(*map(np.shape, place))
    count = shape[-1] if shape else 1
    width = np.asarray(place[PLACE.index("d_model")], dtype=float)
    if count <= _NODES or width.ndim == 0 or width.shape[-1] != count or not (np.diff(width) > 0).all():
        return _times(of, place, shape)
    at = np.linspace(0, count - 1, _NODES).round().astype(int)
    nodes = tuple(np.asarray(value)[..., at] if np.shape(value)[-1:] == (count,) else value for value in place)
    logs = np.log(_times(of, nodes, (*shape[:-1], _NODES)))
    below = np.clip(np.searchsorted(at, np.arange(count), side="right") - 1, 0, _NODES - 2)
    part = (np.arange(count) - at[below]) / (at[below + 1] - at[below])
    return np.asarray(np.exp(logs[..., below] + part * (logs[..., below + 1] - logs[..., below])))


def _times(of: PhaseDepartures, place: tuple[Values, ...], shape: tuple[int, ...]) -> Array:
    rows = np.stack([np.broadcast_to(np.asarray(value, dtype=float), shape).ravel() for value in place], axis=1)
    logs = np.log2(rows)
    # Layouts that hold the same batch are the same step. One number tells rows apart: a sum over roots that no
    # rational numbers relate.
    _, first, where = np.unique(logs @ _ROOTS, return_index=True, return_inverse=True)
    return np.asarray(of.factor(logs[first])[where.ravel()].reshape(shape)[()])


def matern(one: Array, other: Array, lengths: tuple[float, ...]) -> Array:
    """prod_j (1 + a_j) exp(-a_j), a_j = 3^.5 |x_j - y_j| / l_j, of places (n, 6) and (m, 6), as (n, m)."""
    product, exponent = np.ones((2, len(one), len(other)))
    exponent -= 1.0
    for axis, length in enumerate(lengths):
        away = np.abs(one[:, axis, None] - other[None, :, axis]) * (np.sqrt(3.0) / length)
        exponent -= away
        away += 1.0
        product *= away
    return np.asarray(product * np.exp(exponent))


@lru_cache(maxsize=_REMEMBERED)
def _of_places(near: Neighbours, places: bytes, with_features: bool) -> tuple[Array, Array | None]:
    rows = np.frombuffer(places).reshape(-1, len(PLACE))
    return near.covariance(rows), near.features(rows) if with_features else None
