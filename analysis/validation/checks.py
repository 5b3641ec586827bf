"""How the law behind a decision was checked: made once, when the study is read, and only laid out after that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.profile import Profile, profile
from analysis.fitting.roll_out import RollOut, roll_out
from analysis.isoflop.bias import Bias, bias
from analysis.isoflop.frontier import Frontier, frontier
from analysis.isoflop.valleys import Valleys, valleys
from analysis.laws import LAWS
from analysis.tables.runs import RunTable
from analysis.validation.held_out import ExpertsLeftOut, leave_one_expert_count_out
from analysis.validation.influence import Sensitivity, sensitivity
from analysis.validation.law_comparison import LawComparison, compare_laws
from analysis.validation.residuals import Diagnostics, diagnose
from scaling.errors import InputError

RESAMPLES, FOLDS, SEED = 100, 10, 0
MOST_PROFILES = 3
FEWEST_BUDGETS, FEWEST_SIZES = 3, 4
_MOST_TRUNKS = 8  # listed, of those left out in turn

Made = TypeVar("Made")


@dataclass(frozen=True)
class Isoflop:
    """The valleys of one E, the frontier through them (or why there is none), and its bias on the fitted surface."""

    n_experts: int
    valleys: Valleys
    line: Frontier | None
    reason: str
    bias: Bias | None


@dataclass(frozen=True)
class Checks:
    """What each check of a fit found, on the runs of `table`.

    A check that could not be made is None, and `unsaid` holds the reason under its name. `refused` says why none could
    be made. `train_flops` is the budget that advice and influence are about, `resamples` the number behind each
    interval of a split.
    """

    table: RunTable
    train_flops: float
    resamples: int
    refused: str = ""
    roll_out: RollOut | None = None
    experts_left_out: ExpertsLeftOut | None = None
    comparison: LawComparison | None = None
    sensitivity: Sensitivity | None = None
    residuals: Diagnostics | None = None
    profiles: tuple[Profile, ...] = ()
    isoflop: tuple[Isoflop, ...] = ()
    unsaid: Mapping[str, str] = field(default_factory=dict)


def check(fit: Fit, table: RunTable, train_flops: float) -> Checks:
    """Try a fitted law on the runs of a study; a check that these runs do not allow is a reason, never an error.

    Roll-out and expert counts left out are fitted anew with the fit's objective and with the pins that were asked for,
    from `RESAMPLES` resamples each; laws are compared in `FOLDS` folds. Everything is seeded. The fit must be that of
    the table's runs: of another number of runs nothing is checked.
    """
    law = fit.definition
    there = [name for name in law.columns if name in table.frame]
    table = replace(table, frame=table.frame.dropna(subset=there).reset_index(drop=True))
    if len(table) != fit.n_runs:
        told = (
            f"the fit rests on {fit.n_runs} runs and this study has {len(table)} that its law can take: fit them again"
        )
        return Checks(table, train_flops, RESAMPLES, refused=told)
    goal = fit.criterion
    asked = {name: pin.value for name, pin in fit.pinned.items() if pin.source == "as asked"}
    unsaid: dict[str, str] = {}

    def attempt(name: str, work: Callable[[], Made]) -> Made | None:
        try:
            return work()
        except InputError as error:
            unsaid[name] = str(error).removeprefix(f"{table.source}: ")
            return None

    def rng() -> np.random.Generator:
        return np.random.default_rng(SEED)

    return Checks(
        table=table,
        train_flops=train_flops,
        resamples=RESAMPLES,
        roll_out=attempt(
            "roll_out", lambda: roll_out(table, law, rng=rng(), resamples=RESAMPLES, objective=goal, pin=asked)
        ),
        experts_left_out=attempt(
            "experts_left_out",
            lambda: leave_one_expert_count_out(table, law, rng=rng(), resamples=RESAMPLES, objective=goal, pin=asked),
        ),
        comparison=attempt(
            "comparison",
            lambda: compare_laws(table, LAWS.values(), rng=rng(), folds=FOLDS, train_flops=train_flops, objective=goal),
        ),
        sensitivity=attempt(
            "sensitivity", lambda: sensitivity(fit, table, rng(), train_flops=train_flops, most=_MOST_TRUNKS)
        ),
        residuals=attempt("residuals", lambda: diagnose(fit, table)),
        profiles=attempt("profiles", lambda: tuple(profile(fit, table, name) for name in _profiled(fit))) or (),
        isoflop=attempt("isoflop", lambda: _isoflop(fit, table, train_flops)) or (),
        unsaid=unsaid,
    )


def _profiled(fit: Fit) -> list[str]:
    """The exponents of N and D and the floor where they are free; of other laws the first parameters that are."""
    law = fit.definition
    shapes = [
        p.name
        for p in law.parameters
        if p.name in fit.free and (p.role == "floor" or (p.role in ("size", "data") and not p.linear))
    ]
    return (shapes or list(fit.free))[:MOST_PROFILES]


def _isoflop(fit: Fit, table: RunTable, train_flops: float) -> tuple[Isoflop, ...]:
    """Every E with at least three compute budgets that have four sizes."""
    found = valleys(table)
    sizes = table.column(found.n_column)
    made = []
    for e in found.experts:
        mine = found.of(e)
        full = [valley for valley in mine.found if len(np.unique(sizes[valley.rows])) >= FEWEST_SIZES]
        if len(full) < FEWEST_BUDGETS:
            continue
        try:
            line, reason = frontier(mine), ""
        except InputError as error:
            line, reason = None, str(error).removeprefix(f"{table.source}: ")
        try:
            off = None if line is None else bias(fit, mine, train_flops)
        except InputError:  # a law that cannot be drawn as a surface over N and C
            off = None
        made.append(Isoflop(e, mine, line, reason, off))
    return tuple(made)
