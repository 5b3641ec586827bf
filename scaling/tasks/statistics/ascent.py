"""Maximum likelihood in a box from several starts: BFGS, begun afresh until nothing is gained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, minimize

from scaling.arrays import Array

GRADIENT = 1e-9  # nats per sample and unit of a parameter at which a climb ends
GAIN = 1e-3  # nats of the whole sample: a fresh climb that gains less shows that the last one had converged
STEPS = 2000  # of one climb
CLIMBS = 10  # at most, one after the other

ValueAndGradient = Callable[[Array], tuple[float, Array]]
"""Parameters [P] -> the mean of -log f over the sample, in nats, and its gradient [P]."""


@dataclass(frozen=True)
class Maximum:
    """Where a climb ended.

    parameters [P].   loss: their mean -log f.   converged: a fresh climb gained less than `GAIN`.   evaluations of the
    likelihood and its gradient.
    """

    parameters: Array
    loss: float
    converged: bool
    evaluations: int


def climb(likelihood: ValueAndGradient, start: Array, n: int, bounds: Bounds) -> Maximum:
    """The least mean loss over n samples within finite bounds that is reached from one start.

    Free values u give parameters middle + half sin(u / half), which reach the bounds and leave maxima inside where they
    are: the transformation of MINUIT (James and Roos, Computer Physics Communications 10, 1975, 343-367). BFGS climbs
    in u (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 6.1); its matrices are too small for threads to
    be worth their wait, which L-BFGS-B's are not. A climb can end too early where a line search fails: at the kink of a
    ReLU, or in the flat directions of an over-fitted model. So another begins where it ended, with the identity, until
    one gains less than `GAIN` nats.
    """
    middle, half = (bounds.ub + bounds.lb) / 2, (bounds.ub - bounds.lb) / 2

    def of_free(values: Array) -> tuple[float, Array]:
        value, gradient = likelihood(middle + half * np.sin(values / half))
        return value, gradient * np.cos(values / half)

    values = half * np.arcsin(np.clip((start - middle) / half, -0.98, 0.98))  # at a bound the slope in u is 0
    loss, evaluations, converged = np.inf, 0, False
    for _ in range(CLIMBS):
        found = minimize(of_free, values, jac=True, method="BFGS", options={"gtol": GRADIENT, "maxiter": STEPS})
        evaluations += found.nfev
        gain = n * (loss - float(found.fun))
        if gain > 0:
            values, loss = found.x, float(found.fun)
        converged = bool(np.isfinite(loss)) and gain < GAIN
        if not gain >= GAIN:
            break
    return Maximum(middle + half * np.sin(values / half), loss, converged, evaluations)


def best_of(climbs: Iterable[Maximum]) -> Maximum:
    """The one of least loss. Raises ValueError without any."""
    return min(climbs, key=lambda ended: ended.loss if np.isfinite(ended.loss) else np.inf)
