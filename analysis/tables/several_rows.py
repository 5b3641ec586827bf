"""Several rows of one run: evaluations along one training, or finished runs of several token budgets?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from analysis.tables.names import named, plain_name
from analysis.tables.numbers import numbers
from analysis.tables.rows import floats
from analysis.tables.status_words import STATUS, still_running
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import COMPUTE, TOKENS

TRUNK = "trunk_id"
COUNTERS = (
    "step", "globalstep", "trainerglobalstep", "trainstep", "trainingstep", "optimizerstep", "optimiserstep",
    "iteration", "iter", "update", "epoch",
)  # fmt: skip
"""Columns that count on during training, in the order in which they are believed; names without case and marks."""
STEPS = (*COUNTERS, "steps", "iterations", "iters", "updates", "numupdates", "epochs")
SIZES = frozenset({
    "nactive", "ntotal", "nactivenonembed", "ntotalnonembed", "ndensenonembed", "dmodel", "nlayers", "params",
    "parameters", "nparams", "numparams", "width", "depth", "hiddensize", "numlayers", "layers", "modelsize", "model",
    "modelname",
})  # fmt: skip
"""Columns that say how large a model is."""
BUDGETS = ("tokensrequested", "tokenbudget", "budget", "maxtokens", "targettokens", "totaltokens")
SETTINGS = frozenset({
    "nexperts", "topk", "nheads", "dexpert", "vocabsize", "router", "experts", "granularity", "seed", "config",
    "configuration", "corpus", "corpushash", "task", "study", "trunkid", "numexperts", "e", "k", "dff", "dmlp",
    "heads", "numheads", "arch", "architecture", "method", "dataset", "source", "sweep", "experiment", "group",
    "project", "maxsteps", "totalsteps",
}) | SIZES | frozenset(BUDGETS)  # fmt: skip
"""Columns that shape a run: rows that differ in one are different runs."""
_TUNING = frozenset({
    "lr", "learningrate", "batchtokens", "batchsize", "seqlen", "warmuptokens", "weightdecay",
})  # fmt: skip
_RATES = frozenset({
    "lr", "learningrate", "trainlr", "trainlearningrate", "currentlr",
})  # fmt: skip

_MOST_BUDGETS = 10  # rows of one run: nobody trains and cools down so many times from one trunk
_LEAST_RATIO, _EVEN = 1.25, 1.6  # of neighbouring budgets; the longest over the shortest step in their logarithm
_SAME = 0.02  # budgets this close are the same


@dataclass(frozen=True)
class Reading:
    """What the rows of one run are, and by what that is known; "unknown" where nothing tells."""

    are: Literal["evaluations", "budgets", "unknown"]
    because: str


@dataclass(frozen=True)
class SeveralRows:
    """Rows of runs that have at least two, in order: run by run, each from its first row to its last.

    `names`: their `run_id` as numbers; `run`: the run of each row, from 0 without gaps.
    """

    frame: pd.DataFrame
    names: Integers
    run: Integers

    @cached_property
    def first(self) -> Booleans:
        return np.diff(self.run, prepend=-1) > 0

    @cached_property
    def last(self) -> Booleans:
        return np.diff(self.run, append=self.run[-1] + 1) > 0

    @property
    def n_runs(self) -> int:
        return int(self.run[-1]) + 1

    @cached_property
    def progress(self) -> Array:
        """How far each row is: tokens, else compute; NaN where that is not finite or the table has neither."""
        values = floats(self.frame, TOKENS if TOKENS in self.frame else COMPUTE)
        return np.where(np.isfinite(values), values, np.nan)

    def varies(self, name: str) -> Booleans:
        """The runs whose rows have several values of a column, blank ones apart."""
        codes = pd.factorize(self.frame[name])[0]
        known = codes >= 0
        low, high = np.full(self.n_runs, np.iinfo(np.int64).max), np.full(self.n_runs, -1)
        np.minimum.at(low, self.run[known], codes[known])
        np.maximum.at(high, self.run[known], codes[known])
        return high > low


def reading_of(rows: SeveralRows) -> Reading:
    """What the rows of each run are, by the first evidence that there is."""
    for evidence in _EVIDENCE:
        found = evidence(rows)
        if found is not None:
            return found
    return Reading("unknown", "nothing tells whether the rows of one run_id are evaluations along one training")


def _named_trunks(rows: SeveralRows) -> Reading | None:
    """A trunk that is one run has its budgets as rows; one that has several runs has them as names."""
    if TRUNK not in rows.frame or rows.frame[TRUNK].isna().any():
        return None
    runs_of_a_trunk = pd.Series(rows.names).groupby(pd.factorize(rows.frame[TRUNK])[0]).nunique()
    if runs_of_a_trunk.eq(1).all():
        return Reading("budgets", f"{TRUNK} says that they are points of one trunk")
    return Reading("evaluations", f"a {TRUNK} has several run_ids, so each of these is one run")


def _counters(rows: SeveralRows) -> Reading | None:
    for name in named(rows.frame, COUNTERS):
        if rows.varies(name).mean() > 0.5:
            return Reading("evaluations", f"{name} counts on")
    return None


def _rates(rows: SeveralRows) -> Reading | None:
    for name in named(rows.frame, _RATES):
        if rows.varies(name).mean() > 0.5:
            return Reading("evaluations", f"{name} changes along the run")
    return None


def _running(rows: SeveralRows) -> Reading | None:
    if STATUS not in rows.frame:
        return None
    running = still_running(rows.frame[STATUS])
    if (running & ~rows.last).any() and not running[rows.last].all():
        return Reading("evaluations", f"{STATUS} says that earlier rows were still running")
    return None


def _one_budget(rows: SeveralRows) -> Reading | None:
    for name in named(rows.frame, BUDGETS):
        budget = numbers(rows.frame[name]).floats
        reached = rows.progress >= 0.9 * budget
        if np.isfinite(budget[rows.first]).all() and not rows.varies(name).any() and not reached[rows.first].any():
            return Reading("evaluations", f"{name} is one for each run, and earlier rows are short of it")
    return None


def _many(rows: SeveralRows) -> Reading | None:
    middle = float(np.median(np.bincount(rows.run)))
    return Reading("evaluations", f"a run has {middle:g} of them") if middle > _MOST_BUDGETS else None


def _twins(rows: SeveralRows) -> Reading | None:
    """Two runs of one model that end at different budgets are one training each, not trunks."""
    of_runs = rows.frame[rows.first]
    names = [str(name) for name in of_runs]
    columns = [name for name in names if plain_name(name) in SETTINGS and plain_name(name) != "trunkid"]
    if not any(plain_name(name) in SIZES for name in columns):
        return None
    tuning = [name for name in names if plain_name(name) in _TUNING and not rows.varies(name).any()]
    alike = of_runs.groupby([*columns, *tuning], dropna=False, sort=False).ngroup()
    ends = pd.Series(rows.progress[rows.last], index=alike.index).groupby(alike)
    if (ends.max() > (1 + _SAME) * ends.min()).any():
        return Reading("evaluations", "runs of one model end at different tokens, so each is a training of its own")
    return None


def _evenly_spaced(rows: SeveralRows) -> Reading | None:
    steps = _steps(rows, rows.progress)
    uneven = np.array([step.max() / step.min() for step in steps if len(step) > 1])
    if len(uneven) and np.mean(uneven < 1.1) > 0.8:
        return Reading("evaluations", "they are evenly spaced in tokens")
    return None


def _geometric(rows: SeveralRows) -> Reading | None:
    """A few budgets of a constant ratio, the same for several models in tokens, tokens per parameter or compute."""
    logs = _log(rows.progress)
    steps = [step for step in _steps(rows, logs) if len(step) > 1]
    even = [step.min() > np.log(_LEAST_RATIO) and step.max() < _EVEN * step.min() for step in steps]
    if not even or np.mean(even) < 0.8 or not _shared(rows, logs):
        return None
    ratio = float(np.exp(np.median(np.concatenate(steps))))
    return Reading("budgets", f"they are few and a factor of about {ratio:.2g} apart in tokens, as budgets are")


def _shared(rows: SeveralRows, logs: Array) -> bool:
    """Whether most budgets are those of another run too; true of a single run."""
    if rows.n_runs == 1:
        return True
    size = next((_log(floats(rows.frame, name)) for name in ("n_active", "n_total") if name in rows.frame), logs * 0)
    for values in (logs, logs - size, logs + size):
        order = np.argsort(values, kind="stable")
        near = (np.diff(values[order]) < _SAME) & (np.diff(rows.run[order]) != 0)
        shared = np.concatenate([near, [False]]) | np.concatenate([[False], near])
        if shared.mean() > 0.5:
            return True
    return False


def _log(values: Array) -> Array:
    """The logarithm of what is positive and finite, else NaN."""
    usable = np.isfinite(values) & (values > 0)
    return np.where(usable, np.log(np.where(usable, values, 1.0)), np.nan)


def _steps(rows: SeveralRows, values: Array) -> Iterator[Array]:
    """The positive differences of neighbouring values, run by run."""
    for part in np.split(values, np.flatnonzero(rows.first)[1:]):
        steps = np.diff(part) if np.isfinite(part).all() else np.empty(0)
        if (steps > 0).any():
            yield steps[steps > 0]


_EVIDENCE: tuple[Callable[[SeveralRows], Reading | None], ...] = (
    _named_trunks, _counters, _rates, _running, _one_budget, _many, _twins, _evenly_spaced, _geometric,
)  # fmt: skip
