"""How far a fit can be trusted: every check of it, made in one place, or the reason why it could not be made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import AS_ASKED, Fit
from analysis.fitting.objective import Objective
from analysis.fitting.profile import Profile, profile
from analysis.fitting.roll_out import RollOut, roll_out
from analysis.isoflop.bias import Bias, bias
from analysis.isoflop.frontier import Frontier, frontier
from analysis.isoflop.valleys import Valleys, valleys
from analysis.laws import LAWS, Law
from analysis.mixture.fitted_mixture import fit_mixture
from analysis.mixture.mixture import Mixture
from analysis.mixture.refits import of_mixture
from analysis.tables.runs import RunTable
from analysis.validation import judgement
from analysis.validation.advice import default_budget
from analysis.validation.held_out import ExpertsLeftOut, leave_one_expert_count_out
from analysis.validation.influence import Sensitivity, exponents_and_floor, sensitivity
from analysis.validation.judgement import Judgement
from analysis.validation.law_comparison import LawComparison, compare_laws
from analysis.validation.residuals import Diagnostics, diagnose
from scaling.errors import InputError
from scaling.progress import Progress, part, silent

RESAMPLES, FOLDS, SEED = 100, 10, 0
MOST_PROFILES = 3
FEWEST_BUDGETS, FEWEST_SIZES = 3, 4
_MOST_TRUNKS = 8  # listed, of those left out one at a time
_TITLES = {
    "roll_out": "roll-out",
    "experts_left_out": "one expert count left out",
    "comparison": "laws",
    "sensitivity": "sensitivity",
    "residuals": "residuals",
}


@dataclass(frozen=True)
class Isoflop:
    """The valleys of one E, the frontier through them (or the reason for none), and its bias on the fitted surface."""

    n_experts: int
    valleys: Valleys
    line: Frontier | None
    reason: str
    bias: Bias | None


@dataclass(frozen=True)
class Checks:
    """What each check of a fit found on the runs of `table`.

    A check that could not be made is None, and `reasons` says why under its name. `refused` says why none could be
    made. `judgements` say what each check means, and neither the seed nor `resamples` moves them
    (`analysis.validation.judgement`); a report has none, since all of it has seeds of its own. `train_flops`
    is the budget of advice and influence (NaN where unknown), `resamples` the number behind each interval of a split.
    """

    fit: Fit
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
    reasons: Mapping[str, str] = field(default_factory=dict)
    judgements: Mapping[str, Judgement] = field(default_factory=dict)

    def verdict_of(self, name: str) -> str:
        """One sentence on a check: its judgement or else its finding, or why it could not be made."""
        if name in self.judgements:
            return self.judgements[name].sentence
        found: RollOut | ExpertsLeftOut | LawComparison | Sensitivity | Diagnostics | None = getattr(self, name)
        return f"{_TITLES[name]}: {self.reasons[name]}" if found is None else found.verdict()

    @property
    def verdict(self) -> tuple[str, ...]:
        """One sentence on each check."""
        return tuple(map(self.verdict_of, _TITLES))

    def to_json(self) -> dict[str, Any]:
        """Plain values without profiles and isoFLOP analysis; a check that could not be made is left out."""
        found = {name: getattr(self, name) for name in _TITLES}
        members = self.fit.members if isinstance(self.fit, Mixture) else ()
        return {
            "law": self.fit.law,
            **({"members": {member.name: member.weight for member in members}} if members else {}),
            "n_runs": self.fit.n_runs,
            "n_trunks": self.fit.n_trunks,
            "verdict": list(self.verdict),
            "outcomes": {name: one.outcome for name, one in self.judgements.items()},
            **{name: part.to_json() for name, part in found.items() if part is not None},
            "warnings": list(self.fit.warnings),
        }

    def frames(self) -> dict[str, pd.DataFrame]:
        """Predictions, weights of laws and exclusions, as the panels of `analysis.figures.validation` take them."""
        contenders = () if self.comparison is None else self.comparison.contenders
        return {
            "roll_out": pd.DataFrame() if self.roll_out is None else self.roll_out.frame(),
            "weights": pd.DataFrame([asdict(contender) for contender in contenders]),
            "exclusions": pd.DataFrame() if self.sensitivity is None else self.sensitivity.frame(),
        }


_Work = Callable[[np.random.Generator, Progress], Any]


def validate_fit(
    fit: Fit,
    table: RunTable,
    laws: Iterable[Law],
    *,
    rng: np.random.Generator,
    resamples: int,
    keep_trunks: bool,
    objective: Objective,
    pin: Mapping[str, float],
    train_flops: float | None,
    progress: Progress = silent,
) -> Checks:
    """Judge a fit by larger runs, expert counts left out, other `laws`, runs left out and its own residuals.

    A mixture is fitted anew to every part of the runs, and compared with its members too.

    `resamples` are behind every interval. Refits take `objective` and `pin`. Advice is compared at `train_flops`
    (default: 10 times the compute of the largest run).
    """
    laws = list(laws)
    refitted: dict[str, Any] = {"resamples": resamples, "objective": objective, "pin": pin}
    works = _works(fit, table, laws, train_flops, refitted, keep_trunks=keep_trunks)
    budget = train_flops or default_budget(table) or np.nan
    found = _attempted(works, lambda: rng, table.source, part(progress, 0.0, 0.4))
    repeated = refitted | {"resamples": judgement.RESAMPLES}
    again = _works(_with_errors(fit, table), table, laws, train_flops, repeated, keep_trunks=keep_trunks)
    judged = _judged(fit.law, found, again, part(progress, 0.4, 1.0))
    return Checks(fit, table, budget, resamples, **found, judgements=judged)


def check(fit: Fit, table: RunTable, train_flops: float) -> Checks:
    """All checks of a fit on the runs of its study, profiles and isoFLOP analysis too.

    Of a mixture the member of most weight is checked (`Fit.of_one_law`). Refits take the fit's objective and the pins
    that were asked for. Every check is seeded by itself. A fit to another number of runs than the table has is refused.
    """
    fit = fit.of_one_law
    law = fit.definition
    there = [name for name in law.columns if name in table.frame]
    table = table.only(table.frame[there].notna().all(axis=1).to_numpy(dtype=bool))
    if len(table) != fit.n_runs:
        runs = f"it was fitted to {fit.n_runs} runs, and the study has {len(table)} with the columns of the law"
        return Checks(fit, table, train_flops, RESAMPLES, refused=f"{runs}: fit it again")
    pins = {name: pin.value for name, pin in fit.pinned.items() if pin.source == AS_ASKED}
    refitted: dict[str, Any] = {"resamples": RESAMPLES, "objective": fit.criterion, "pin": pins}
    works = _works(fit, table, LAWS.values(), train_flops, refitted, folds=FOLDS, most_trunks=_MOST_TRUNKS) | {
        "profiles": lambda *_: tuple(profile(fit, table, name) for name in _profiled(fit)),
        "isoflop": lambda *_: _isoflop(fit, table, train_flops),
    }
    found = _attempted(works, lambda: np.random.default_rng(SEED), table.source)
    return Checks(fit, table, train_flops, RESAMPLES, **found)


def _with_errors(fit: Fit, table: RunTable) -> Fit:
    """The fit with draws of a seed of their own; as it is where its runs cannot be resampled."""
    with contextlib.suppress(InputError):
        if isinstance(fit, Mixture):
            return fit_mixture(table, objective=fit.criterion, resamples=judgement.FOR_ERRORS, seed=SEED)
        return bootstrap(fit, table, judgement.FOR_ERRORS, np.random.default_rng(SEED))
    return fit


def _judged(
    law: str, found: Mapping[str, Any], works: Mapping[str, _Work], progress: Progress = silent
) -> dict[str, Judgement]:
    """The judgement of every check that could be made, from repeats of its work."""
    judges: dict[str, Callable[[list[Any]], Judgement]] = {
        "roll_out": judgement.of_roll_out,
        "experts_left_out": judgement.of_experts_left_out,
        "comparison": lambda repeats: judgement.of_comparison(law, repeats),
        "sensitivity": lambda repeats: judgement.of_sensitivity(repeats[0]),
        "residuals": lambda repeats: Judgement(None, repeats[0].verdict()),
    }
    seeds = {"sensitivity": judgement.SEEDS[:1], "residuals": judgement.SEEDS[:1]}
    judged: dict[str, Judgement] = {}
    possible = [name for name in judges if name in found]
    for number, name in enumerate(possible):
        watched = part(progress, number / len(possible), (number + 1) / len(possible))
        try:
            repeats = [works[name](np.random.default_rng(seed), watched) for seed in seeds.get(name, judgement.SEEDS)]
        except InputError as error:
            judged[name] = Judgement(None, f"{_TITLES[name]}: {error}")
        else:
            judged[name] = judges[name](repeats)
    return judged


def _works(
    fit: Fit,
    table: RunTable,
    laws: Iterable[Law],
    train_flops: float | None,
    refitted: Mapping[str, Any],
    *,
    keep_trunks: bool = False,
    folds: int = 10,
    most_trunks: int = 10,
) -> dict[str, _Work]:
    """The checks that a verdict is about, by name, each a function of its random numbers."""
    law, objective = fit.definition, refitted["objective"]
    made: dict[str, Fit] = {}
    if isinstance(fit, Mixture):
        refitted = {**refitted, "fitted": of_mixture(fit, objective)}
        made = {fit.law: fit, **{member.name: member for member in fit.members}}
    settings: dict[str, Any] = {"train_flops": train_flops, "objective": objective, "made": made}
    return {
        "roll_out": lambda rng, progress: roll_out(
            table, law, rng=rng, keep_trunks=keep_trunks, progress=progress, **refitted
        ),
        "experts_left_out": lambda rng, progress: leave_one_expert_count_out(
            table, law, rng=rng, progress=progress, **refitted
        ),
        "comparison": lambda rng, progress: compare_laws(
            table, laws, rng=rng, folds=folds, progress=progress, **settings
        ),
        "sensitivity": lambda rng, progress: sensitivity(
            fit, table, rng, train_flops=train_flops, most=most_trunks, progress=progress
        ),
        "residuals": lambda *_: diagnose(fit, table),
    }


def _attempted(
    works: Mapping[str, _Work],
    generator: Callable[[], np.random.Generator],
    source: str,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What each check found, and under `reasons` why the others could not be made."""
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for number, (name, work) in enumerate(works.items()):
        watched = part(progress, number / len(works), (number + 1) / len(works))
        try:
            found[name] = work(generator(), watched)
        except InputError as error:  # a check that these runs do not allow must not prevent the others
            reasons[name] = str(error).removeprefix(f"{source}: ")
    return found | {"reasons": reasons}


def _profiled(fit: Fit) -> list[str]:
    """The free exponents of N and D and the free floor; the first free parameters of a law without these."""
    return (exponents_and_floor(fit) or list(fit.free))[:MOST_PROFILES]


def _isoflop(fit: Fit, table: RunTable, train_flops: float) -> tuple[Isoflop, ...]:
    """The isoFLOP analysis of every E with at least three compute budgets of four sizes."""
    every = valleys(table)
    sizes = table.column(every.n_column)
    isoflops = []
    for e in every.experts:
        of_e = every.of(e)
        full = [valley for valley in of_e.valleys if len(np.unique(sizes[valley.rows])) >= FEWEST_SIZES]
        if len(full) < FEWEST_BUDGETS:
            continue
        line, reason, deviation = None, "", None
        try:
            line = frontier(of_e)
        except InputError as error:
            reason = str(error).removeprefix(f"{table.source}: ")
        if line is not None:
            with contextlib.suppress(InputError):  # the law is no surface over N and C
                deviation = bias(fit, of_e, train_flops)
        isoflops.append(Isoflop(e, of_e, line, reason, deviation))
    return tuple(isoflops)
