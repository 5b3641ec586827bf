"""Arms compared by their returns: aggregates, differences to a baseline, and the probability of beating it."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.returns.arms import Arm, Arms, arms_of
from analysis.returns.bootstrap import Band, Interval, band, interval, opposed, resampled
from analysis.returns.contrasts import ContrastResult, best_of, read_contrast
from analysis.returns.curves import LearningCurves, learning_curves
from analysis.returns.question import ReturnsQuestion
from analysis.returns.statistics import (
    interquartile_mean,
    mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from scaling.arrays import Array
from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import listed, plural
from scaling.summary import Summarised, summarised
from scaling.table import Table
from scaling.values import RETURNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 10  # runs a game, below which a bootstrap of runs is coarse and its percentiles too narrow
UNSURE_SCALE = 0.1  # standard error of the reference's mean, as a share of what it is above random actions
NO_ARM = "no arm"  # "none" may be the name of one
_BAND_DRAWS, _THRESHOLDS = 2_000, 41  # of a profile
Draws = Mapping[str, list[Array]]


COSTS = {
    "n_parameters": "parameters",
    "n_total": "parameters",
    "forward_flops": "FLOPs of a forward pass",
    "train_flops": "training FLOPs",
}
"""Measures of an arm that say what it costs, with what they are called."""


@dataclass(frozen=True)
class ArmResult:
    """What is known of one arm: aggregates of its scores, and how it compares with the baseline.

    runs: of all games.   iqm, mean: of its scores.   gap: by how much its runs miss the reference; None where scores
    are not normalised.   difference: of interquartile means, this arm's minus the baseline's.   improvement: P(a run of
    this arm scores more than one of the baseline).   Both are None for the baseline itself.
    difference_by_game: the difference in each game alone; empty where there is one game, for the baseline, and in files
    of versions that did not ask.
    profile: the share of its runs that score more than each threshold.   by_game: mean raw scores.
    measures: means over its runs of what the table says of cost and network (`analysis.returns.arms.MEASURES`).
    """

    name: str
    runs: int
    iqm: Interval
    mean: Interval
    gap: Interval | None
    difference: Interval | None
    improvement: Interval | None
    profile: Band
    by_game: tuple[float, ...]
    measures: Mapping[str, float] = field(default_factory=dict)
    difference_by_game: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, repr=False, eq=False)
class ReturnsComparison(Summarised):
    """Arms in descending order of their interquartile mean.

    `question` has what was left open filled in. `random` and `reference` are the raw scores that are 0 and 1 in each
    game, empty where scores are not normalised. `contrasts` are the pairs that were asked for, `curves` the learning
    curves of a study that has them; `warnings` are to be read first, `notes` say what was left out and assumed.
    """

    question: ReturnsQuestion
    games: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    random: tuple[float, ...]
    reference: tuple[float, ...]
    source: str = ""
    unit: str = ""
    contrasts: tuple[ContrastResult, ...] = ()
    curves: LearningCurves | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError where the baseline is no arm, or an arm has no score of each game."""
        if self.question.baseline not in {arm.name for arm in self.arms}:
            raise InputError(f"no arm {self.question.baseline!r}, the baseline, among the arms")
        if not self.games or any(len(arm.by_game) != len(self.games) for arm in self.arms):
            raise InputError("every arm needs a score of each game")

    def __getitem__(self, name: str) -> ArmResult:
        """The arm of this name. Raises KeyError where there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)

    @property
    def costs(self) -> dict[str, str]:
        """The costs of `COSTS` that are known and not the same in all arms, with what they are called."""
        values = {name: {arm.measures[name] for arm in self.arms if name in arm.measures} for name in COSTS}
        return {name: label for name, label in COSTS.items() if len(values[name]) > 1}

    @property
    def headline(self) -> str:
        """What was found, in one sentence: of the first contrast, or which arms are told apart from the baseline."""
        if self.contrasts:
            return self.contrasts[0].said
        return self.told_apart

    @property
    def told_apart(self) -> str:
        """Which arms differ from the baseline by more than chance, and which do so both ways in single games."""
        apart: dict[bool, list[str]] = {True: [], False: []}  # better, worse
        for arm in self.arms:
            if arm.difference is not None and arm.difference.excludes(0.0):
                apart[arm.difference.above(0.0)].append(arm.name)
        over = self.question.over(len(self.games))
        said = (
            f"{self.question.metric}{over}: better than {self.question.baseline}: {listed(apart[True], empty=NO_ARM)}; "
            f"worse: {listed(apart[False], empty=NO_ARM)}"
        )
        both = [arm.name for arm in self.arms if opposed(arm.difference_by_game)]
        return f"{said}; better in one {self.question.stratum} and worse in another: {listed(both)}" if both else said

    @property
    def score(self) -> str:
        """What a score is, in words."""
        if self.random:
            return f"{self.question.metric}, {self.question.reference} = 1, random = 0"
        return f"{self.question.metric}, {self.unit}" if self.unit else str(self.question.metric)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `scaling returns --out` writes them."""
        return RETURNS.document(self)

    def plot(self) -> Figure:
        """Interquartile means, probabilities of improvement, profiles, learning curves and costs
        (`analysis.figures.returns`). Raises InputError where matplotlib is missing."""
        require_installed("a figure", "matplotlib")
        figure: Figure = pkgutil.resolve_name("analysis.figures.returns:returns_figure")(self)
        return figure

    def summary(self) -> Table:
        """The finding in a line, one row an arm with 95 % intervals, and what to doubt."""
        arms: Table = pkgutil.resolve_name("analysis.returns.tables:arms_table")(self)
        return summarised(arms, self.headline, (*arms.notes, *self.warnings, *self.notes))


