"""The registered differences of means, on planted runs."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from benchmarks.rl_means import SCORES, differences
from scaling.errors import InputError

SPREAD = (-1.0, 0.0, 1.0)  # of three seeds: s^2 = 1


def runs(**changes: object) -> pd.DataFrame:
    """ln(1 + learnt_return) of `big` is higher by 2, dormancy lower by .1; what is another setting, router or part
    would spoil both."""
    rows = [
        {
            "status": "ok", "setting": "continual", "place": place, "router": "soft", "experts_in": "both",
            "seed": seed, "learnt_return": math.expm1(level + off), "dormant_frac": 0.5 - level / 20 + off / 10,
            "plasticity": 1 + off / 10, "forgetting": level + off,
        }
        for place, level in (("big", 3.0), ("matched", 1.0))
        for seed, off in enumerate(SPREAD)
    ]  # fmt: skip
    spoilt = [{**rows[0], "learnt_return": 1e6, name: value} for name, value in
              (("setting", "single"), ("router", "hard"), ("experts_in", "actor"), ("status", "failed"))]  # fmt: skip
    return pd.DataFrame([*rows, *spoilt]).assign(**changes)


def test_differences_are_of_means_with_two_intervals() -> None:
    found = {one.score: one for one in differences(runs(), draws=2000)}
    assert tuple(found) == SCORES
    primary = found[SCORES[0]]
    assert primary.seeds == (3, 3)
    assert primary.bootstrap.estimate == pytest.approx(2, rel=1e-12)
    # Welch: standard error sqrt(2 / 3), 4 degrees of freedom, whose 97.5 % point is 2.776445.
    assert primary.welch == pytest.approx((2 - 2.776445 * (2 / 3) ** 0.5, 2 + 2.776445 * (2 / 3) ** 0.5), rel=1e-5)
    assert 0 <= primary.bootstrap.low < 2 < primary.bootstrap.high <= 4  # resampled means lie within +-1 of theirs
    assert found["dormant_frac"].bootstrap.estimate == pytest.approx(-0.1, rel=1e-12)
    assert found["plasticity"].bootstrap.estimate == pytest.approx(0, abs=1e-12)
    assert found["forgetting"].bootstrap.estimate == pytest.approx(2, rel=1e-12)


def test_one_seed_has_no_interval() -> None:
    table = runs()
    with pytest.raises(InputError, match="1 of matched"):
        differences(table[(table["place"] == "big") | (table["seed"] == 0)])
