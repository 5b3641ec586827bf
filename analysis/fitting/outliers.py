"""Outliers: runs that stand far from the law which the other runs follow."""

from __future__ import annotations

import numpy as np

from analysis.tables.doubts import Doubt
from analysis.tables.rows import Rows
from scaling.arrays import Array
from scaling.formatting import loss as loss_text

_FAR, _LEAST = 8.0, 0.05  # deviations of the other runs, and of ln loss: what a typing error makes of a loss
_SPARE = 4  # runs beyond the free parameters from which on the others say what to expect
_MOST = 0.15  # of the runs: more of them are how the law misses, not slips
_SHOWN = 3
_NORMAL = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


def outlier_doubts(rows: Rows, target: str, observed: Array, residuals: Array, n_free: int) -> list[Doubt]:
    """The runs whose `target` is far from what the law expects there, as one doubt; none is left out.

    `residuals` are prediction minus observation of the logarithm, of a robust fit with `n_free` free parameters.
    """
    n = len(residuals)
    if n < n_free + _SPARE:
        return []
    scale = _NORMAL * float(np.median(np.abs(residuals))) * np.sqrt(n / (n - n_free))
    far = np.abs(residuals) > max(_LEAST, _FAR * scale)
    if not far.any() or far.sum() > _MOST * n:
        return []
    worst = np.flatnonzero(far)[np.argsort(-np.abs(residuals[far]), kind="stable")]
    expected = observed * np.exp(residuals)
    shown = sorted(worst[:_SHOWN].tolist())
    values = ", ".join(f"{loss_text(observed[i])} where the law expects {loss_text(expected[i])}" for i in shown)
    off = float(np.abs(np.expm1(-residuals[worst[0]])))
    first = np.isin(np.arange(n), shown)
    more = f"; {len(worst) - _SHOWN} more rows are as far off" if len(worst) > _SHOWN else ""
    message = (
        f"{target} {rows.named(first)} is {values} ({off:.0%} off at most; half of all runs are within "
        f"{float(np.median(np.abs(residuals))):.1%}){more}: a slip, or a run that went wrong? Correct it, or leave it "
        "out with `where`"
    )
    return [rows.doubt("outlier", [target], far, message)]
