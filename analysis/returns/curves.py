"""Learning curves of arms: the interquartile mean of their runs against what they have seen, with a band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.returns.arms import Arm, Arms
from analysis.returns.bootstrap import Band, band, resampled
from analysis.returns.statistics import interquartile_mean
from analysis.tables.study import table_rows
from scaling.arrays import Array
from scaling.tasks import TASKS

_POINTS, _DRAWS = 40, 2_000
_AXES = ("frames", "tokens", "step")
_OF_TRAINING = "train_return"  # what curves have of a metric that is measured after training alone


@dataclass(frozen=True)
class LearningCurves:
    """Of each arm a band over the places `x` of `axis`, from where every run has a value; `column` of the table
    `curves` is what they show."""

    axis: str
    column: str
    by_arm: Mapping[str, Band]


def learning_curves(source: str | Path | pd.DataFrame, arms: Arms) -> LearningCurves | None:
    """The curves of the arms of a study folder; None where it has none of this metric.

    A run's value at a place is its latest one. At each place the runs of an arm give an interquartile mean, on the
    scale of the scores after training, and resamples of its runs, the same for all places, a pointwise 95 % band.
    """
    asked = arms.question
    if asked.replicates or "*" in str(asked.metric):  # a run has one curve, whatever else it has several of
        return None
    if isinstance(source, pd.DataFrame) or not Path(source).is_dir():
        return None
    rows = table_rows(Path(source), "curves")
    column = next((name for name in (asked.metric, _OF_TRAINING) if name in rows), None)
    axis = next((name for name in (*_budgets(source), *_AXES) if name in rows), None)
    if column is None or axis is None or "run_id" not in rows:
        return None
    known = rows.dropna(subset=[axis, column]).sort_values(axis, kind="stable")
    runs = {str(run_id): (own[axis].to_numpy(float), own[column].to_numpy(float))
            for run_id, own in known.groupby("run_id")}  # fmt: skip
    bands = {name: _curve(arm, runs, arms) for name, arm in sorted(arms.by_name.items())}
    found = {name: one for name, one in bands.items() if one is not None}
    return LearningCurves(axis, str(column), found) if found else None


def _budgets(source: str | Path) -> list[str]:
    """What the tasks of a study call their budget."""
    runs = table_rows(Path(source), "runs")
    names = runs["task"].dropna().unique() if "task" in runs else ()
    return [TASKS[name].budget.name for name in names if name in TASKS]


def _curve(arm: Arm, runs: Mapping[str, tuple[Array, Array]], arms: Arms) -> Band | None:
    """The band of one arm; None where a run of it has no curve."""
    own = [[runs.get(run_id) for run_id in ids] for ids in arm.run_ids]
    present = [curve for of_game in own for curve in of_game if curve is not None]
    if not present or len(present) < sum(len(values) for values in arm.raw):
        return None
    first, last = max(x[0] for x, _ in present), min(x[-1] for x, _ in present)
    x = np.unique(np.concatenate([x for x, _ in present]))
    x = x[(x >= first) & (x <= last)]
    if not len(x):
        return None
    x = x[np.unique(np.linspace(0, len(x) - 1, min(_POINTS, len(x))).round().astype(int))]
    games = [np.stack([_latest(curve, x) for curve in of_game if curve is not None]) for of_game in own]
    scores_NxK = arms.normalised(games)
    drawn_DxNxK = resampled(scores_NxK, _DRAWS, np.random.default_rng(arms.question.seed))
    return band(
        x,
        interquartile_mean([values.T for values in scores_NxK]),
        interquartile_mean([values.swapaxes(1, 2) for values in drawn_DxNxK]),
    )


def _latest(curve: tuple[Array, Array], x: Array) -> Array:
    """The latest value of a curve at each place."""
    places, values = curve
    return values[np.searchsorted(places, x, side="right") - 1]
