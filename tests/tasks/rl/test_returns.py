"""Lambda-returns against a loop that follows the definition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from scaling.tasks.rl.returns import lambda_returns


def by_definition(reward, value, terminated, truncated, discount: float, trace: float) -> np.ndarray:
    """The mean of all n-step returns from t on, those of n steps with weight (1 - lambda) lambda^(n - 1) and the
    longest with the weight that is left; it ends where the episode does, where that is cut, or with the last step."""
    steps = len(reward)
    out = np.zeros(steps)
    for t in range(steps):
        total, weight, sum_ = 0.0, 1.0, 0.0
        for n in range(t, steps):
            sum_ += discount ** (n - t) * reward[n]
            bootstrapped = sum_ + (0 if terminated[n] else discount ** (n - t + 1) * value[n])
            if terminated[n] or truncated[n] or n == steps - 1:
                total += weight * bootstrapped
                break
            total += weight * (1 - trace) * bootstrapped
            weight *= trace
        out[t] = total
    return out


@pytest.mark.parametrize("trace", [0.0, 0.65, 1.0])
def test_returns_are_the_weighted_mean_of_n_step_returns(trace: float) -> None:
    rng = np.random.default_rng(0)
    steps, count = 12, 9
    reward, value = rng.normal(size=(2, steps, count))
    terminated = rng.random((steps, count)) < 0.15
    truncated = (rng.random((steps, count)) < 0.15) & ~terminated
    found = lambda_returns(*map(jnp.asarray, (reward, value, terminated, truncated)), 0.9, trace)
    for n in range(count):
        expected = by_definition(reward[:, n], value[:, n], terminated[:, n], truncated[:, n], 0.9, trace)
        np.testing.assert_allclose(found[:, n], expected, rtol=1e-5, atol=1e-5)  # float32, sums of 12 terms near 1


def test_a_cut_keeps_the_value_of_what_would_have_followed_and_an_end_does_not() -> None:
    """r + gamma V against r, whatever the next episode of the environment brings: 1 + .5 x 8 and 1."""
    reward = jnp.array([[1.0, 1.0], [100.0, 100.0]])
    value = jnp.array([[8.0, 8.0], [0.0, 0.0]])
    cut, end = jnp.array([[True, False], [False, False]]), jnp.array([[False, True], [False, False]])
    found = lambda_returns(reward, value, end, cut, 0.5, 0.9)
    assert found[0].tolist() == [5.0, 1.0]
