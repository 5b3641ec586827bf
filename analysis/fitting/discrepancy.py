"""The discrepancy: by how much larger runs miss a law or a mixture, for each e-fold of compute beyond the largest run.

What makes a law wrong beyond the runs makes it wrong for larger runs together and the more so the further they lie, so
an error there is taken for a slope in ln C, zero within the runs studied. Its scale is estimated by
`analysis.mixture.roll_outs`; the slope that a prediction meets is drawn from a Student t of that scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from scaling.arrays import Array
from scaling.columns import TOKENS

FREEDOM = 4.0  # degrees of freedom of the slope: a scale from a handful of cuts has heavy tails


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

    def reach(self, columns: Mapping[str, Any]) -> Array:
        """ln of how far the compute 6 N D of models lies beyond that of the largest run; 0 within."""
        compute = 6.0 * np.asarray(columns["n_active"], dtype=float) * np.asarray(columns[TOKENS], dtype=float)
        return np.asarray(np.maximum(0.0, np.log(compute / self.train_flops)))
