"""The scores of runs: one row a run and game, with the score of random actions beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.rates.table import IDENTITY, VALUE, ReplicateTable, read_replicates
from analysis.returns.question import GAME, ReturnsQuestion
from analysis.tables.readers import read_table
from analysis.tables.study import Study
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.tasks import TASKS

STRATUM, RANDOM = "stratum of the score", "score of random actions"  # columns that no table of runs has
ALL = "all"  # the one stratum of runs that no column tells apart
_RANDOM_RETURN, _RETURN = "random_return", "episode_return"
_ARM = ("arm", "n_experts")  # make arms in a table that does not say what its settings are
_TEXTS = ("reward_program",)  # settings that are texts, and make no name of an arm


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """One row a run and stratum: the columns of its run, `VALUE`, `IDENTITY`, `STRATUM` and, where scores are
    normalised, `RANDOM`. `question` is the one that was asked with what it left open filled in."""

    frame: pd.DataFrame
    source: str
    question: ReturnsQuestion
    unit: str
    notes: tuple[str, ...]


def read_scores(source: str | Path | pd.DataFrame, question: ReturnsQuestion) -> ScoreTable:
    """The scores of a study folder, a file or a frame.

    Raises InputError for a metric or column that is not there, a metric that is better when lower, and where no column
    tells arms apart.
    """
    metric = question.metric or _primary(source)
    tables = {column: read_replicates(source, column, question.where) for column in _columns(source, metric)}
    frames, notes = [], list[str]()
    for column, table in tables.items():
        _require_rising(table, column)
        frame, averaged = (table.frame, 0) if question.replicates else _by_run(table.frame)
        if averaged:
            notes.append(f"{column}: up to {averaged} replicates of a run are averaged")
        left_out = (f"{count} left out: {reason}" for reason, count in table.dropped)
        notes += [note for note in (*left_out, *table.notes) if note not in notes]
        frames.append(frame.assign(**{STRATUM: _named(column, metric)}))
    first = next(iter(tables.values()))
    strata = question.strata or (GAME if GAME in first.frame else None)
    by = question.by or _varied(first, strata)
    _require(first, (*by, *([strata] if strata else [])))
    randoms = {column: _random(table, column, metric, question) for column, table in tables.items()}
    normalise = all(randoms.values()) if question.normalise is None else question.normalise
    if normalise:
        for column, name in randoms.items():
            if name is None:
                raise InputError(
                    f"{first.source}: no column says what random actions score in {column}: name it in `random`, or do "
                    "not `normalise`"
                )
    with_random = [
        frame.assign(**{RANDOM: pd.to_numeric(frame[name], errors="coerce")}) if normalise else frame
        for frame, name in zip(frames, randoms.values(), strict=True)
    ]
    joined = pd.concat(with_random, ignore_index=True)
    resolved = replace(
        question,
        metric=metric,
        by=by,
        strata=strata,
        normalise=normalise,
        random=_shared(randoms, metric) if normalise else None,
        reference=(question.reference or question.baseline) if normalise else None,
    )
    return ScoreTable(_with_strata(joined, strata), first.source, resolved, first.unit, tuple(notes))


def _primary(source: str | Path | pd.DataFrame) -> str:
    """The primary metric of the task of these runs; `episode_return` where they do not say their task."""
    runs = _runs(source)
    tasks = [str(name) for name in runs["task"].dropna().unique()] if "task" in runs else []
    return TASKS[tasks[0]].primary.name if len(tasks) == 1 and tasks[0] in TASKS else _RETURN


def _runs(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    return Study(Path(source)).runs if Path(source).is_dir() else read_table(Path(source))


def _columns(source: str | Path | pd.DataFrame, metric: str) -> list[str]:
    """The columns that a metric names: itself, or those that match its `*` and have a value."""
    if "*" not in metric:
        return [metric]
    runs = _runs(source)
    found = [name for name in map(str, runs.columns) if _named(name, metric) != ALL and not name.endswith("_se")]
    found = [name for name in found if pd.to_numeric(runs[name], errors="coerce").notna().any()]
    if not found:
        raise InputError(f"`metric` {metric!r}: no column of the runs matches it and has a value")
    return found


def _named(column: str, metric: str) -> str:
    """What `*` stands for in a column; `ALL` where the metric has none, or the column does not match."""
    before, star, after = metric.partition("*")
    match = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", column) if star else None
    return ALL if match is None else match[1]


def _require_rising(table: ReplicateTable, column: str) -> None:
    """Raises InputError for a metric that its task declares as better when lower."""
    names = table.frame["task"].dropna().unique() if "task" in table.frame else ()
    declared = [TASKS[name].metric[column] for name in names if name in TASKS and column in TASKS[name].metric]
    if any(metric.better == "lower" for metric in declared):
        raise InputError(
            f"{table.source}: `metric` {column} is better when lower, and returns are compared by what is better when "
            "higher: name another metric, or regress this one with `scaling rates`"
        )


def _by_run(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """One row a run with the mean over its replicates, and the most replicates that a run has; 0 where each has one."""
    if "run_id" not in frame or not frame["run_id"].duplicated().any():
        return frame, 0
    groups = frame.groupby("run_id", sort=False)[VALUE]
    rows = frame.drop_duplicates("run_id")
    identity = rows["seed"].astype(str) if "seed" in rows else rows["run_id"]
    return rows.assign(**{VALUE: groups.mean().to_numpy(), IDENTITY: identity}), int(groups.size().max())


def _varied(table: ReplicateTable, strata: str | None) -> tuple[str, ...]:
    """The settings in which the runs differ, but for the strata; without settings the columns `arm` and `n_experts`.

    Raises InputError where nothing tells arms apart.
    """
    frame = table.frame
    found = [name for name in table.settings if name not in (strata, *_TEXTS) and len(frame[name].unique()) > 1]
    found = found or [name for name in _ARM if name in frame]
    if not found:
        raise InputError(f"{table.source}: nothing tells arms apart: name in `by` the columns whose values make an arm")
    return tuple(found)


def _require(table: ReplicateTable, names: tuple[str, ...]) -> None:
    lacking = [name for name in names if name not in table.frame]
    if lacking:
        raise InputError(f"{table.source}: no column {listed(lacking)}; it has {listed(table.columns, most=60)}")


def _random(table: ReplicateTable, column: str, metric: str, question: ReturnsQuestion) -> str | None:
    """The column with the score of random actions for a column of scores; None where there is none, or none is wanted.

    Raises InputError where one was named that is not there.
    """
    if question.normalise is False:
        return None
    if question.random is not None:
        name = question.random.replace("*", _named(column, metric))
        _require(table, (name,))
        return name
    if (own := f"random_{column}") in table.frame:
        return own
    return _RANDOM_RETURN if _RANDOM_RETURN in table.frame and _is_return(table, column) else None


def _is_return(table: ReplicateTable, column: str) -> bool:
    """Whether a metric counts what `random_return` counts: has its unit, where the task of the runs declares both."""
    names = table.frame["task"].dropna().unique() if "task" in table.frame else ()
    declared = [TASKS[name].metric for name in names if name in TASKS]
    units = [
        (of[column].unit, of[_RANDOM_RETURN].unit) for of in declared if column in of and _RANDOM_RETURN in of
    ]  # fmt: skip
    return all(own == random for own, random in units)


def _shared(randoms: dict[str, str | None], metric: str) -> str | None:
    """One name for the columns of random actions, with the `*` of the metric where they differ."""
    names = {name for name in randoms.values() if name is not None}
    if len(names) == 1:
        return names.pop()
    column, name = next(iter(randoms.items()))
    return None if name is None else name.replace(_named(column, metric), "*")


def _with_strata(frame: pd.DataFrame, strata: str | None) -> pd.DataFrame:
    """The strata by the column, by what the `*` of the metric stands for, or by both."""
    if strata is None:
        return frame
    own, starred = frame[strata].astype(str), frame[STRATUM]
    return frame.assign(**{STRATUM: own.where(starred == ALL, own + " " + starred)})