def read_returns(path: str | Path) -> ReturnsComparison:
    """The comparison in a file that `scaling returns --out` wrote. Raises InputError where it is none."""
    return RETURNS.value(ReturnsComparison, RETURNS.read(path), str(path))


def compare(source: str | Path | pd.DataFrame, question: ReturnsQuestion) -> ReturnsComparison:
    """The answer to a question on the returns of a study folder, a file or a frame.

    Every arm is resampled independently, with draws from one generator of `question.seed` in the order of the arms'
    names. Normalisation is taken as known: intervals do not hold what the mean of the reference is unsure of. Raises
    InputError as `arms_of` does, and for a contrast that cannot be read or names an arm that is not there.
    """
    wanted = [read_contrast(text) for text in question.contrasts]
    arms = arms_of(source, question)
    rng = np.random.default_rng(question.seed)
    draws = {name: resampled(arm.scores, question.draws, rng) for name, arm in sorted(arms.by_name.items())}
    profiles = _profiles(arms, _thresholds(arms))
    in_games = {name: [interquartile_mean([drawn]) for drawn in own] for name, own in draws.items()}
    results = [_result(arm, arms, draws, in_games, profiles[arm.name]) for arm in arms.by_name.values()]
    results.sort(key=lambda result: -result.iqm.estimate)
    iqm = {result.name: result.iqm.estimate for result in results}
    contrasts = [
        ContrastResult(
            one.name, ours, one.theirs, one.margin, *_against(ours, one.theirs, arms, draws),
            _in_each_game(ours, one.theirs, arms, in_games),
        )
        for one in wanted
        for ours in [best_of(one, iqm, arms.source)]
    ]  # fmt: skip
    return ReturnsComparison(
        arms.question, arms.games, tuple(results), arms.random, arms.reference, arms.source, arms.unit,
        tuple(contrasts), learning_curves(source, arms), _warnings(arms, results, contrasts), arms.notes,
    )  # fmt: skip


def profiles(source: str | Path | pd.DataFrame, question: ReturnsQuestion, thresholds: Array) -> dict[str, Band]:
    """The performance profile of each arm at K thresholds of the score, with its pointwise 95 % band.

    Raises InputError as `arms_of` does.
    """
    return _profiles(arms_of(source, question), thresholds)


def _profiles(arms: Arms, thresholds: Array) -> dict[str, Band]:
    rng = np.random.default_rng(arms.question.seed)
    found = {}
    for name, arm in sorted(arms.by_name.items()):
        drawn = performance_profile(resampled(arm.scores, _BAND_DRAWS, rng), thresholds)
        found[name] = band(thresholds, performance_profile(arm.scores, thresholds), drawn)
    return found


def _thresholds(arms: Arms) -> Array:
    """Even places over all scores, those of random actions included."""
    scores = np.concatenate([values for arm in arms.by_name.values() for values in arm.scores])
    return np.linspace(min(0.0, scores.min()), scores.max(), _THRESHOLDS)


