"""The loss of compute-optimal models as a law of compute, through the minima of isoFLOP valleys: L(C) = E + A C^-g.

Where a law of the surface is wrong in shape, the line through the minima can still be right, since it is fitted to
nothing but optimal models. It says nothing of any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.isoflop.power_law import Band
from scaling.arrays import Array
from scaling.errors import InputError

FEWEST_MINIMA = 3
_DRAWS = 4_000
# ln g before the minima are seen. g = alpha beta / (alpha + beta) of the published fits of hoffmann's form lies
# between .15 and .18 (arXiv 2203.15556, 2404.10102), that of a law without irreducible loss at .05 (arXiv 2001.08361):
# two standard deviations span .05 to .45.
_MIDDLE, _SPREAD = np.log(0.15), 0.55
_EXPONENTS = np.exp(_MIDDLE + _SPREAD * np.linspace(-3.0, 3.0, 121))
_EXACT = 1e-9  # relative: smaller misfits are rounding errors


@dataclass(frozen=True, eq=False)
class LossFrontier:
    """L(C) = E + A C^-g for one E (experts), in nats per token; every parameter is an array of draws.

    `irreducible` is E and `exponent` g; `lowest` and `highest` are the losses at `compute_range`, the least and largest
    compute of the minima, which determine E and A.
    """

    compute_range: tuple[float, float]
    exponent: Array
    lowest: Array
    highest: Array

    @property
    def irreducible(self) -> Array:
        """E, nats per token, by draw."""
        return self.highest - (self.highest - self.lowest) / _fallen(1.0, self.exponent, self._span)

    @property
    def _span(self) -> float:
        return float(np.log(self.compute_range[1] / self.compute_range[0]))

    def predict(self, train_flops: npt.ArrayLike) -> Band:
        """The loss of the compute-optimal model at these budgets: the median of the draws and their 95 % interval.

        Raises InputError for budgets that are not positive.
        """
        budgets = np.atleast_1d(np.asarray(train_flops, dtype=float))
        if not np.all(np.isfinite(budgets) & (budgets > 0)):
            raise InputError("budgets of a loss frontier must be positive numbers of FLOPs")
        place = np.log(budgets / self.compute_range[0])[:, None] / self._span
        share = _fallen(place, self.exponent, self._span) / _fallen(1.0, self.exponent, self._span)
        low, middle, high = np.quantile(
            self.highest - (self.highest - self.lowest) * share, [0.025, 0.5, 0.975], axis=1
        )
        return Band(middle, low, high)


def loss_frontier(
    train_flops: Sequence[float], losses: Sequence[float], deviations: Sequence[float], *, seed: int = 0
) -> LossFrontier:
    """The law through minima at `train_flops` with these losses and their standard `deviations` (NaN: unknown).

    Given g the law is a straight line in C^-g, so its losses at the least and the largest compute follow from least
    squares, with Student's t for n - 2 degrees of freedom. g is drawn from its posterior: the likelihood of the minima
    times a log-normal prior about the published exponents, because few minima over a short range do not determine it.
    The variance of a minimum is the larger of the scatter about the line and the mean of `deviations` squared. Draws
    with a negative irreducible loss, or that rise with compute, are left out. Raises InputError for fewer than 3 minima
    and for minima that do not fall.
    """
    spent, loss = np.asarray(train_flops, dtype=float), np.asarray(losses, dtype=float)
    if spent.size < FEWEST_MINIMA or len(np.unique(spent)) < FEWEST_MINIMA:
        raise InputError(f"a loss frontier needs minima at {FEWEST_MINIMA} budgets, found {len(np.unique(spent))}")
    if not np.all(np.isfinite(spent) & (spent > 0) & np.isfinite(loss) & (loss > 0)):
        raise InputError("a loss frontier needs positive finite budgets and losses")
    freedom = spent.size - 2
    span = float(np.log(spent.max() / spent.min()))
    place = np.log(spent / spent.min()) / span
    share = _fallen(place[:, None], _EXPONENTS, span) / _fallen(1.0, _EXPONENTS, span)
    # The loss is highest (1 - share) + lowest share, weighted as for equal relative errors.
    design = np.stack([1.0 - share.T, share.T], axis=2) / loss[None, :, None]
    gram = np.einsum("gip,giq->gpq", design, design)
    ends = np.linalg.solve(gram, design.sum(axis=1)[..., None])[..., 0]
    misfit = np.sum((1.0 - np.einsum("gip,gp->gi", design, ends)) ** 2, axis=1)
    known = (np.asarray(deviations, dtype=float) / loss) ** 2
    floor = float(np.mean(known[np.isfinite(known)])) if np.isfinite(known).any() else 0.0
    variance = np.maximum(misfit / freedom, max(floor, _EXACT**2))
    log_posterior = (
        -0.5 * ((np.log(_EXPONENTS) - _MIDDLE) / _SPREAD) ** 2
        - 0.5 * np.linalg.slogdet(gram)[1]
        - _half_deviance(misfit, variance, floor, freedom)
    )
    rng = np.random.default_rng(seed)
    chances = np.exp(log_posterior - log_posterior.max())
    drawn = rng.choice(len(_EXPONENTS), size=_DRAWS, p=chances / chances.sum())
    scale = np.sqrt(variance[drawn] * freedom / rng.chisquare(freedom, _DRAWS))
    root = np.linalg.cholesky(np.linalg.inv(gram))[drawn]
    values = ends[drawn] + scale[:, None] * np.einsum("dpq,dq->dp", root, rng.standard_normal((_DRAWS, 2)))
    law = LossFrontier(
        (float(spent.min()), float(spent.max())), _EXPONENTS[drawn], lowest=values[:, 1], highest=values[:, 0]
    )
    possible = (law.lowest < law.highest) & (law.lowest > 0) & (law.irreducible >= 0)
    if possible.mean() < 0.05:
        raise InputError("the losses of the minima do not fall with compute as a power law: look at the valleys")
    return LossFrontier(law.compute_range, law.exponent[possible], law.lowest[possible], law.highest[possible])


def _fallen(place: npt.ArrayLike, exponent: Array, span: float) -> Array:
    """1 - C^-g, with ln C = `place` times `span`: how far the power has fallen."""
    return np.asarray(-np.expm1(-exponent * span * np.asarray(place)))


def _half_deviance(misfit: Array, variance: Array, floor: float, freedom: int) -> Array:
    """Minus the log likelihood of the minima: of a known variance `floor`, or of one integrated out."""
    if floor > 0 and np.min(misfit) / freedom <= floor:
        return 0.5 * misfit / floor
    return 0.5 * freedom * np.log(variance)
