"""One row a run: the last of its evaluations, or all of them where each is a finished run of its own budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.doubts import Doubt
from analysis.tables.names import named, plain_name
from analysis.tables.numbers import numbers, texts
from analysis.tables.reading_log import ReadingLog
from analysis.tables.rows import Rows, floats
from analysis.tables.run_names import is_blank
from analysis.tables.several_rows import BUDGETS, SETTINGS, STEPS, TRUNK, Reading, SeveralRows, reading_of
from analysis.tables.status_words import STATUS
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import COMPUTE, TOKENS
from scaling.formatting import listed, plural
from scaling.schema import RUNS

_RUN = "run_id"
_LATE, _GAPS = 0.05, 1.5  # what may follow the last loss of a run: this share of it, or so many of its intervals
_ALL = f"If each row is a finished run, `map` {TRUNK}={_RUN} keeps them all"
_LAST = f"If they are evaluations along training, `map` 'step={TOKENS}*1' keeps the last of each"


def one_row_a_run(
    frame: pd.DataFrame, target: str, asked: Collection[str], log: ReadingLog, source: str, *, of_study: bool
) -> pd.DataFrame:
    """The table with the last row of every `run_id`: of its rows with a loss the one of largest `tokens`, else of the
    largest step, else the last in the file.

    A blank name is a run of its own, and so are rows of one name that differ in what shapes a run: two tables that
    both count from 0 were put together. Where the rows of a name are finished runs of several budgets
    (`analysis.tables.several_rows`), all are kept as points of a trunk. Rows that differ in a text that a condition
    asks for (`asked`: its columns) are different runs. Each decision is said with counts and with what gives the other.
    """
    if _RUN not in frame or not frame[_RUN].duplicated().any():
        return frame
    names = _names(frame[_RUN])
    blank = int((names < 0).sum())
    if 0 < blank < len(frame):
        log.notes.append(f"{_RUN} is blank in {plural(blank, 'row')}: each is a run of its own")
    repeated = (names >= 0) & pd.Series(names).duplicated(keep=False).to_numpy()
    rows, names = frame[repeated], names[repeated]
    run = _runs(rows, names, asked, log)
    if not of_study and _RUN not in asked:
        frame = _named_apart(frame, rows, names, run)
    several = _of_several_rows(names, run)
    if not several.any():
        return frame
    rows, names, run = frame.loc[rows.index[several]], names[several], run[several]
    ranks = _ranks(rows)
    order = np.lexsort([*reversed(ranks.values()), run])
    ranks = {name: values[order] for name, values in ranks.items()}
    found = SeveralRows(rows.iloc[order], names[order], np.unique(run[order], return_inverse=True)[1])
    reading = reading_of(found)
    if reading.are == "budgets":
        frame = _all_budgets(frame, found, reading, target, log, Rows(found.frame, source, of_study))
        return frame if of_study or _RUN in asked else _named_by_budget(frame, found)
    _say_last(found, ranks, reading, log)
    return _last_rows(frame, found, ranks, target, log, Rows(found.frame, source, of_study))


def _names(column: pd.Series[Any]) -> Integers:
    """A number for each name; -1 for a blank one."""
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(pd.factorize(column)[0])
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return np.asarray(pd.factorize(text.mask(is_blank(text)))[0])


def _runs(rows: pd.DataFrame, names: Integers, asked: Collection[str], log: ReadingLog) -> Integers:
    """The run of every row as a number: by its name and what shapes a run, and the text that a condition asks for."""
    run, apart = names, []
    _, start, place = np.unique(names, return_index=True, return_inverse=True)
    for name in rows.columns:
        text_asked_for = name in asked and not pd.api.types.is_numeric_dtype(rows[name])
        if name in (_RUN, STATUS) or not (plain_name(name) in SETTINGS or text_asked_for):
            continue
        codes = np.asarray(pd.factorize(_filled(rows[name], names))[0])
        if (codes != codes[start][place]).any() and not _counts_on(rows, name, names):
            run = np.asarray(pd.factorize(run * np.int64(codes.max() + 2) + codes + 1)[0])
            apart.append(name)
    if apart:
        runs_of_name = pd.Series(run).groupby(place).nunique()
        several = runs_of_name[runs_of_name > 1]
        log.notes.append(
            f"{_RUN} {listed(rows[_RUN].iloc[start[several.index]], most=3)} "
            f"{'names' if len(several) == 1 else 'name'} runs that differ in {listed(apart)}: "
            f"{int(several.sum())} runs, kept apart"
        )
    return run


def _of_several_rows(names: Integers, run: Integers) -> Booleans:
    """The rows of runs with several; none where names that stand for several runs have one row for each: in tables of
    one row a run that were put together, rows are alike by chance."""
    rows_of_run = np.bincount(run, minlength=1)[run]
    apart = pd.Series(run).groupby(names).transform("nunique").gt(1).to_numpy()
    by_chance = apart.any() and (rows_of_run[apart] == 1).all()
    return np.zeros(len(run), dtype=bool) if by_chance else rows_of_run > 1


def _named_apart(frame: pd.DataFrame, rows: pd.DataFrame, names: Integers, run: Integers) -> pd.DataFrame:
    """The table with `name/1`, `name/2` for the runs of one name."""
    codes = pd.Series(pd.factorize(run)[0])  # by their first rows
    numbers_of_runs = codes.groupby(names).rank("dense").astype(int)
    shared = numbers_of_runs.groupby(names).transform("max").gt(1).to_numpy()
    own = texts(rows[_RUN]) + "/" + numbers_of_runs.astype(str).to_numpy(dtype=object)
    return _renamed(frame, rows.index[shared], own[shared])


def _named_by_budget(frame: pd.DataFrame, rows: SeveralRows) -> pd.DataFrame:
    """The table with `name@tokens` for the runs of one trunk."""
    kept = rows.frame.index.isin(frame.index)
    tokens = np.array([f"@{tokens:.0f}" for tokens in rows.progress], dtype=object)
    return _renamed(frame, rows.frame.index[kept], (texts(rows.frame[_RUN]) + tokens)[kept])


def _renamed(frame: pd.DataFrame, labels: pd.Index[Any], own: Any) -> pd.DataFrame:
    if not len(labels):
        return frame
    names = frame[_RUN].astype(object).copy()
    names[labels] = own
    return frame.assign(**{_RUN: names})


def _filled(column: pd.Series[Any], names: Integers) -> pd.Series[Any]:
    """A column whose blank cells take the first value of their name: a tracker may say it once."""
    blank = column.isna()
    return column.where(~blank, column.groupby(names).transform("first")) if blank.any() and not blank.all() else column


def _counts_on(rows: pd.DataFrame, name: str, names: Integers) -> bool:
    """Whether a column under another's name grows row by row with the tokens, so that it says how far a run is."""
    if name in RUNS or plain_name(name) in BUDGETS or not pd.api.types.is_numeric_dtype(rows[name]):
        return False
    progress = floats(rows, TOKENS if TOKENS in rows else COMPUTE)
    order = np.lexsort((progress, names))
    same = np.diff(names[order]) == 0
    return bool(np.bincount(names).max() > 2 and (np.diff(floats(rows, name)[order])[same] > 0).all())


