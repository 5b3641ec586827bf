"""How the law behind a decision was checked: made once, when the study is read, and only laid out after that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.fitting.fit import AS_ASKED, Fit
from analysis.fitting.profile import Profile, profile
from analysis.fitting.roll_out import RollOut, roll_out
from analysis.isoflop.bias import Bias, bias
from analysis.isoflop.frontier import Frontier, frontier
from analysis.isoflop.valleys import Valleys, valleys
from analysis.laws import LAWS
from analysis.tables.runs import RunTable
from analysis.validation.held_out import ExpertsLeftOut, leave_one_expert_count_out
from analysis.validation.influence import Sensitivity, exponents_and_floor, sensitivity
from analysis.validation.law_comparison import LawComparison, compare_laws
from analysis.validation.residuals import Diagnostics, diagnose
from scaling.errors import InputError

RESAMPLES, FOLDS, SEED = 100, 10, 0
MOST_PROFILES = 3
FEWEST_BUDGETS, FEWEST_SIZES = 3, 4
_MOST_TRUNKS = 8  # listed, of those left out in turn


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
        runs = f"the fit rests on {fit.n_runs} runs and this study has {len(table)} that its law can take"
        return Checks(table, train_flops, RESAMPLES, refused=f"{runs}: fit them again")
    pins = {name: pin.value for name, pin in fit.pinned.items() if pin.source == AS_ASKED}
    refitted: dict[str, Any] = {"resamples": RESAMPLES, "objective": fit.criterion, "pin": pins}
    works: dict[str, Callable[[np.random.Generator], Any]] = {
        "roll_out": lambda rng: roll_out(table, law, rng=rng, **refitted),
        "experts_left_out": lambda rng: leave_one_expert_count_out(table, law, rng=rng, **refitted),
        "comparison": lambda rng: compare_laws(
            table, LAWS.values(), rng=rng, folds=FOLDS, train_flops=train_flops, objective=fit.criterion
        ),
        "sensitivity": lambda rng: sensitivity(fit, table, rng, train_flops=train_flops, most=_MOST_TRUNKS),
        "residuals": lambda _: diagnose(fit, table),
        "profiles": lambda _: tuple(profile(fit, table, name) for name in _profiled(fit)),
        "isoflop": lambda _: _isoflop(fit, table, train_flops),
    }
    results: dict[str, Any] = {}
    unsaid: dict[str, str] = {}
    for name, work in works.items():
        try:
            results[name] = work(np.random.default_rng(SEED))
        except InputError as error:
            unsaid[name] = str(error).removeprefix(f"{table.source}: ")
    return Checks(table, train_flops, RESAMPLES, unsaid=unsaid, **results)


def _profiled(fit: Fit) -> list[str]:
    """The exponents of N and D and the floor where they are free; of other laws the first parameters that are."""
    return (exponents_and_floor(fit) or list(fit.free))[:MOST_PROFILES]


def _isoflop(fit: Fit, table: RunTable, train_flops: float) -> tuple[Isoflop, ...]:
    """Every E with at least three compute budgets that have four sizes."""
    every = valleys(table)
    sizes = table.column(every.n_column)
    isoflops = []
    for e in every.experts:
        of_e = every.of(e)
        full = [valley for valley in of_e.found if len(np.unique(sizes[valley.rows])) >= FEWEST_SIZES]
        if len(full) < FEWEST_BUDGETS:
            continue
        line, reason, deviation = None, "", None
        try:
            line = frontier(of_e)
        except InputError as error:
            reason = str(error).removeprefix(f"{table.source}: ")
        if line is not None:
            with contextlib.suppress(InputError):  # of a law that cannot be drawn as a surface over N and C
                deviation = bias(fit, of_e, train_flops)
        isoflops.append(Isoflop(e, of_e, line, reason, deviation))
    return tuple(isoflops)
