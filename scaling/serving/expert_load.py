"""The number of distinct experts that a batch activates, for uniform or skewed routing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scaling.arrays import Array, Values


def distinct_experts(n_experts: int, top_k: float, batch: Values, skew: float = 0.0) -> Values:
    """Expected number of experts of one layer that a batch of b tokens activates, `sum_e 1 - (1 - p_e)^b`.

    Tokens choose expert e independently with probability p_e. Without `skew`, p_e = k/E and the sum is
    `E (1 - (1 - k/E)^b)`, an upper bound for skewed routing. With it, p_e falls as rank^-skew, with mean k/E and at
    most 1. A decode step reads the weights of this many experts: k at b = 1, all of them at large b.
    """
    if n_experts == 1:
        return np.ones_like(np.asarray(batch, dtype=float))[()]
    if top_k >= n_experts:
        return 0.0 * batch + n_experts
    if not skew:
        return n_experts * -np.expm1(batch * np.log1p(-top_k / n_experts))
    chances = _chances(n_experts, top_k, skew)
    tokens = np.asarray(batch, dtype=float)[..., None]
    with np.errstate(divide="ignore"):
        missed = np.where(chances < 1, np.exp(tokens * np.log1p(-np.minimum(chances, 1 - 1e-16))), 0.0)
    return np.sum(1.0 - missed, axis=-1)[()]


def _chances(n_experts: int, top_k: float, skew: float) -> Array:
    """Probability that a token chooses each expert: proportional to rank^-skew, summing to k, each at most 1."""
    weights = np.arange(1, n_experts + 1, dtype=float) ** -skew
    chances = np.minimum(weights * top_k / weights.sum(), 1.0)
    for _ in range(n_experts):
        left = top_k - chances.sum()
        open_ = chances < 1
        if left < 1e-12 or not open_.any():
            break
        chances[open_] = np.minimum(chances[open_] + left * weights[open_] / weights[open_].sum(), 1.0)
    return chances


def skew_of(n_experts: int, top_k: float, batches: npt.ArrayLike, activated: npt.ArrayLike) -> float:
    """The least-squares skew for the number of experts that batches of these sizes activated, searched over [0, 8].

    It is 0 if they activated at least as many as under uniform routing.
    """
    from scipy.optimize import minimize_scalar  # here, because pricing does without it and it is slow to import

    sizes, observed = np.asarray(batches, dtype=float), np.asarray(activated, dtype=float)
    if n_experts <= top_k or np.all(observed >= distinct_experts(n_experts, top_k, sizes) * (1 - 1e-9)):
        return 0.0

    def misfit(skew: float) -> float:
        return float(np.sum((distinct_experts(n_experts, top_k, sizes, skew) - observed) ** 2))

    return float(minimize_scalar(misfit, bounds=(0.0, 8.0), method="bounded", options={"xatol": 1e-6}).x)