def _ranks(rows: pd.DataFrame) -> dict[str, Array]:
    """The columns that say how far a row is in its run, the first decides; a blank cell is before all others."""
    counted = [name for name in (TOKENS, COMPUTE) if name in rows][:1]
    values = {name: numbers(rows[name]).floats for name in [*counted, *named(rows, STEPS)]}
    finite = {name: np.isfinite(column) for name, column in values.items()}
    return {name: np.where(finite[name], values[name], -np.inf) for name in values if finite[name].any()}


def _all_budgets(
    frame: pd.DataFrame, rows: SeveralRows, reading: Reading, target: str, log: ReadingLog, shown: Rows
) -> pd.DataFrame:
    """The table with every budget of a run, the last row of each, and with the run as its trunk."""
    message = (
        f"{plural(len(rows.frame), 'row')} of {plural(rows.n_runs, 'run')} are kept as finished runs, those of one "
        f"{_RUN} as points of one trunk: {reading.because}"
    )
    if TRUNK in frame and frame.loc[rows.frame.index, TRUNK].notna().all():
        log.notes.append(message)
    else:
        log.doubts.append(Doubt("rows_of_one_run", (_RUN, TOKENS), (), f"{message}. {_LAST}"))
        trunks = frame[TRUNK].astype(object) if TRUNK in frame else pd.Series(None, index=frame.index, dtype=object)
        trunks[rows.frame.index] = texts(rows.frame[_RUN])
        frame = frame.assign(**{TRUNK: trunks})
    again = np.append((np.diff(rows.run) == 0) & (np.diff(rows.progress) == 0), False)
    loss = floats(rows.frame, target)
    others = again & np.append(np.abs(np.diff(loss)) > 0, False)
    if others.any():
        message = (
            f"a later row of the same {_RUN} and budget, with another loss, was kept instead ({shown.named(others)}): "
            f"runs of several seeds? Name what tells them apart with `map` seed=COLUMN, or give each its own {_RUN}"
        )
        log.doubts.append(shown.doubt("budget_twice", (_RUN, TOKENS), others, message))
    return log.drop(frame, frame.index.isin(rows.frame.index[again]), "a budget that its run has twice")


