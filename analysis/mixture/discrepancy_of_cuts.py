"""The discrepancy of a mixture, or of one law, from its roll-outs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.fitting.discrepancy import Discrepancy
from analysis.mixture.roll_outs import Cut
from scaling.arrays import Array

_PRIOR_SHARE = 0.5  # of the noise of a run: the slope believed before any roll-out
_PRIOR_CUTS = 2.0  # what that belief counts for; cuts are nested, so each is worth less than one


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
