"""Comparisons of arms on tables with a planted answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.returns.comparison import compare, profiles
from analysis.returns.question import ReturnsQuestion
from scaling.errors import InputError

GAMES = {"asterix": (1.0, 11.0), "breakout": (0.0, 2.0)}  # random, and the baseline's mean
QUESTION = ReturnsQuestion(baseline="dense 1", draws=2000)


def runs(*, lift: float = 0.5, seeds: int = 10) -> pd.DataFrame:
    """Baseline runs spread evenly about the mean of their game, by .3 of what lies between it and random, and `soft`
    with `lift` of it more."""
    spread = np.linspace(-0.3, 0.3, seeds)
    rows = [
        {
            "arm": arm, "n_experts": n_experts, "game": game, "seed": seed, "status": "ok",
            "episode_return": low + (high - low) * (1 + more + spread[seed]), "random_return": low,
        }
        for game, (low, high) in GAMES.items()
        for arm, n_experts, more in (("dense", 1, 0.0), ("soft", 4, lift))
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_planted_lift_is_found_in_normalised_scores() -> None:
    found = compare(runs(), QUESTION)
    assert [arm.name for arm in found.arms] == ["soft 4", "dense 1"]
    soft, dense = found["soft 4"], found["dense 1"]
    assert dense.iqm.estimate == pytest.approx(1.0, abs=1e-12)
    assert dense.difference is None
    assert dense.improvement is None
    assert soft.difference is not None
    assert soft.difference.estimate == pytest.approx(0.5, abs=1e-12)
    assert soft.difference.low < 0.5 < soft.difference.high
    assert soft.difference.excludes(0.0)
    assert soft.runs == 20
    assert found.by_game["dense 1"] == pytest.approx((11.0, 2.0))


def test_the_probability_of_improvement_needs_no_normalisation() -> None:
    """Baseline runs are k/15 - .3 for k = 0 .. 9 in units of the distance to random, and a lift of .3 is 4.5 of these
    steps: P is the share of pairs with i - j > -4.5, which is (100 - 5 - 4 - 3 - 2 - 1) / 100."""
    improvement = compare(runs(lift=0.3), QUESTION)["soft 4"].improvement
    assert improvement is not None
    assert improvement.estimate == pytest.approx(0.85, abs=1e-12)


def test_arms_that_are_alike_are_not_told_apart() -> None:
    soft = compare(runs(lift=0.0), QUESTION)["soft 4"]
    assert soft.difference is not None
    assert soft.improvement is not None
    assert not soft.difference.excludes(0.0)
    assert soft.improvement.estimate == 0.5


def test_an_answer_follows_from_the_seed_and_not_from_the_order_of_rows() -> None:
    shuffled = runs().sample(frac=1.0, random_state=1)
    assert compare(runs(), QUESTION).arms == compare(shuffled, QUESTION).arms


def test_few_runs_are_pointed_out() -> None:
    assert not compare(runs(), QUESTION).notes
    assert "an arm has 5 runs in a game" in compare(runs(seeds=5), QUESTION).notes[-1]


def test_failed_runs_are_left_out_and_counted() -> None:
    table = runs()
    table.loc[0, "status"] = "diverged"
    found = compare(table, QUESTION)
    assert found["dense 1"].runs == 19
    assert any("diverged" in note for note in found.notes)


def test_profiles_fall_and_that_of_the_better_arm_lies_above() -> None:
    found = profiles(runs(), QUESTION, np.linspace(0, 2, 9))
    assert all((np.diff(profile[0]) <= 0).all() for profile in found.values())
    assert (found["soft 4"][0] >= found["dense 1"][0]).all()
    assert all(((p[1] <= p[0]) & (p[0] <= p[2])).all() for p in found.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[~((t.arm == "soft") & (t.game == "asterix"))], "soft 4, asterix: no run"),
        (lambda t: pd.concat([t, t.head(1)]), "several runs of one seed"),
        (lambda t: t.drop(columns="random_return"), "no column random_return"),
        (lambda t: t.assign(random_return=50.0), "scores cannot be normalised"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(change(runs()), QUESTION)


def test_an_arm_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"no arm 'dense 2'; arms are dense 1, soft 4"):
        compare(runs(), ReturnsQuestion(baseline="dense 2"))
