"""Whether a help is potential-based shaping, as far as transitions that were seen can tell.

If h(s, a, s') = gamma Phi(s') - Phi(s) for some Phi with Phi = 0 at ends, no optimal policy changes (Ng, Harada and
Russell, ICML 1999); their converse is that any other help changes some optimal policy in some process with these states
and actions. On a loop the differences must cancel, so transitions that close loops can refute a potential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import lsqr

EXACT = 1e-4  # of the root mean square of the help: float32 features and sums stay well below it
_STEPS = 20_000  # of the solver


@dataclass(frozen=True)
class Telescoping:
    """How close a help comes to a potential difference.

    residual: root mean square of what no potential explains, relative to that of the help.   transitions, states:
    different ones.   verdict: `shaping` where a potential of the features that are read explains all transitions and
    there are more of these than states, `other` where none does, `undecided` where transitions are too few to tell.
    """

    residual: float
    transitions: int
    states: int

    @property
    def verdict(self) -> Literal["shaping", "other", "undecided"]:
        if self.residual > EXACT:
            return "other"
        return "shaping" if self.transitions > self.states else "undecided"


def telescoping(
    before_MxK: ArrayLike, after_MxK: ArrayLike, help_M: ArrayLike, terminated_M: ArrayLike, discount: float
) -> Telescoping:
    """The potential over states that comes closest to a help, by least squares over different transitions.

    before, after: what tells the states of each of M transitions apart, such as the features that a program reads.
    """
    before, after = np.atleast_2d(np.asarray(before_MxK, float)), np.atleast_2d(np.asarray(after_MxK, float))
    help_, ended = np.asarray(help_M, float), np.asarray(terminated_M, bool)
    states, numbers = np.unique(np.concatenate([before, after]), axis=0, return_inverse=True)
    numbers = numbers.reshape(2, -1)
    rows = np.unique(np.column_stack([numbers[0], np.where(ended, -1, numbers[1]), help_]), axis=0)
    start, end, wanted = rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2]
    size = float(np.sqrt(np.mean(wanted**2)))
    if not size:
        return Telescoping(0.0, len(rows), len(states))
    goes_on = end >= 0
    equation = np.arange(len(rows))
    matrix = coo_array(
        (
            np.concatenate([np.full(len(rows), -1.0), np.full(int(goes_on.sum()), discount)]),
            (np.concatenate([equation, equation[goes_on]]), np.concatenate([start, end[goes_on]])),
        ),
        shape=(len(rows), len(states)),
    ).tocsr()
    phi: NDArray[np.float64] = lsqr(matrix, wanted, atol=1e-12, btol=1e-12, iter_lim=_STEPS)[0]
    return Telescoping(float(np.sqrt(np.mean((matrix @ phi - wanted) ** 2))) / size, len(rows), len(states))
