"""The scores of each arm of a study: its runs by game, normalised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.rates.table import VALUE, ReplicateTable, read_replicates
from analysis.returns.question import ReturnsQuestion
from analysis.returns.statistics import normalised
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed


@dataclass(frozen=True, eq=False)
class Arm:
    """The runs of one arm: `raw` and `scores` (normalised) hold one array a game, in the order of the games."""

    name: str
    raw: tuple[Array, ...]
    scores: tuple[Array, ...]

    @property
    def fewest(self) -> int:
        """The number of runs in the game that has fewest."""
        return min(len(values) for values in self.raw)


@dataclass(frozen=True, eq=False)
class Arms:
    """Arms by name, the games they share, and for each game the scores that are 0 and 1 after normalisation."""

    games: tuple[str, ...]
    by_name: dict[str, Arm]
    random: tuple[float, ...]
    reference: tuple[float, ...]
    notes: tuple[str, ...]


def arm_name(values: Iterable[Any]) -> str:
    """The values that make an arm, in words: `soft 4`."""
    return " ".join(f"{value:g}" if isinstance(value, (float, np.floating)) else str(value) for value in values)


def arms_of(source: str | Path | pd.DataFrame, question: ReturnsQuestion) -> Arms:
    """The arms of a study folder, a file or a frame.

    Raises InputError for a column or an arm that is not there, for an arm that lacks a game, for two runs of one arm,
    game and seed (of different budgets or settings, which must not be pooled), and where the reference is not above
    random actions.
    """
    table = read_replicates(source, question.metric, question.where)
    _require_columns(table, question)
    frame, by = table.frame, [*question.by]
    games = tuple(sorted(frame[question.game].astype(str).unique()))
    raw: dict[str, tuple[Array, ...]] = {}
    for values, rows in frame.groupby(by, dropna=False, sort=True):
        name = arm_name(values)
        raw[name] = tuple(_runs(rows[rows[question.game].astype(str) == game], f"{table.source}: {name}, {game}")
                          for game in games)  # fmt: skip
    for name in (question.baseline, question.reference or question.baseline):
        if name not in raw:
            raise InputError(f"{table.source}: no arm {name!r}; arms are {listed(raw, most=40)}")
    random = tuple(float(frame.loc[frame[question.game].astype(str) == game, question.random].mean()) for game in games)
    reference = tuple(float(np.mean(values)) for values in raw[question.reference or question.baseline])
    try:
        arms = {name: Arm(name, values, tuple(normalised(values, random, reference))) for name, values in raw.items()}
    except ValueError as error:
        raise InputError(f"{table.source}: scores cannot be normalised, {error}") from error
    left_out = tuple(f"{count} left out: {reason}" for reason, count in table.dropped)
    return Arms(games, arms, random, reference, (*left_out, *table.notes))


def _runs(rows: pd.DataFrame, where: str) -> Array:
    """The scores of the runs of one arm and game, in the order of their seeds."""
    if rows.empty:
        raise InputError(f"{where}: no run; an arm needs runs in every game, or select games with `where`")
    if "seed" in rows and rows["seed"].duplicated().any():
        raise InputError(
            f"{where}: several runs of one seed; name in `by` what they differ in, or select runs with `where`"
        )
    ordered = rows.sort_values("seed") if "seed" in rows else rows
    return ordered[VALUE].to_numpy(dtype=float)


def _require_columns(table: ReplicateTable, question: ReturnsQuestion) -> None:
    lacking = [name for name in (*question.by, question.game, question.random) if name not in table.frame]
    if lacking:
        raise InputError(f"{table.source}: no column {listed(lacking)}; it has {listed(table.frame.columns, most=60)}")
