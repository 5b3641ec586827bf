"""Arms compared by their returns: aggregates, differences to a baseline, and the probability of beating it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.returns.arms import Arm, Arms, arms_of
from analysis.returns.bootstrap import Interval, interval, resampled
from analysis.returns.question import ReturnsQuestion
from analysis.returns.statistics import (
    interquartile_mean,
    mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from scaling.arrays import Array
from scaling.formatting import listed, plural
from scaling.summary import Summarised, summary_table
from scaling.table import Table

FEW = 10  # runs a game, below which a bootstrap of runs is coarse and its percentiles too narrow


@dataclass(frozen=True)
class ArmResult:
    """What is known of one arm: aggregates of its normalised scores, and how it compares with the baseline.

    difference: of interquartile means, this arm's minus the baseline's.   improvement: P(a run of this arm scores more
    than one of the baseline).   Both are None for the baseline itself.
    """

    name: str
    runs: int
    iqm: Interval
    mean: Interval
    gap: Interval
    difference: Interval | None
    improvement: Interval | None


@dataclass(frozen=True, repr=False, eq=False)
class ReturnsComparison(Summarised):
    """Arms in descending order of their interquartile mean.

    `by_game`: the mean raw score of each arm and game.
    """

    question: ReturnsQuestion
    games: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    by_game: Mapping[str, tuple[float, ...]]
    random: tuple[float, ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> ArmResult:
        """The arm of this name. Raises KeyError where there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)

    @property
    def headline(self) -> str:
        """Which arms are told apart from the baseline, in one sentence."""
        baseline = self.question.baseline
        apart: dict[bool, list[str]] = {True: [], False: []}  # better, worse
        for arm in self.arms:
            if arm.difference is not None and arm.difference.excludes(0.0):
                apart[arm.difference.low > 0].append(arm.name)
        return (
            f"{self.question.metric} in {plural(len(self.games), 'game')}: better than {baseline}: "
            f"{listed(apart[True])}; worse: {listed(apart[False])}"
        )

    def to_json(self) -> dict[str, Any]:
        """The question and the answer as plain values for JSON."""
        return {
            "question": asdict(self.question),
            "games": list(self.games),
            "random": list(self.random),
            "arms": [asdict(arm) | {"by_game": list(self.by_game[arm.name])} for arm in self.arms],
            "notes": list(self.notes),
        }

    def summary(self) -> Table:
        """One row an arm, with 95 % intervals."""
        headings = ("arm", "runs", "IQM", "optimality gap", "IQM - baseline", "P(better)", *self.games)
        rows = [
            (
                arm.name,
                str(arm.runs),
                *map(_text, (arm.iqm, arm.gap, arm.difference, arm.improvement)),
                *(f"{score:.3g}" for score in self.by_game[arm.name]),
            )
            for arm in self.arms
        ]
        rows.append(("random actions", "", "0", "1", "", "", *(f"{score:.3g}" for score in self.random)))
        title = f"{self.question.metric} against {self.question.baseline}, normalised by game; 95 % intervals"
        return summary_table(title, headings, rows, self.notes)


def compare(source: str | Path | pd.DataFrame, question: ReturnsQuestion) -> ReturnsComparison:
    """The answer to a question on the returns of a study folder, a file or a frame.

    Every arm is resampled independently, with draws from one generator of `question.seed` in the order of the arms'
    names. Normalisation is taken as known: intervals do not hold what the mean of the reference is unsure of. Raises
    InputError as `arms_of` does.
    """
    arms = arms_of(source, question)
    rng = np.random.default_rng(question.seed)
    draws = {name: resampled(arm.scores, question.draws, rng) for name, arm in sorted(arms.by_name.items())}
    results = [_result(arm, arms, draws, question) for arm in arms.by_name.values()]
    results.sort(key=lambda result: -result.iqm.estimate)
    notes = list(arms.notes)
    if (fewest := min(arm.fewest for arm in arms.by_name.values())) < FEW:
        notes.append(
            f"an arm has {fewest} runs in a game: resamples of fewer than {FEW} are few and spread too little, so "
            "intervals are too narrow"
        )
    by_game = {arm.name: tuple(float(np.mean(values)) for values in arm.raw) for arm in arms.by_name.values()}
    return ReturnsComparison(question, arms.games, tuple(results), by_game, arms.random, tuple(notes))


def profiles(source: str | Path | pd.DataFrame, question: ReturnsQuestion, thresholds: Array) -> dict[str, Array]:
    """The performance profile of each arm at K thresholds of the normalised score, with its pointwise 95 % band.

    [3, K] by arm: estimate, low, high. Raises InputError as `arms_of` does.
    """
    arms = arms_of(source, question)
    rng = np.random.default_rng(question.seed)
    found = {}
    for name, arm in sorted(arms.by_name.items()):
        drawn = performance_profile(resampled(arm.scores, question.draws, rng), thresholds)
        band = np.quantile(drawn, (0.025, 0.975), axis=0)
        found[name] = np.vstack([performance_profile(arm.scores, thresholds)[None], band])
    return found


def _result(arm: Arm, arms: Arms, draws: Mapping[str, list[Array]], question: ReturnsQuestion) -> ArmResult:
    own, baseline = draws[arm.name], arms.by_name[question.baseline]
    difference = improvement = None
    if arm is not baseline:
        theirs = draws[baseline.name]
        difference = interval(
            interquartile_mean(arm.scores) - interquartile_mean(baseline.scores),
            interquartile_mean(own) - interquartile_mean(theirs),
        )
        improvement = interval(
            probability_of_improvement(arm.scores, baseline.scores), probability_of_improvement(own, theirs)
        )
    iqm, average, gap = (
        interval(statistic(arm.scores), statistic(own)) for statistic in (interquartile_mean, mean, optimality_gap)
    )
    return ArmResult(arm.name, sum(map(len, arm.raw)), iqm, average, gap, difference, improvement)


def _text(found: Interval | None) -> str:
    return "–" if found is None else f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
