"""Outliers: runs that stand far from the law which the other runs follow."""

from __future__ import annotations

import numpy as np

from analysis.fitting.problem import Problem
from analysis.tables.doubts import Doubt
from analysis.tables.rows import Rows
from scaling.arrays import Array
from scaling.formatting import loss as loss_text

_SUSPECT, _FAR = 4.0, 7.0  # deviations of the runs from the law: to leave a run out and look again, and to name it
_LEAST = 0.08  # of ln loss: a typing error makes more of it, an unusual shape of model less
_SPARE = 4  # runs beyond the free parameters from which on the others say what to expect
_MOST = 0.15  # of the runs: more of them are how the law misses, not slips
_SHOWN = 3
_NORMAL = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


def outlier_doubts(rows: Rows, problem: Problem, theta: Array) -> list[Doubt]:
    """The runs far from what the law, fitted to the other runs, expects of them, as one doubt; none is left out.

    `theta` (P,) is the minimum of the problem, whose rows are `rows`. Runs that stand off it are left out, and the law
    is fitted to the others once more from there: a run at a corner of the design bends the law to itself.
    """
    n, n_free = len(problem.loss), len(theta)
    if n < n_free + _SPARE or not n_free:
        return []
    distance = np.abs(_residuals(problem, theta))
    suspect = distance > max(_LEAST / 2, _SUSPECT * _deviation(distance, n_free))
    if not suspect.any() or suspect.sum() > _MOST * n:
        return []
    others = problem.minimise(theta[None], (~suspect).astype(float)[None], near=True).theta[0]
    residuals = _residuals(problem, others)
    distance = np.abs(residuals)
    usual = _deviation(distance[~suspect], n_free)
    far = suspect & (distance > max(_LEAST, _FAR * usual))
    if not far.any():
        return []
    worst = np.flatnonzero(far)[np.argsort(-distance[far], kind="stable")]
    shown = sorted(worst[:_SHOWN].tolist())
    expected = problem.loss * np.exp(residuals)
    values = ", ".join(f"{loss_text(problem.loss[i])} where the law expects {loss_text(expected[i])}" for i in shown)
    off = float(np.abs(np.expm1(-residuals[worst[0]])))
    more = f"; {len(worst) - _SHOWN} more rows are as far off" if len(worst) > _SHOWN else ""
    message = (
        f"{problem.law.target} {rows.named(np.isin(np.arange(n), shown))} is {values} ({off:.0%} off at most, where "
        f"the other runs deviate by {usual:.1%}){more}: a slip, or a run that went wrong? Correct it, or leave it out "
        "with `where`"
    )
    return [rows.doubt("outlier", [problem.law.target], far, message)]


def _residuals(problem: Problem, theta: Array) -> Array:
    """Prediction minus observation of the logarithm."""
    return np.asarray(problem.log_loss(theta[None])[0][0] - np.log(problem.loss))


def _deviation(distance: Array, n_free: int) -> float:
    """The robust deviation of residuals, without those of the runs that a robust fit goes through."""
    return _NORMAL * float(np.median(np.sort(distance)[n_free:]))
