"""The discrepancy: how much larger runs miss a mixture by, for each e-fold of compute beyond the largest run.

What makes a law wrong beyond the runs makes it wrong for larger runs together and the more so the further they lie, so
an error there is taken for a slope in ln C, zero within the runs studied. Roll-outs show how large such slopes were;
the next one is drawn from a Student t of their scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from analysis.mixture.roll_outs import Cut
from scaling.arrays import Array

FREEDOM = 4.0  # degrees of freedom of the slope: a scale from a handful of cuts has heavy tails
_PRIOR_SHARE = 0.5  # of the noise of a run: the slope believed before any roll-out
_PRIOR_CUTS = 2.0  # what that belief counts for; cuts are nested, so each is worth less than one


@dataclass(frozen=True)
class Discrepancy:
    """The scale of the slope: ln loss for each e-fold of compute beyond `train_flops`, from `n_cuts` roll-outs.

    `prior` is the scale believed before them.
    """

    scale: float = 0.0
    prior: float = 0.0
    train_flops: float = 1.0
    n_cuts: int = 0

    def slopes(self, count: int, rng: np.random.Generator) -> Array:
        """Slopes of as many draws, one from the middle of each of equally likely strata, in random order."""
        return np.asarray(self.scale * rng.permutation(stdtrit(FREEDOM, (np.arange(count) + 0.5) / count)))


def discrepancy(cuts: Sequence[Cut], weights: Mapping[str, float], residuals: Array, train_flops: float) -> Discrepancy:
    """The discrepancy of a mixture from its roll-outs; `residuals` are those of the runs fitted, of ln loss.

    A run at x = ln of the compute ratio has an error of squared size noise^2 + spread^2 + (scale x)^2 on average,
    whether the errors of a cut go together or not. So the square of the scale is estimated by its moments: the excess
    e^2 - noise^2 - spread^2 of all cuts over their x^2, each the mean of a cut's runs, so that cuts which reach far
    count most. It is shrunk towards the prior, half the noise of a run for each e-fold of compute; a cut that reaches
    less than an e-fold counts for less than one.
    """
    prior = float(_PRIOR_SHARE * np.sqrt(np.mean(residuals**2))) if len(residuals) else 0.0
    excess = reach = counted = 0.0
    for cut in cuts:
        error = np.sum([weights[name] * values for name, values in cut.errors.items()], axis=0)
        excess += float(np.mean(error**2 - cut.noise**2 - cut.spread**2))
        square = float(np.mean(cut.reach**2))
        reach, counted = reach + square, counted + min(1.0, square)
    seen = max(0.0, excess) / reach if cuts else 0.0
    square = (_PRIOR_CUTS * prior**2 + counted * seen) / (_PRIOR_CUTS + counted)
    return Discrepancy(float(np.sqrt(square)), prior, train_flops, len(cuts))
