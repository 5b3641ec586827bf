"""Returns: those that a network is to predict, and the mean of those that episodes had.

Axes: T steps, N environments.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

LAST = 0.1  # share of the rounds that metrics of training are of


def lambda_returns(
    reward_TxN: jax.Array,
    next_value_TxN: jax.Array,
    terminated_TxN: jax.Array,
    truncated_TxN: jax.Array,
    discount: float,
    trace: float,
) -> jax.Array:
    """The target of each step, [T, N]:

        G_t = r_t + gamma (V_t + lambda (G_{t+1} - V_t)),    V_t = max_a Q(s'_t, a)

    with G_t = r_t where the episode ended, and lambda = 0 where it was cut and at the last step, after which nothing is
    known but V_t. Peng's Q(lambda), as in PQN (arXiv 2407.04811, section 4), which has no truncations.

    next_value_TxN: V_t, of the state s'_t that the step led to, before any reset.   terminated, truncated: bool, at
    most one of them true.
    """

    def back(after_N: jax.Array, step: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward_N, value_N, terminated_N, truncated_N = step
        followed_N = jnp.where(truncated_N, value_N, value_N + trace * (after_N - value_N))
        return_N = reward_N + discount * jnp.where(terminated_N, 0.0, followed_N)
        return return_N, return_N

    steps = (reward_TxN, next_value_TxN, terminated_TxN, truncated_TxN)
    return jax.lax.scan(back, next_value_TxN[-1], steps, reverse=True)[1]


def mean_return(returns: NDArray[np.float64], episodes: NDArray[np.float64]) -> float:
    """Mean over episodes, given sums of returns and numbers of episodes by round; NaN where none ended."""
    return float(returns.sum() / episodes.sum()) if episodes.sum() > 0 else float("nan")
