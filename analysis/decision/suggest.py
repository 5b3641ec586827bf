"""Suggestions: the set of new cells that reduces the expected regret of a decision most per FLOP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from analysis.decision.next_run import NextRun, beyond_edge
from analysis.decision.optima import expected_regret
from analysis.decision.question import Question
from analysis.decision.recommend import candidates as compared
from analysis.decision.recommend import recommend_with_regrets, some_draws, with_settings
from analysis.decision.recommendation import REGRET_LIMIT, Recommendation
from analysis.decision.value_of_information import (
    ENOUGH_DRAWS,
    LEAST_GAIN,
    AfterOutcomes,
    Noise,
    RegretBelief,
    after_outcomes,
    outcome_weights,
    regret_of_choice,
    run_noise,
)
from analysis.decision.verdict import disagreement_of_draws
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from scaling.arrays import Array, Integers
from scaling.errors import InputError
from scaling.progress import Progress, part, silent

LARGEST_STEP = 3.0  # largest new run, in units of the largest so far
MOST_CELLS = 24
_LADDER = 0.5  # of budgets below the one proposed, where draws agree: a trunk's shorter branches are cheap
_SUBSTITUTE = 0.5  # of the compute of a run named: a cell below it does not take its place


@dataclass(frozen=True)
class Candidates:
    """Cells that could be run, as arrays over cells.

    `columns`: what the law is evaluated on. `shape`: a number for each (E, width): cells of one shape can be branched
    from one trunk. `tokens`, `cooldown`: the budget and that part of it which is a branch's own. `flops_per_token`: of
    training. `n_active`: what `NextRun` counts sizes by.
    """

    columns: Mapping[str, Array]
    shape: Integers
    n_experts: Integers
    n_active: Array
    tokens: Array
    cooldown: Array
    flops_per_token: Array

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def train_flops(self) -> Array:
        """Of each cell alone."""
        return self.flops_per_token * self.tokens

    def of_experts(self, experts: Sequence[int]) -> Candidates:
        """The same with every cell of another E out of reach; indices stay."""
        within = np.isin(self.n_experts, experts)
        return replace(self, flops_per_token=np.where(within, self.flops_per_token, np.inf))

    def added_flops(self, cells: Integers, trunk: list[int]) -> Array:
        """FLOPs that each of some cells adds to a trunk of its shape that has the cells `trunk`.

        A trunk costs its longest budget and the cooldowns of the others (design.md, "One trunk, many token budgets").
        """
        longest = max(trunk, key=lambda cell: float(self.tokens[cell]))
        beyond = self.tokens[cells] - self.tokens[longest]
        own = np.where(beyond > 0, beyond + self.cooldown[longest], self.cooldown[cells])
        return np.asarray(self.flops_per_token[cells] * own)


@dataclass(frozen=True)
class Pick:
    """One cell to run: its index among the candidates, the trunk of its shape that it is a budget of (0, 1, ...: a seed
    each), the FLOPs it adds, the expected regret before and after it (None where the draws agree), and why."""

    cell: int
    trunk: int
    train_flops: float
    regret_before: float | None
    regret_after: float | None
    reason: str


@dataclass(frozen=True)
class Suggestion:
    """What to run next and what that is expected to do.

    `regret_before` is the expected regret of the E recommended, a share of the cost, as the recommendation states it
    (`Recommendation.expected_regret`); `regret_after` that of the E that will be chosen; None where the draws agree.
    `method`: how the last was estimated. `unsettled`: after which share of the outcomes it stays open whether the E
    chosen can answer; None where no draw says that it cannot, or too few draws count.
    """

    picks: tuple[Pick, ...]
    train_flops: float
    regret_before: float | None
    regret_after: float | None
    method: str
    unsettled: float | None
    n_experts: int
    undecided_because: tuple[str, ...]


def suggest(
    fit: Fit,
    question: Question,
    candidates: Candidates,
    train_flops: float,
    rng: np.random.Generator,
    trunks: Integers | None = None,
    speeds: Speeds | None = None,
    progress: Progress = silent,
) -> Suggestion:
    """The cells, of `candidates` and within `train_flops` together, that do most for an undecided recommendation.

    Where the draws disagree: `choose`, until the regret is below the limit of `decided` or the budget is used. Where
    they agree at an edge of the E studied, or on a model beyond the largest run: the cell nearest to the run that
    `recommend` names, and its shorter budgets. `trunks` names the trunk of every run fitted (`run_noise`), `speeds` are
    draws of the device's speed, as `recommend` took them.
    Raises InputError where the fit has no draws or no compute, where the answer is decided, and where none helps.
    """
    if not fit.draws:
        raise InputError(
            f"the fit of {fit.law} has no draws, so nothing says what a run would change: fit with `bootstrap` 1000"
        )
    answer, regrets = recommend_with_regrets(fit, question, speeds)
    progress(0.2)
    best, next_run = answer.recommendation.n_experts, answer.next_run
    if answer.decided:
        raise InputError(
            f"the recommendation is decided, E = {best} at an expected regret of {answer.expected_regret:.2%}: no run "
            "is needed"
        )
    candidates = _in_reach(candidates, fit, answer, train_flops)
    undecided = f"undecided because {'; '.join(answer.undecided_because)}"
    if regrets is None or not disagreement_of_draws(answer.recommendation):
        if next_run is None:
            raise InputError(f"no run of these shapes would decide it: {undecided}")
        suggestion = _towards(next_run, candidates, train_flops)
    else:
        fit = with_settings(fit, question)
        predicted, noise = fit.definition.log_loss(some_draws(fit), candidates.columns), run_noise(fit, trunks)
        chosen = compared(fit, question).index(best)
        rest = part(progress, 0.2, 1.0)
        suggestion = choose(regrets, predicted, candidates, noise, train_flops, rng, chosen=chosen, progress=rest)
        if not suggestion.picks:
            now = "" if answer.expected_regret is None else f" of {answer.expected_regret:.2%}"
            raise InputError(
                f"no set of {len(candidates)} cells within {train_flops:.3g} FLOPs lowers the expected regret{now} "
                f"by more than a hundredth of it; give a larger `flops`. It is {undecided}"
            )
    return replace(suggestion, n_experts=best, undecided_because=answer.undecided_because)


def _in_reach(candidates: Candidates, fit: Fit, answer: Recommendation, train_flops: float) -> Candidates:
    """The candidates of the E that can answer, or lie next to the edge. Raises InputError where none is affordable."""
    experts = [choice.n_experts for choice in (answer.recommendation, *answer.alternatives)]
    beyond = beyond_edge(fit, answer.recommendation.n_experts)
    candidates = candidates.of_experts(experts if beyond is None else [*experts, beyond])
    if not np.any(candidates.train_flops <= train_flops):
        least = f"{candidates.train_flops.min():.3g}" if len(candidates) else "more than any"
        raise InputError(
            f"no new cell fits into {train_flops:.3g} FLOPs: the least takes {least}; give a larger `flops`"
        )
    return candidates


def choose(
    regrets: Array,
    predicted: Array,
    candidates: Candidates,
    noise: Noise,
    train_flops: float,
    rng: np.random.Generator,
    enough: float = REGRET_LIMIT,
    chosen: int | None = None,
    progress: Progress = silent,
) -> Suggestion:
    """Cells chosen one after another, each by the expected regret that it takes off per FLOP it adds.

    `regrets` (draws, E) is of the E compared, `chosen` the one that is recommended (None: that of least expected
    regret), `predicted` (draws, cells) the ln loss of the candidates. A cell is a new trunk, or one more budget of a
    trunk chosen before, whose noise it shares in part. One run alone may change no choice where several would, so a new
    trunk is worth what as many repeats of it as are best are worth, on average (KG(*), Frazier and Powell 2010,
    Decision Analysis 7:378). What is lowered is the risk, the expected regret with draws that have no answer as 20 %
    (`value_of_information.risks`). Ends when it is at most `enough` (where it was more), when nothing affordable is
    left, when 24 cells are chosen, or when no cell lowers it by a hundredth. Regrets that are reported are those of the
    verdict, of which the same share is left as of the risk until the draws can be reweighted.
    """
    plan = _Plan(RegretBelief.of_draws(regrets, predicted, noise), [], train_flops)
    risk = plan.belief.risk
    # Perfect knowledge leaves no regret: a linear update of skewed regrets may promise more, so gains are shares of it.
    perfect = max(plan.belief.perfect(rng), np.finfo(float).tiny)
    target = enough if risk > enough else 0.0
    least = float(regret_of_choice(regrets)[0][0])  # without a run, were the E of least regret chosen
    before = now = least if chosen is None else float(np.nan_to_num(expected_regret(regrets)[chosen]))
    picks: list[Pick] = []
    left = 1.0  # the share of the risk
    while len(picks) < MOST_CELLS and left * risk > target:
        progress(max(len(picks) / MOST_CELLS, 1.0 - left))
        addition = _best_addition(plan, candidates, LEAST_GAIN * perfect, rng)
        if addition is None:
            break
        cell, trunk, cost = addition
        how = "one more budget of a trunk above: it" if trunk < len(plan.trunks) else "of the cells affordable then it"
        plan = plan.add(cell, trunk, cost, rng)
        left = float(np.clip(1.0 - (risk - plan.belief.risk) / perfect, 0.0, left))
        after = left * least
        reason = (
            f"{how} takes most off the expected regret per FLOP: {now:.2%} to {after:.2%} for {cost:.3g} FLOPs, with E "
            f"= {candidates.n_experts[cell]}"
        )
        shapes = candidates.shape[[members[0] for members in plan.trunks]]
        number = int(np.sum(shapes[:trunk] == candidates.shape[cell]))
        picks.append(Pick(cell, number, cost, now, after, reason))
        now = after
    method, unsettled = "linear updates over the draws", None
    if picks:
        reweighted = _reweighted(regrets, predicted, noise, plan.trunks, rng)
        count = f"{reweighted.effective:.0f} of {len(regrets)}"
        if reweighted.effective >= ENOUGH_DRAWS:
            now, method = reweighted.regret, f"reweighted draws, {count} effective"
            if np.isnan(regrets).any():  # that an E cannot answer may make one choose another of more regret
                unsettled = reweighted.unsettled
            else:
                now = min(now, before)
        else:
            method += f": reweighted, {count} would count, {ENOUGH_DRAWS:.0f} are needed"
    return Suggestion(tuple(picks), train_flops - plan.left, before, now, method, unsettled, 0, ())


@dataclass(frozen=True)
class _Plan:
    """What was chosen so far: the belief once it is run, the cells of every trunk, and the FLOPs that are left."""

    belief: RegretBelief
    trunks: list[list[int]]
    left: float

    def add(self, cell: int, trunk: int, cost: float, rng: np.random.Generator) -> _Plan:
        """With one more cell, on a trunk that was begun or on the next."""
        begun = trunk < len(self.trunks)
        belief = self.belief if begun else self.belief.begin_trunk()
        trunks = [list(cells) for cells in (self.trunks if begun else [*self.trunks, []])]
        trunks[trunk].append(cell)
        return _Plan(belief.observe(cell, trunk, rng), trunks, self.left - cost)


class _Additions(NamedTuple):
    """Cells that can be added: how each moves the expected risks, its trunk, FLOPs of one run, repeats of it."""

    shifts: Array
    cells: Integers
    trunks: Integers
    flops: Array
    repeats: Array


def _new_trunks(plan: _Plan, candidates: Candidates) -> list[_Additions]:
    """Every affordable cell as a new trunk, repeated once, twice, four times, ... as far as cells and FLOPs allow."""
    most = MOST_CELLS - sum(map(len, plan.trunks))
    cells = np.flatnonzero(candidates.train_flops <= plan.left)
    additions, repeats = [], 1.0
    while cells.size:
        flops, times = candidates.train_flops[cells], np.full(len(cells), repeats)
        trunks = np.full(len(cells), len(plan.trunks))
        additions.append(_Additions(plan.belief.shifts(cells, times), cells, trunks, flops, times))
        repeats *= 2.0
        cells = cells[(repeats * flops <= plan.left) & (repeats <= most)]
    return additions


def _branches(plan: _Plan, candidates: Candidates) -> list[_Additions]:
    """Every affordable cell of the shape of a trunk chosen before that is not on it, as one more budget of it."""
    additions = []
    for trunk, members in enumerate(plan.trunks):
        cells = np.flatnonzero(candidates.shape == candidates.shape[members[0]])
        cells = cells[~np.isin(cells, members)]
        flops = candidates.added_flops(cells, members)
        cells, flops = cells[flops <= plan.left], flops[flops <= plan.left]
        if cells.size:
            shifts = plan.belief.shifts_on(cells, trunk)
            additions.append(_Additions(shifts, cells, np.full(len(cells), trunk), flops, np.ones(len(cells))))
    return additions


def _best_addition(
    plan: _Plan, candidates: Candidates, least: float, rng: np.random.Generator
) -> tuple[int, int, float] | None:
    """The cell, its trunk and its FLOPs that take most off per FLOP; None where nothing takes off `least` in all."""
    groups = [*_new_trunks(plan, candidates), *_branches(plan, candidates)]
    if not groups:
        return None
    additions = _Additions(*map(np.concatenate, zip(*groups, strict=True)))
    gains = plan.belief.risk - plan.belief.risk_after(additions.shifts, rng)
    if gains.max() < least:
        return None
    per_flop = gains / (additions.flops * additions.repeats)
    best = int(np.argmax(np.where(gains >= 0.1 * least, per_flop, -np.inf)))
    return int(additions.cells[best]), int(additions.trunks[best]), float(additions.flops[best])


def _reweighted(
    regrets: Array, predicted: Array, noise: Noise, trunks: list[list[int]], rng: np.random.Generator
) -> AfterOutcomes:
    """What is expected after all runs by reweighted draws."""
    cells = np.concatenate(trunks)
    trunk_of = np.repeat(np.arange(len(trunks)), [len(members) for members in trunks])
    covariance = noise.of_trunk * (trunk_of[:, None] == trunk_of) + noise.own * np.eye(len(cells))
    return after_outcomes(regrets, outcome_weights(predicted[:, cells], covariance, rng))


def _towards(run: NextRun, candidates: Candidates, train_flops: float) -> Suggestion:
    """The affordable cell nearest to a run, and below it budgets of half, a quarter, ... of its tokens on its trunk.

    Cells of less than half the run's compute do not take its place. Raises InputError where no cell is left.
    """
    cost = candidates.train_flops
    near = np.flatnonzero(
        (candidates.n_experts == run.n_experts) & (cost <= train_flops) & (cost >= _SUBSTITUTE * run.train_flops)
    )
    if not near.size:
        raise InputError(
            f"{run.reason}; no cell of E = {run.n_experts} with about {run.train_flops:.3g} FLOPs is a candidate that "
            f"fits into {train_flops:.3g}: give a larger `flops`"
        )
    distance = np.log(candidates.n_active[near] / run.n_active) ** 2 + np.log(candidates.tokens[near] / run.tokens) ** 2
    first = int(near[distance.argmin()])
    trunk, left = [first], train_flops - float(cost[first])
    picks = [Pick(first, 0, train_flops - left, None, None, run.reason)]
    reason = "a shorter budget of that trunk: it costs its cooldown alone"
    same_shape = np.flatnonzero(candidates.shape == candidates.shape[first])
    for cell in same_shape[np.argsort(-candidates.tokens[same_shape])]:
        added = float(candidates.added_flops(np.array([cell]), trunk)[0])
        if candidates.tokens[cell] <= _LADDER * candidates.tokens[trunk[-1]] * (1 + 1e-9) and added <= left:
            trunk.append(int(cell))
            left -= added
            picks.append(Pick(int(cell), 0, added, None, None, reason))
    return Suggestion(tuple(picks), sum(pick.train_flops for pick in picks), None, None, "the draws agree", None, 0, ())
