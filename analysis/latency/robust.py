"""Robust regression within bounds: coefficients of terms of a time, none below what is possible."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from statsmodels.robust import norms, scale

from scaling.arrays import Array, Booleans

_HUBER = norms.HuberT()
_STEPS = 60


def robust(design: Array, least: Array, start: Array | None = None) -> tuple[Array, Booleans]:
    """Coefficients c of `design @ c = 1`, c >= `least`, by Huber's M-estimate, and which of them are at their bound.

    Iteratively reweighted least squares with Huber's weights (t = 1.345) and the scale re-estimated as the median
    absolute deviation from 0 over .6745: the iteration of `statsmodels.RLM`, whose answer it gives where no bound is
    met. But each step is solved within bounds (Lawson and Hanson's NNLS on what exceeds them): no cost is negative, no
    share of a peak above 1, which plain RLM would return where terms are nearly collinear.
    """
    sizes = np.maximum(np.linalg.norm(design, axis=0), 1e-300)
    target = 1.0 - design @ least
    coefficients = start if start is not None else least + nnls(design / sizes, target)[0] / sizes
    for _ in range(_STEPS):
        residuals = 1.0 - design @ coefficients
        spread = float(scale.mad(residuals, center=0))
        if spread < 1e-12:
            break
        root = np.sqrt(_HUBER.weights(residuals / spread))
        previous = coefficients
        coefficients = least + nnls(design / sizes * root[:, None], target * root)[0] / sizes
        if np.max(np.abs(design @ (coefficients - previous))) < 1e-9:
            break
    return coefficients, coefficients <= least * (1 + 1e-12)
