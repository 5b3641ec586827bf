"""Suggestions: the set of new cells that reduces the expected regret of a decision most per FLOP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from analysis.decision import value_of_information
from analysis.decision.next_run import NextRun, beyond_edge
from analysis.decision.question import Question
from analysis.decision.recommend import answer, some_draws, with_settings
from analysis.decision.recommendation import REGRET_LIMIT
from analysis.decision.value_of_information import Noise, RegretBelief
from analysis.fitting.fit import Fit
from scaling.arrays import Array, Integers
from scaling.errors import InputError

LARGEST_STEP = 3.0  # largest new run, in units of the largest so far
MOST_CELLS = 24
_LEAST_GAIN = 0.01  # of the regret before: by less than that a set of cells does not help
_LADDER = 0.5  # of budgets below the one proposed, where draws agree: a trunk's shorter branches are cheap
_SUBSTITUTE = 0.5  # of the compute of a run named: a cell below it does not take its place


@dataclass(frozen=True)
class Candidates:
    """Cells that could be run, as arrays over cells.

    columns:  what the law is evaluated on.   shape: a number for each (E, width): cells of one shape can be branched
    from one trunk.   tokens, cooldown: the budget and that part of it which is a branch's own.   flops_per_token: of
    training. n_active: what `NextRun` counts sizes by.
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

    def added_flops(self, cells: Integers, held: list[int]) -> Array:
        """FLOPs that each of some cells adds to a trunk of its shape that has the cells `held`.

        A trunk costs its longest budget and the cooldowns of the others (design.md, "One trunk, many token budgets").
        """
        longest = max(held, key=lambda cell: float(self.tokens[cell]))
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

    Regrets are shares of the cost, of the E that would be chosen, as `recommend` counts them but for draws in which an
    E cannot answer: those count as 20 %. None where the draws agree. `method`: how the regret after was had
    (`information`).
    """

    picks: tuple[Pick, ...]
    train_flops: float
    regret_before: float | None
    regret_after: float | None
    method: str
    n_experts: int
    undecided_because: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def suggest(
    fit: Fit,
    question: Question,
    candidates: Candidates,
    train_flops: float,
    rng: np.random.Generator,
    trunks: Integers | None = None,
) -> Suggestion:
    """The cells, of `candidates` and within `train_flops` together, that do most for an undecided recommendation.

    Where the draws disagree: `choose`, until the regret is below the limit of `decided` or the budget is used. Where
    they agree at an edge of the E studied, or on a model beyond the largest run: the cell nearest to the run that
    `recommend` names, and its shorter budgets. `trunks` names the trunk of every run fitted (`information.run_noise`).
    Raises InputError where the fit has no draws or none that are known the compute of, where the answer is decided, and
    where no candidate helps.
    """
    if not fit.draws:
        raise InputError(
            f"the fit of {fit.law} has no draws, so nothing says what a run would change: fit with --bootstrap 1000"
        )
    found, regrets = answer(fit, question)
    best = found.recommendation.n_experts
    if found.decided:
        raise InputError(
            f"the recommendation is decided, E = {best} at an expected regret of {found.expected_regret:.2%}: no run "
            "is needed"
        )
    told = f"undecided because {'; '.join(found.undecided_because)}"
    experts = [choice.n_experts for choice in (found.recommendation, *found.alternatives)]
    allowed = [*experts, beyond_edge(fit, best)]
    candidates = candidates.of_experts([e for e in allowed if e is not None])
    affordable = np.flatnonzero(candidates.train_flops <= train_flops)
    if not affordable.size:
        dear = f"{candidates.train_flops.min():.3g}" if len(candidates) else "more than any"
        raise InputError(
            f"no new cell fits into {train_flops:.3g} FLOPs: the least takes {dear}; give a larger --flops"
        )
    next_run = found.next_run
    if next_run is None:
        raise InputError(f"no run of these shapes would decide it: {told}")
    if next_run.regret_before is None or regrets is None:
        picks = _towards(next_run, candidates, train_flops)
        if not picks:
            raise InputError(
                f"{next_run.reason}; no cell of E = {next_run.n_experts} with about {next_run.train_flops:.3g} FLOPs "
                f"is a candidate that fits into {train_flops:.3g}: give a larger --flops"
            )
        spent = sum(pick.train_flops for pick in picks)
        return Suggestion(picks, spent, None, None, "the draws agree", best, found.undecided_because)
    known = with_settings(fit, question)
    predicted = known.definition.log_loss(some_draws(known), candidates.columns)
    made = choose(regrets, predicted, candidates, value_of_information.run_noise(fit, trunks), train_flops, rng)
    if not made.picks:
        raise InputError(
            f"no set of these {len(candidates)} cells within {train_flops:.3g} FLOPs lowers the expected regret of "
            f"{made.regret_before:.2%} by more than a hundredth of it; give a larger --flops. It is {told}"
        )
    return replace(made, n_experts=best, undecided_because=found.undecided_because)


def choose(
    regrets: Array,
    predicted: Array,
    candidates: Candidates,
    noise: Noise,
    train_flops: float,
    rng: np.random.Generator,
    enough: float = REGRET_LIMIT,
) -> Suggestion:
    """Cells chosen one after another, each by the expected regret that it takes off per FLOP it adds.

    `regrets` (draws, E) is of the E compared, `predicted` (draws, cells) the ln loss of the candidates. A cell is a new
    trunk, or one more budget of a trunk chosen before, whose noise it shares in part. One run alone may change no
    choice where several would, so a new trunk is worth what as many repeats of it as are best are worth, on average
    (KG(*), Frazier and Powell 2010, Decision Analysis 7:378). Ends when the regret is at most `enough` (where it was
    more), when nothing affordable is left, when 24 cells are chosen, or when what is left lowers the regret by less
    than a hundredth.
    """
    belief = RegretBelief.of_draws(regrets, predicted, noise)
    before = now = belief.risk
    # Knowing all takes off all: straight lines on skewed regrets may promise more, so their gains are shares of that.
    all_of_it = max(belief.perfect(rng), np.finfo(float).tiny)
    target = enough if before > enough else 0.0
    left, picks, held = train_flops, list[Pick](), list[list[int]]()
    while len(picks) < MOST_CELLS and now > target:
        found = _best(belief, candidates, held, left, MOST_CELLS - len(picks), _LEAST_GAIN * all_of_it, rng)
        if found is None:
            break
        cell, trunk, cost = found
        if trunk == len(held):
            belief, held = belief.begin_trunk(), [*held, []]
        belief = belief.observe(cell, trunk, rng)
        held[trunk].append(cell)
        same_shape = [
            number for number, cells in enumerate(held) if candidates.shape[cells[0]] == candidates.shape[cell]
        ]
        after = float(np.clip(before * (1.0 - (before - belief.risk) / all_of_it), 0.0, now))
        reason = _reason(candidates, cell, now, after, cost, branched=len(held[trunk]) > 1)
        picks.append(Pick(cell, same_shape.index(trunk), cost, now, after, reason))
        left, now = left - cost, after
    now, method = _checked(regrets, predicted, noise, held, now, before, rng)
    return Suggestion(tuple(picks), train_flops - left, before, now, method, 0, ())


def _best(
    belief: RegretBelief,
    candidates: Candidates,
    held: list[list[int]],
    left: float,
    most: int,
    least: float,
    rng: np.random.Generator,
) -> tuple[int, int, float] | None:
    """The cell, its trunk and its FLOPs that take most off per FLOP; None where nothing takes off `least` in all.

    `left` FLOPs and `most` cells may be spent, `held` are the cells of every trunk begun.
    """
    cells = np.flatnonzero(candidates.train_flops <= left)
    groups: list[tuple[Array, Integers, int, Array, Array]] = []  # shifts, cells, trunk, FLOPs of one, times
    costs = candidates.train_flops[cells]
    times = np.ones(len(cells))
    while cells.size:
        groups.append((belief.shifts(cells, times), cells, len(held), costs, times))
        times = 2.0 * times
        fits = (times * costs <= left) & (times <= most)
        cells, costs, times = cells[fits], costs[fits], times[fits]
    for number, members in enumerate(held):
        fellows = np.flatnonzero(candidates.shape == candidates.shape[members[0]])
        fellows = fellows[~np.isin(fellows, members)]
        added = candidates.added_flops(fellows, members)
        fellows, added = fellows[added <= left], added[added <= left]
        if fellows.size:
            groups.append((belief.shifts_on(fellows, number), fellows, number, added, np.ones(len(fellows))))
    if not groups:
        return None
    gains = belief.risk - belief.risk_after(np.concatenate([group[0] for group in groups]), rng)
    which = np.concatenate([group[1] for group in groups])
    trunks = np.concatenate([np.full(len(group[1]), group[2]) for group in groups])
    each, repeats = (np.concatenate([group[i] for group in groups]) for i in (3, 4))
    if gains.max() < least:
        return None
    chosen = int(np.argmax(np.where(gains >= 0.1 * least, gains / (each * repeats), -np.inf)))
    return int(which[chosen]), int(trunks[chosen]), float(each[chosen])


def _checked(
    regrets: Array,
    predicted: Array,
    noise: Noise,
    held: list[list[int]],
    now: float,
    before: float,
    rng: np.random.Generator,
) -> tuple[float, str]:
    """The regret after all runs by reweighted draws where enough of them count, else as it was had; and how."""
    runs = [(cell, trunk) for trunk, cells in enumerate(held) for cell in cells]
    if not runs:
        return now, "straight lines on the draws"
    trunks = np.array([trunk for _, trunk in runs])
    covariance = noise.of_trunk * (trunks[:, None] == trunks[None, :]) + noise.own * np.eye(len(runs))
    weights = value_of_information.outcome_weights(predicted[:, [cell for cell, _ in runs]], covariance, rng)
    after, effective = value_of_information.weighed(regrets, weights)
    if effective >= value_of_information.ENOUGH_DRAWS:
        return min(after, before), f"reweighted draws, {effective:.0f} of {len(regrets)} effective"
    return now, (
        f"straight lines on the draws: reweighted, {effective:.0f} of {len(regrets)} would count, "
        f"{value_of_information.ENOUGH_DRAWS:.0f} are needed"
    )


def _towards(run: NextRun, candidates: Candidates, train_flops: float) -> tuple[Pick, ...]:
    """The affordable cell nearest to a run, and below it budgets of half, a quarter, ... of its tokens on its trunk.

    Cells of less than half the run's compute, which would not take its place, do not count.
    """
    cost = candidates.train_flops
    near = np.flatnonzero(
        (candidates.n_experts == run.n_experts) & (cost <= train_flops) & (cost >= _SUBSTITUTE * run.train_flops)
    )
    if not near.size:
        return ()
    off = np.log(candidates.n_active[near] / run.n_active) ** 2 + np.log(candidates.tokens[near] / run.tokens) ** 2
    first = int(near[off.argmin()])
    held, left = [first], train_flops - float(candidates.train_flops[first])
    picks = [Pick(first, 0, train_flops - left, None, None, run.reason)]
    below = np.flatnonzero(candidates.shape == candidates.shape[first])
    for cell in below[np.argsort(-candidates.tokens[below])]:
        added = float(candidates.added_flops(np.array([cell]), held)[0])
        if candidates.tokens[cell] <= _LADDER * candidates.tokens[held[-1]] * (1 + 1e-9) and added <= left:
            held.append(int(cell))
            left -= added
            picks.append(
                Pick(int(cell), 0, added, None, None, "a shorter budget of that trunk: it costs its cooldown alone")
            )
    return tuple(picks)


def _reason(candidates: Candidates, cell: int, before: float, after: float, cost: float, branched: bool) -> str:
    """Why a cell was chosen, in numbers."""
    how = "one more budget of a trunk above: it" if branched else "of the cells affordable then it"
    return (
        f"{how} takes most off the expected regret per FLOP: {before:.2%} to {after:.2%} for {cost:.3g} FLOPs, with E "
        f"= {candidates.n_experts[cell]}"
    )
