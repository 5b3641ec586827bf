"""The registered rule on learning rates, on planted returns."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.rl_rates import rates_of


def runs(gain: dict[str, float]) -> pd.DataFrame:
    """Two seeds one apart at each rate, so that a mean has a standard error of 1/2 and a difference one of sqrt(1/2);
    at 1e-3 scores are higher by `gain` of the game."""
    return pd.DataFrame(
        {
            "status": "ok", "arm": "soft", "n_experts": 4, "game": game, "lr": lr, "seed": seed,
            "episode_return": 5 + seed + (more if lr > 5e-4 else 0.0),
        }
        for game, more in gain.items()
        for lr in (2e-4, 5e-4, 1e-3)
        for seed in (0, 1)
    )  # fmt: skip


def test_an_arm_is_undersold_where_it_is_better_by_two_standard_errors_in_every_game() -> None:
    low, high = rates_of(runs({"asterix": 1.5, "breakout": 3.0}))
    assert (low.lr, high.lr, high.arm) == (2e-4, 1e-3, "soft 4")
    assert high.difference == pytest.approx((1.5, 3.0), rel=1e-12)
    assert high.error == pytest.approx((0.5**0.5, 0.5**0.5), rel=1e-12)  # two of them are 1.41
    assert high.better
    assert not low.better
    assert not rates_of(runs({"asterix": 1.4, "breakout": 3.0}))[1].better