def _result(arm: Arm, arms: Arms, draws: Draws, in_games: Draws, profile: Band) -> ArmResult:
    own, baseline = draws[arm.name], arms.question.baseline
    difference = improvement = None
    by_game: Mapping[str, Interval] = {}
    if arm.name != baseline:
        difference, improvement = _against(arm.name, baseline, arms, draws)
        by_game = _in_each_game(arm.name, baseline, arms, in_games)
    return ArmResult(
        name=arm.name,
        runs=sum(map(len, arm.raw)),
        iqm=interval(interquartile_mean(arm.scores), interquartile_mean(own), arm.fewest),
        mean=interval(mean(arm.scores), mean(own), arm.fewest),
        gap=interval(optimality_gap(arm.scores), optimality_gap(own), arm.fewest) if arms.random else None,
        difference=difference,
        improvement=improvement,
        profile=profile,
        by_game=tuple(float(np.mean(values)) for values in arm.raw),
        measures=arm.measures,
        difference_by_game=by_game,
    )


def _against(ours: str, theirs: str, arms: Arms, draws: Draws) -> tuple[Interval, Interval]:
    """The difference of two arms' interquartile means, and the probability that a run of ours scores more."""
    both = arms.by_name[ours], arms.by_name[theirs]
    fewest, (x, y) = min(arm.fewest for arm in both), (arm.scores for arm in both)
    difference = interquartile_mean(x) - interquartile_mean(y)
    improvement = probability_of_improvement(x, y)
    return (
        interval(difference, interquartile_mean(draws[ours]) - interquartile_mean(draws[theirs]), fewest),
        interval(improvement, probability_of_improvement(draws[ours], draws[theirs]), fewest),
    )


def _in_each_game(ours: str, theirs: str, arms: Arms, in_games: Draws) -> dict[str, Interval]:
    """The difference of two arms' interquartile means in each game alone, from those of the draws by arm and game; {}
    of one game."""
    if len(arms.games) < 2:
        return {}
    found = {}
    for place, game in enumerate(arms.games):
        x, y = (arms.by_name[name].scores[place] for name in (ours, theirs))
        drawn = in_games[ours][place] - in_games[theirs][place]
        estimate = interquartile_mean([x]) - interquartile_mean([y])
        found[arms.question.in_words(game)] = interval(estimate, drawn, min(len(x), len(y)))
    return found


def _warnings(arms: Arms, results: Sequence[ArmResult], contrasts: Sequence[ContrastResult]) -> tuple[str, ...]:
    """What to doubt of the intervals, the scale and the pooling of games."""
    found = []
    fewest = min(arm.fewest for arm in arms.by_name.values())
    stratum = arms.question.stratum
    in_a_game = f" in a {stratum}" if len(arms.games) > 1 else ""
    if fewest < 2:
        found.append(
            f"an arm has one run{in_a_game}, which says nothing of another: it has no intervals; train more seeds"
        )
    elif fewest < FEW:
        found.append(
            f"an arm has {plural(fewest, 'run')}{in_a_game}: resamples of fewer than {FEW} are few and spread too "
            "little, so intervals are too narrow"
        )
    if not arms.random and len(arms.games) > 1:
        found.append(
            f"scores are pooled{arms.question.over(len(arms.games))} as they were measured: a {stratum} with larger "
            "scores counts for more; `normalise` needs a column with the score of random actions, which "
            "`random` can name"
        )
    found += _unsure_scales(arms)
    by_game = [*(arm.difference_by_game for arm in results), *(one.by_game for one in contrasts)]
    if any(map(opposed, by_game)):
        found.append(
            f"some arms are better in one {stratum} and worse in another: the pooled difference "
            f"describes neither, and its sign depends on their weights; read each {stratum} alone"
        )
    improvements = [*(arm.improvement for arm in results), *(one.improvement for one in contrasts)]
    if any(one is not None and one.low == one.high and one.low in (0.0, 1.0) for one in improvements):
        found.append(
            "every run of one arm scores more than every run of another: P(better) is 0 or 1 in all resamples, and an "
            "interval without width does not say how sure that is"
        )
    return tuple(found)


def _unsure_scales(arms: Arms) -> list[str]:
    """Games in which the reference is above random actions by little more than chance, so that 1 is unsure."""
    found: list[str] = []
    if arms.question.reference is None or not arms.random:
        return found
    runs = arms.by_name[arms.question.reference].raw
    for game, low, own in zip(arms.games, arms.random, runs, strict=True):
        if len(own) > 1:
            above, error = float(np.mean(own)) - low, float(np.std(own, ddof=1)) / len(own) ** 0.5
            if error > UNSURE_SCALE * above:
                found.append(
                    f"{arms.question.in_words(game)}: {arms.question.reference} is {above:.3g} above random actions, "
                    f"with a standard error of {error:.2g}: the scale of all scores there is unsure by "
                    f"{error / above:.0%}, which the intervals leave out"
                )
    return found
