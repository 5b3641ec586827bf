"""Comparisons of arms on tables with a planted answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import planted_returns
import pytest
import toy_task
from toy_study import write_study

from analysis.returns.bootstrap import Interval
from analysis.returns.comparison import compare, profiles, read_returns
from analysis.returns.contrasts import Contrast, ContrastResult, read_contrast
from analysis.returns.question import ReturnsQuestion
from analysis.returns.tables import by_game_table
from scaling.errors import InputError
from scaling.files import write_json
from scaling.tasks import TASKS

GAMES = {"asterix": (1.0, 11.0), "breakout": (0.0, 2.0)}  # random, and the baseline's mean
QUESTION = ReturnsQuestion(baseline="dense 1", draws=2000)
RAW = replace(QUESTION, normalise=False)


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
    assert dense.by_game == pytest.approx((11.0, 2.0))


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
    assert not compare(runs(), QUESTION).warnings
    assert "an arm has 5 runs in a game" in compare(runs(seeds=5), QUESTION).warnings[0]


def opposite(lift: float = 0.5) -> pd.DataFrame:
    """`soft` with `lift` more in Asterix and as much less in Breakout."""
    more, less = runs(lift=lift), runs(lift=-lift)
    return pd.concat([more[more.game == "asterix"], less[less.game == "breakout"]])


def test_arms_that_are_better_in_one_game_and_worse_in_another_are_named() -> None:
    """The difference over both is 0; those of each game are what was planted."""
    found = compare(opposite(), replace(QUESTION, contrasts=("experts: soft 4 - dense 1",)))
    soft, (pair,) = found["soft 4"], found.contrasts
    assert soft.difference is not None
    assert soft.difference.estimate == pytest.approx(0.0, abs=1e-12)
    assert {game: one.estimate for game, one in soft.difference_by_game.items()} == pytest.approx(
        {"asterix": 0.5, "breakout": -0.5}
    )
    assert soft.difference_by_game["asterix"].above(0.0)
    assert soft.difference_by_game["breakout"].below(0.0)
    assert pair.by_game == soft.difference_by_game
    assert "above 0 in asterix, below 0 in breakout" in pair.said
    assert found.told_apart.endswith("better in one game and worse in another: soft 4")
    assert any("worse in another" in one for one in found.warnings)
    assert [row[0] for row in by_game_table(found).rows] == ["soft 4 − dense 1"]


def test_games_that_agree_are_not_pointed_out_and_one_game_has_no_differences_by_game() -> None:
    assert compare(runs(), QUESTION).warnings == ()
    alone = compare(opposite(), replace(QUESTION, where="game == 'asterix'"))
    assert alone["soft 4"].difference_by_game == {}
    assert not by_game_table(alone).rows


def test_strata_that_are_no_games_are_called_by_their_column() -> None:
    table = opposite().rename(columns={"game": "width"}).replace({"asterix": 32, "breakout": 64})
    found = compare(table, replace(QUESTION, strata="width"))
    assert set(found["soft 4"].difference_by_game) == {"width 32", "width 64"}
    assert found.told_apart.startswith("episode_return over 2 values of width: ")


@pytest.mark.parametrize(("seeds", "unsure"), [(10, False), (4, True)])
def test_a_scale_that_is_unsure_is_pointed_out(seeds: int, unsure: bool) -> None:
    """Runs spread by k/3 - 1/2 of .6 have a standard deviation of .6 sqrt(5/27) of the scale, .258, and a standard
    error of .129 of four; ten have .0638."""
    found = compare(runs(seeds=seeds), QUESTION).warnings
    assert any("asterix: dense 1 is 10 above random" in one and "unsure by 13%" in one for one in found) == unsure


def test_a_probability_of_0_or_1_is_not_taken_for_certain() -> None:
    """A lift of .7 is more than all runs of an arm are apart, which is .6."""
    found = compare(runs(lift=0.7), QUESTION)
    improvement = found["soft 4"].improvement
    assert improvement is not None
    assert improvement.low == improvement.high == 1.0
    assert any("without width" in one for one in found.warnings)
    both = compare(opposite(lift=0.7), QUESTION)
    assert both["soft 4"].improvement == Interval(0.5, 0.5, 0.5)
    assert not any("scores more than every run" in one for one in both.warnings)


def test_failed_runs_are_left_out_and_counted() -> None:
    table = runs()
    table.loc[0, "status"] = "diverged"
    found = compare(table, QUESTION)
    assert found["dense 1"].runs == 19
    assert any("diverged" in note for note in found.notes)


def test_profiles_fall_and_that_of_the_better_arm_lies_above() -> None:
    found = profiles(runs(), QUESTION, np.linspace(0, 2, 9))
    soft, dense = (np.array(found[name].estimate) for name in ("soft 4", "dense 1"))
    assert (np.diff(soft) <= 0).all()
    assert (np.diff(dense) <= 0).all()
    assert (soft >= dense).all()
    for one in found.values():
        assert all(low <= middle <= high for low, middle, high in zip(one.low, one.estimate, one.high, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[~((t.arm == "soft") & (t.game == "asterix"))], "soft 4, asterix: no run"),
        (lambda t: pd.concat([t, t.head(1)]), "several runs of one seed"),
        (lambda t: t.drop(columns="arm").drop(columns="n_experts"), "nothing tells arms apart"),
        (lambda t: t.assign(random_return=50.0), "scores cannot be normalised"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(change(runs()), QUESTION)


def test_an_arm_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"no arm 'dense 2'; arms are dense 1, soft 4"):
        compare(runs(), ReturnsQuestion(baseline="dense 2"))


def test_scores_without_games_or_random_actions_are_compared_as_they_are() -> None:
    """Success rates: .2 more in every run, in one stratum."""
    rows = [
        {"exploration": name, "seed": seed, "success_rate": 0.5 + more + 0.01 * seed}
        for name, more in (("none", 0.0), ("both", 0.2))
        for seed in range(10)
    ]
    found = compare(pd.DataFrame(rows), ReturnsQuestion(baseline="none", metric="success_rate", by=("exploration",)))
    assert found.games == ("all",)
    assert found.random == ()
    assert found.question.strata is None
    both = found["both"]
    assert both.iqm.estimate == pytest.approx(0.7 + 0.045, abs=1e-12)  # mean of the middle six of 0 .. 9
    assert both.difference is not None
    assert both.difference.estimate == pytest.approx(0.2, abs=1e-12)
    assert both.gap is None
    assert found.headline == "success_rate: better than none: both; worse: no arm"
    with pytest.raises(InputError, match="no column says what random actions score in success_rate"):
        compare(pd.DataFrame(rows), replace(found.question, normalise=True))


def test_games_may_be_columns_of_a_run() -> None:
    """The same scores with a column a game instead of a row give the same comparison."""
    wide = runs().pivot_table(index=["arm", "n_experts", "seed"], columns="game", values="episode_return").reset_index()
    wide = wide.rename(columns={game: f"return_{game}" for game in GAMES}).assign(return_freeway=np.nan)
    wide = wide.assign(**{f"random_return_{game}": low for game, (low, _) in GAMES.items()})
    found = compare(wide, ReturnsQuestion(baseline="dense 1", metric="return_*", draws=2000))
    assert found.games == tuple(GAMES)
    assert found.question.random == "random_return_*"
    assert found.arms == tuple(replace(arm, measures={}) for arm in compare(runs(), QUESTION).arms)


def test_raw_scores_of_several_games_are_pooled_with_a_warning() -> None:
    found = compare(runs(), RAW)
    assert found.random == found.reference == ()
    assert any("a game with larger scores counts for more" in warning for warning in found.warnings)
    pooled = np.sort(runs().query("arm == 'soft'")["episode_return"])[5:-5]
    assert found["soft 4"].iqm.estimate == pytest.approx(pooled.mean(), rel=1e-12)


def test_a_metric_that_is_better_when_lower_is_refused() -> None:
    table = runs().assign(task="value-rl", td_loss=1.0)
    with pytest.raises(InputError, match="td_loss is better when lower"):
        compare(table, replace(QUESTION, metric="td_loss"))


def test_replicates_of_a_run_are_averaged_unless_each_was_trained_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS.own, "toy", toy_task.TASK)
    folder = write_study(tmp_path / "coins")
    asked = ReturnsQuestion(baseline="1", metric="score", where="samples == 100", draws=200)
    averaged, apart = (compare(folder, replace(asked, replicates=apart)) for apart in (False, True))
    assert averaged.question.by == ("n_experts",)
    assert (averaged["4"].runs, apart["4"].runs) == (2, 80)
    assert averaged["4"].by_game == pytest.approx(apart["4"].by_game, rel=1e-12)
    assert any("up to 40 replicates of a run are averaged" in note for note in averaged.notes)


@pytest.mark.parametrize(
    ("interval", "margin", "verdict"),
    [((0.02, 0.3), 0.1, "above 0"), ((-0.05, 0.09), 0.1, "within ±0.1"), ((-0.2, -0.01), 0.1, "below 0"),
     ((-0.2, 0.05), 0.1, "not decided"), ((-0.05, 0.09), None, "not decided")],
)  # fmt: skip
def test_a_pair_is_judged_by_where_its_interval_lies(interval, margin, verdict) -> None:
    low, high = interval
    one = Interval((low + high) / 2, low, high)
    assert ContrastResult("", "a", "b", margin, one, one).verdict == verdict


def test_a_game_with_one_run_decides_nothing(tmp_path: Path) -> None:
    """Resamples of one run are all the same: an interval of them would have no width and exclude everything."""
    table = runs()
    lone = table[(table["arm"] != "soft") | (table["game"] != table["game"].iloc[0]) | (table["seed"] == 0)]
    found = compare(lone, replace(QUESTION, contrasts=("gain: soft 4 - dense 1 within 5",)))
    assert found["dense 1"].iqm.low is not None
    soft, (gain,) = found["soft 4"], found.contrasts
    assert (soft.iqm.low, soft.mean.high, soft.improvement.low, gain.difference.low) == (None, None, None, None)
    assert gain.difference.estimate > 0.3
    assert gain.verdict == "not decided"
    assert "soft" not in found.told_apart
    assert any("one run" in warning for warning in found.warnings)
    found.plot().savefig(tmp_path / "one.png")
    kept = tmp_path / "one.json"
    write_json(kept, found.to_json())
    assert read_returns(kept)["soft 4"].iqm == soft.iqm


def test_pairs_are_read_and_compared() -> None:
    assert read_contrast("soft 4 - dense-wide 4 within .1") == Contrast(
        "soft 4 - dense-wide 4", ("soft 4",), "dense-wide 4", 0.1
    )
    assert read_contrast("tokens: best of tokens-sum 1, tokens-mean 1 - dense 1") == Contrast(
        "tokens", ("tokens-sum 1", "tokens-mean 1"), "dense 1"
    )
    for text in ("soft 4", "soft 4 -dense 1", "a - b within 0", "a - b within x"):
        with pytest.raises(InputError, match="contrast"):
            read_contrast(text)
    asked = replace(QUESTION, contrasts=("gain: best of soft 4, dense 1 - dense 1 within .1",))
    (found,) = compare(runs(), asked).contrasts
    assert (found.name, found.ours, found.theirs, found.verdict) == ("gain", "soft 4", "dense 1", "above 0")
    assert found.difference == compare(runs(), QUESTION)["soft 4"].difference
    with pytest.raises(InputError, match=r"no arm 'wide 4'; arms are soft 4, dense 1"):
        compare(runs(), replace(QUESTION, contrasts=("wide 4 - dense 1",)))


def test_a_study_has_curves_and_costs_and_its_answer_is_kept(tmp_path: Path) -> None:
    """Curves rise to the scores in a straight line, so that the interquartile mean after k of ten rounds is k tenths
    of the last; nothing is known before every run has seen an episode end, in round 2."""
    folder = planted_returns.write_value_rl(tmp_path / "planted")
    found = compare(folder, replace(QUESTION, contrasts=("experts: soft 4 - soft-one-wide 4 within .2",)))
    assert (found.question.by, found.question.strata) == (("arm", "n_experts"), "game")
    assert [arm.name for arm in found.arms] == sorted(
        planted_returns.LEVELS, key=planted_returns.LEVELS.__getitem__, reverse=True
    )
    for name, level in planted_returns.LEVELS.items():
        assert found[name].iqm.estimate == pytest.approx(level, abs=1e-9)
    assert found["soft 4"].measures["dormant_frac"] == 0.25
    assert found["soft 4"].measures["n_parameters"] < found["dense 1"].measures["n_parameters"]
    assert found.curves is not None
    curve = found.curves.by_arm["soft 4"]
    rounds = np.arange(2, 11)
    assert curve.x == pytest.approx(planted_returns.ROUND * rounds)
    assert curve.estimate == pytest.approx(1.5 * rounds / 10, abs=1e-9)
    write_json(tmp_path / "answer.json", found.to_json())
    assert read_returns(tmp_path / "answer.json").to_json() == found.to_json()
