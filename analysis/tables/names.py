"""Names of columns: those of others that are ours but for case and marks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import pandas as pd

from analysis.tables.mapping import OUR_COLUMNS
from analysis.tables.reading_log import ReadingLog
from analysis.tables.status_words import STATUS, says_how_runs_ended

_STATES = ("state", "runstate", "jobstate", "runstatus", "jobstatus")


def plain_name(name: str) -> str:
    """A name without case and marks: `trainer/global_step` and `TrainerGlobalStep` are one."""
    return re.sub(r"[\W_]+", "", name).casefold()


def named(frame: pd.DataFrame, plain_names: Iterable[str]) -> list[str]:
    """The columns of these names, case and marks apart, in the order of the names."""
    plain = {plain_name(name): name for name in reversed(frame.columns)}
    return [plain[name] for name in plain_names if name in plain]


def with_our_names(
    frame: pd.DataFrame, asked: Collection[str], log: ReadingLog, of_law: Collection[str] = ()
) -> pd.DataFrame:
    """The table with `Run_ID` called run_id, and the like, with a note; also `State` as status, if it says how runs
    ended. A column that a condition asks for keeps its own name beside ours."""
    ours = {plain_name(name): name for name in sorted(OUR_COLUMNS | {*of_law})}
    called: dict[str, list[str]] = {}
    for column in frame.columns:
        called.setdefault(plain_name(column), []).append(column)
    for plain, theirs in called.items():
        name = ours.get(plain, STATUS if plain in _STATES else None)
        if name is None or name in frame or len(theirs) > 1 or theirs[0] in OUR_COLUMNS or theirs[0] in of_law:
            continue
        if plain in _STATES and not says_how_runs_ended(frame[theirs[0]]):
            continue
        if name == STATUS and theirs[0] in asked:  # the condition decides
            continue
        log.notes.append(f"the column {theirs[0]} is read as {name}")
        both = theirs[0] in asked
        frame = frame.assign(**{name: frame[theirs[0]]}) if both else frame.rename(columns={theirs[0]: name})
    return frame
