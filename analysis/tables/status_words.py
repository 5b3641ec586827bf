"""Status: the words by which trackers, schedulers and people say whether a run ended well."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog, rows_named
from scaling.arrays import Booleans
from scaling.columns import LOSS
from scaling.formatting import listed, plural

STATUS = "status"
FINISHED = frozenset({
    "ok", "okay", "finished", "finish", "completed", "complete", "done", "success", "succeeded", "successful",
    "passed", "pass", "terminated", "true", "yes",
})  # fmt: skip
"""Of a run that ended well: W&B, MLflow, Ray (`TERMINATED`), Slurm, and people."""
NOT_FINISHED = frozenset({
    "failed", "fail", "failure", "crashed", "crash", "error", "errored", "exception", "killed", "kill", "aborted",
    "abort", "cancelled", "canceled", "timeout", "timedout", "oom", "outofmemory", "nodefail", "bootfail", "deadline",
    "preempted", "revoked", "stopped", "interrupted", "diverged", "nan", "false", "no", "running", "unfinished",
    "incomplete", "partial", "active", "inprogress", "started", "pending", "queued", "scheduled", "waiting", "paused",
    "suspended", "starting", "initializing", "created", "submitted", "completing", "configuring", "requeued",
    "preempting", "notstarted",
})  # fmt: skip
"""Of a run that failed, was stopped or has not ended."""
_RUNNING = frozenset({
    "running", "unfinished", "incomplete", "partial", "active", "inprogress", "started",
})  # fmt: skip
UNKNOWN = frozenset({"", "none", "null", "na", "unknown", "undefined"})
"""Of a run about which nothing is said."""


def with_finished(frame: pd.DataFrame, asked: Collection[str], log: ReadingLog) -> pd.DataFrame:
    """The runs whose `status` says that they ended well, or says nothing.

    A condition that asks for the column (`asked`: its columns) has decided already. A word that is in no list leaves
    its rows out, unless the column has no word of a list: then it says something else.
    """
    if STATUS not in frame or STATUS in asked:
        return frame
    status = frame[STATUS]
    meanings = _meanings(frame, log)
    finished = status.map(meanings).fillna("unknown") if meanings else pd.Series("finished", index=frame.index)
    blank, strange = finished.eq("unknown"), finished.eq("strange")
    if strange.any() and not finished.isin(("finished", "not finished")).any():
        words = list(dict.fromkeys(status[strange].map(_shown)))
        say = "says" if len(words) == 1 else "say"
        log.notes.append(f"{STATUS}: {listed(words)} {say} nothing about how a run ended; every run was kept")
        return frame
    if blank.any() and not blank.all():
        log.notes.append(f"{STATUS} is blank in {plural(int(blank.sum()), 'row')}: taken as unknown, the runs are kept")
    left_out = finished.eq("not finished") | strange
    if not left_out.any():
        return frame
    counts = status[left_out].map(_shown).value_counts(sort=True)
    log.counts += [(f"{STATUS} {word}", int(count)) for word, count in counts.items()]
    log.remedies.append(_remedy(status, left_out, strange))
    return frame[~left_out]


def says_how_runs_ended(column: pd.Series[Any]) -> bool:
    """Whether every word of a column is in one of the lists, and some say more than that nothing is known."""
    meanings = {_meaning(word) for word in column.dropna().unique()}
    return bool(meanings & {"finished", "not finished"}) and "strange" not in meanings


def still_running(column: pd.Series[Any]) -> Booleans:
    """The rows whose word says that the run had not ended."""
    words = {word: _plain(word) in _RUNNING for word in column.dropna().unique()}
    return np.asarray(column.map(words).fillna(False), dtype=bool)


def _meanings(frame: pd.DataFrame, log: ReadingLog) -> dict[Hashable, str]:
    """What each value of the column means; empty where numbers are no status."""
    status = frame[STATUS]
    words: Iterable[Any] = status.dropna().unique()
    if not any(isinstance(word, bool | np.bool_) for word in words) and len(status.dropna()):
        read = numbers(pd.Series(list(words)))
        if not np.isnan(read.floats).any():
            return _codes(frame, dict(zip(words, read.floats.tolist(), strict=True)), log)
    return {word: _meaning(word) for word in words}


def _codes(frame: pd.DataFrame, codes: dict[Hashable, float], log: ReadingLog) -> dict[Hashable, str]:
    """Numbers are flags (1 of a run that ended well) or a program's exit codes (0 of one)."""
    with_loss = frame[LOSS].notna() if LOSS in frame else pd.Series(True, index=frame.index)
    zero = frame[STATUS].isin([word for word, code in codes.items() if code == 0])
    other = frame[STATUS].notna() & ~zero
    flags = set(codes.values()) <= {0.0, 1.0} and 1.0 in codes.values()
    exits = bool(zero.any()) and bool(with_loss[zero].any()) and not (with_loss[other].any() and flags)
    if not exits and not flags:
        return dict.fromkeys(codes, "strange")
    good = 0.0 if exits else 1.0
    what = "exit codes: 0 is" if exits else "flags: 1 is"
    log.notes.append(f"{STATUS}: its numbers are read as {what} a run that finished")
    return {word: "finished" if code == good else "not finished" for word, code in codes.items()}


def _meaning(word: object) -> str:
    plain = _plain(word)
    if plain in UNKNOWN:
        return "unknown"
    return "finished" if plain in FINISHED else "not finished" if plain in NOT_FINISHED else "strange"


def _plain(word: object) -> str:
    return re.sub(r"[\W_]+", "", str(word)).casefold()


def _shown(word: object) -> str:
    return str(word).strip()


def _remedy(status: pd.Series[Any], left_out: pd.Series[bool], strange: pd.Series[bool]) -> str:
    """What was left out by row, and how to keep it."""
    odd = list(dict.fromkeys(status[strange].map(_shown)))
    unread = f"; {listed(odd)} {'is no word' if len(odd) == 1 else 'are no words'} known here" if odd else ""
    kept = dict.fromkeys(status[~left_out & status.notna()].map(_shown))
    example = " or ".join(
        f"{STATUS} == '{word}'" for word in [*[*kept][:1], *(odd or [_shown(status[left_out].iloc[0])])[:1]]
    )
    return (
        f"left out by {STATUS} {rows_named(status.index[left_out], status[left_out].map(_shown))}{unread}. A condition "
        f'on {STATUS} decides instead: `where` "{example}"'
    )
