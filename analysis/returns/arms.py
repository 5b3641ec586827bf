"""The scores of each arm of a study: its runs by game, normalised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.rates.table import IDENTITY, VALUE
from analysis.returns.question import ReturnsQuestion
from analysis.returns.scores import RANDOM, STRATUM, ScoreTable, read_scores
from analysis.returns.statistics import normalised
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed

MEASURES = (
    "n_parameters", "n_active", "n_total", "forward_flops", "train_flops", "decision_s", "dormant_frac",
    "dormant_frac_worst", "effective_rank", "dropped_frac",
)  # fmt: skip
"""Columns of runs that say what an arm costs and what became of its network, as far as a table has them."""


@dataclass(frozen=True, eq=False)
class Arm:
    """The runs of one arm: `raw` and `scores` (normalised where the question says so) hold one array a game, in the
    order of the games; `run_ids` the runs in the same order, empty where the table does not name them.

    measures: means over its runs of those of `MEASURES` that are known.
    """

    name: str
    raw: tuple[Array, ...]
    scores: tuple[Array, ...]
    run_ids: tuple[tuple[str, ...], ...]
    measures: Mapping[str, float]

    @property
    def fewest(self) -> int:
        """The number of runs in the game that has fewest."""
        return min(len(values) for values in self.raw)


@dataclass(frozen=True, eq=False)
class Arms:
    """Arms by name, the games they share, and for each game the scores that are 0 and 1 after normalisation, which are
    empty where scores are as they were measured. `question` has what was left open filled in."""

    games: tuple[str, ...]
    by_name: dict[str, Arm]
    random: tuple[float, ...]
    reference: tuple[float, ...]
    question: ReturnsQuestion
    source: str
    unit: str
    notes: tuple[str, ...]

    def normalised(self, values: Iterable[Array]) -> list[Array]:
        """Values of the metric by game on the scale of the scores."""
        return normalised([*values], self.random, self.reference) if self.random else [*values]


def arm_name(values: Iterable[Any]) -> str:
    """The values that make an arm, in words: `soft 4`."""
    return " ".join(f"{value:g}" if isinstance(value, (float, np.floating)) else str(value) for value in values)


def arms_of(source: str | Path | pd.DataFrame, question: ReturnsQuestion) -> Arms:
    """The arms of a study folder, a file or a frame.

    Raises InputError for a column or an arm that is not there, for an arm that lacks a game, for two runs of one arm,
    game and seed (of different budgets or settings, which must not be pooled), and where the reference is not above
    random actions.
    """
    table = read_scores(source, question)
    frame, asked = table.frame, table.question
    games = tuple(sorted(frame[STRATUM].unique()))
    found: dict[str, tuple[pd.DataFrame, ...]] = {}
    for values, rows in frame.groupby([*(asked.by or ())], dropna=False, sort=True):
        name = arm_name(values)
        found[name] = tuple(_runs(rows[rows[STRATUM] == game], f"{table.source}: {name}, {game}") for game in games)
    for name in (asked.baseline, asked.reference or asked.baseline):
        if name not in found:
            raise InputError(f"{table.source}: no arm {name!r}; arms are {listed(found, most=40)}")
    random, reference = _ends(table, games, found) if asked.normalise else ((), ())
    arms = {name: _arm(name, runs, random, reference, table.source) for name, runs in found.items()}
    return Arms(games, arms, random, reference, asked, table.source, table.unit, table.notes)


def _ends(
    table: ScoreTable, games: tuple[str, ...], runs: Mapping[str, tuple[pd.DataFrame, ...]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The scores that are 0 and 1, by game."""
    asked, frame = table.question, table.frame
    random = tuple(float(frame.loc[frame[STRATUM] == game, RANDOM].mean()) for game in games)
    reference = tuple(float(rows[VALUE].mean()) for rows in runs[asked.reference or asked.baseline])
    unknown = [game for game, low in zip(games, random, strict=True) if not np.isfinite(low)]
    if unknown:
        raise InputError(f"{table.source}: {asked.random} has no value in {listed(unknown)}")
    return random, reference


def _arm(
    name: str,
    runs: tuple[pd.DataFrame, ...],
    random: tuple[float, ...],
    reference: tuple[float, ...],
    source: str,
) -> Arm:
    raw = tuple(rows[VALUE].to_numpy(dtype=float) for rows in runs)
    try:
        scores = tuple(normalised(raw, random, reference)) if random else raw
    except ValueError as error:
        raise InputError(f"{source}: scores cannot be normalised, {error}") from error
    ids = tuple(tuple(map(str, rows["run_id"])) if "run_id" in rows else () for rows in runs)
    return Arm(name, raw, scores, ids, _measures(pd.concat(runs)))


def _measures(rows: pd.DataFrame) -> dict[str, float]:
    """The means of the columns that are known, over all runs."""
    means = {name: float(pd.to_numeric(rows[name], errors="coerce").mean()) for name in MEASURES if name in rows}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)}


def _runs(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """The runs of one arm and game, in the order of their seeds."""
    if rows.empty:
        raise InputError(f"{where}: no run; an arm needs runs in every game, or select games with `where`")
    if rows[IDENTITY].duplicated().any():
        raise InputError(
            f"{where}: several runs of one seed; name in `by` what they differ in, or select runs with `where`"
        )
    return rows.sort_values([name for name in ("seed", IDENTITY) if name in rows], kind="stable")


def first_arm(source: str | Path | pd.DataFrame) -> str:
    """The arm that comes first in the order of its settings: a baseline where nobody named one.

    Raises InputError as `read_scores` does.
    """
    table = read_scores(source, ReturnsQuestion(baseline=""))
    groups = table.frame.groupby([*(table.question.by or ())], dropna=False, sort=True)
    return arm_name(next(iter(groups.groups)))
