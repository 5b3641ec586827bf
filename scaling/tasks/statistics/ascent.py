"""Maximum likelihood in a box from several starts: L-BFGS-B, begun afresh until nothing is gained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, minimize

from scaling.arrays import Array

GRADIENT = 1e-8  # nats per sample and unit of a parameter at which a climb ends
DECREASE = 1e-14  # of the mean loss in one step, at which it ends too: its value is exact to some 1e-16
GAIN = 1e-3  # nats of the whole sample: a fresh climb that gains less shows that the last one had converged
STEPS = 2000  # of one climb
CLIMBS = 10  # at most, one after the other
MEMORY = 30  # pairs of steps and gradients that are kept: about as many as there are parameters

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
    """The least mean loss over n samples within bounds that is reached from one start.

    L-BFGS-B (Byrd, Lu, Nocedal and Zhu, SIAM Journal on Scientific Computing 16, 1995, 1190-1208). A climb can end too
    early, where a line search fails: at the kink of a ReLU, or in the flat directions of an over-fitted model. So
    another begins where it ended, without its memory, until one gains less than `GAIN` nats.
    """
    parameters = np.clip(start, bounds.lb, bounds.ub)
    loss, evaluations = np.inf, 0
    for _ in range(CLIMBS):
        found = minimize(
            likelihood, parameters, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxcor": MEMORY, "gtol": GRADIENT, "ftol": DECREASE, "maxiter": STEPS, "maxfun": 2 * STEPS},
        )  # fmt: skip
        evaluations += found.nfev
        gain = n * (loss - float(found.fun))
        if gain > 0:
            parameters, loss = found.x, float(found.fun)
        if not gain >= GAIN:
            return Maximum(parameters, loss, bool(np.isfinite(loss)), evaluations)
    return Maximum(parameters, loss, False, evaluations)


def best_of(climbs: Iterable[Maximum]) -> Maximum:
    """The one of least loss. Raises ValueError without any."""
    return min(climbs, key=lambda ended: ended.loss if np.isfinite(ended.loss) else np.inf)