def _say_last(rows: SeveralRows, ranks: Mapping[str, Array], reading: Reading, log: ReadingLog) -> None:
    """What the last row was chosen by, why, and where that does not single out one."""
    decides = next((name for name, values in ranks.items() if (values[rows.first] < values[rows.last]).any()), None)
    by = f"of largest {decides}" if decides else "the last in the file, as nothing says how far a row is"
    message = f"of {len(rows.frame):,} rows that share {plural(rows.n_runs, _RUN)} the last of each was kept ({by})"
    message = f"{message}: {reading.because}. {_ALL}"
    if reading.are == "unknown" or decides is None:
        log.doubts.append(Doubt("rows_of_one_run", (_RUN, *ranks), (), message))
    else:
        log.notes.append(message)


def _last_rows(
    frame: pd.DataFrame, rows: SeveralRows, ranks: Mapping[str, Array], target: str, log: ReadingLog, shown: Rows
) -> pd.DataFrame:
    """The table with the last row of every run that has a loss, with the status of the run's last row.

    A run that goes on without a loss for longer than it was evaluated has not ended with one, and is left out.
    """
    labels, ends = rows.frame.index, np.flatnonzero(rows.last)
    loss = floats(rows.frame, target) if target in rows.frame else np.zeros(len(labels))
    with_loss = ~np.isnan(loss)
    latest = _latest(rows, with_loss)
    kept = np.where(latest >= 0, latest, ends)
    lost = np.zeros(rows.n_runs, dtype=bool)
    if ranks:
        far = next(iter(ranks.values()))
        with_loss[kept] = False
        before = _latest(rows, with_loss)
        with np.errstate(invalid="ignore"):  # a row may not say how far it is
            interval = np.where(before >= 0, far[kept] - far[before], 0.0)
            lost = far[ends] - far[kept] > np.maximum(_LATE * far[ends], _GAPS * interval)
    log.doubts += _ties(shown, rows, ranks, loss, kept)
    if STATUS in frame and (kept != ends).any():
        status = frame[STATUS].copy()
        status[labels[kept]] = rows.frame[STATUS].iloc[ends].to_numpy()
        frame = frame.assign(**{STATUS: status})
    log.counts.append(("no loss at the end of the run", int(lost.sum())))
    log.name_rows("no loss at the end of the run", labels[ends[lost]])
    frame = frame[~frame.index.isin(labels[kept[lost]])]
    return log.drop(frame, frame.index.isin(np.delete(labels, kept)), "an earlier row of the same run")


def _latest(rows: SeveralRows, marked: Booleans) -> Integers:
    """The place of the last marked row of every run; -1 where it has none."""
    places = np.where(marked, np.arange(len(marked)), -1)
    return np.asarray(np.maximum.reduceat(places, np.flatnonzero(rows.first)))


def _ties(shown: Rows, rows: SeveralRows, ranks: Mapping[str, Array], loss: Array, kept: Integers) -> list[Doubt]:
    """A doubt where several rows of a run are as far as the one kept, with other losses."""
    alike = np.ones(len(loss), dtype=bool)
    for values in ranks.values():
        alike &= values == values[kept][rows.run]
    others = loss[kept][rows.run]
    tied = alike & (loss != others) & ~np.isnan(loss) & ~np.isnan(others)
    if not ranks or not tied.any():
        return []
    message = (
        f"several rows of a run have the same last {listed(ranks)} as the one that was kept, the last in the file, and "
        f"other losses ({shown.named(tied)}): name in `where` what tells them apart, or give them another {_RUN}"
    )
    return [shown.doubt("last_row_twice", (_RUN, *ranks), tied, message)]
