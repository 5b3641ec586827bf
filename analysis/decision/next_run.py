"""The next run: the one more training run that would do most for a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.decision import value_of_information
from analysis.decision.optima import UNANSWERED_LIMIT, expected_regret, unanswered
from analysis.decision.size_search import SearchSpace, anything_fits, least_loss
from analysis.fitting.fit import Fit
from analysis.laws import Law
from scaling.arrays import Array

_COMPUTE = (1.0, 3.0)  # budgets tried, in units of the largest run so far
_SIZE = (0.5, 1.0, 2.0)  # around the size of least loss at that budget


@dataclass(frozen=True)
class NextRun:
    """A proposed run and why. `regret_before` and `regret_after` are expected regrets, shares of the cost.

    They are those of the expert count one would choose (`_chosen`), means over the draws in which it can answer; None
    where the reason is another than the draws disagreeing.
    """

    n_experts: int
    n_active: float
    tokens: float
    train_flops: float
    reason: str
    regret_before: float | None = None
    regret_after: float | None = None


def propose_next_run(
    fit: Fit, experts: Sequence[int], best: int, train_flops: float, regrets: Array | None, unsure: bool
) -> NextRun | None:
    """The run that would help an undecided answer most; None where the fit cannot say (no draws, no run's compute) or
    none does.

    * The draws disagree too much (`unsure`; `regrets` is (draws, E)): candidates are every E compared, at one and
      three times the largest run's compute, at half, one and two times the size of least loss. For each, its loss is
      simulated from draw after draw with the fit's noise, the draws are reweighted by how well they predicted it, and
      an E is chosen again: the candidate that leaves the least regret wins (`information`).
      Where the E chosen cannot answer in more than 5 % of the draws, the candidate that settles most often whether it
      can wins, and of several the one that leaves the least regret.
    * They agree at an edge of the E studied: a run beyond that edge, at the largest compute so far.
    * They agree beyond the largest run: a run of `best` at three times the largest compute.
    """
    largest = fit.largest_train_flops
    if largest is None or regrets is None:
        return None
    if unsure:
        return _most_informative(fit, experts, regrets, largest)
    beyond = beyond_edge(fit, best)
    if beyond is not None:
        size, tokens = _optimal(fit, best, largest)
        return NextRun(
            beyond, size, tokens, largest, f"the answer is at an edge of the E studied: run E = {beyond} beside it"
        )
    if train_flops > largest:
        compute = min(_COMPUTE[-1] * largest, train_flops)
        size, tokens = _optimal(fit, best, compute)
        return NextRun(best, size, tokens, compute, "the answer lies beyond the largest run: run one nearer to it")
    return None


def beyond_edge(fit: Fit, best: int) -> int | None:
    """Twice the largest E studied or half the smallest, where `best` is at that edge or beyond; never below 1."""
    if not fit.definition.uses_experts or not fit.experts:
        return None
    if best >= fit.experts[-1]:
        return 2 * best
    lowest = fit.experts[0]
    return max(1, best // 2) if best < lowest or (best == lowest and best > 1) else None


def _most_informative(fit: Fit, experts: Sequence[int], regrets: Array, largest: float) -> NextRun | None:
    """The candidate that leaves the least regret, or settles best whether any answer exists; None where none helps."""
    before, missed = (float(value[0]) for value in _chosen(regrets, np.ones((1, len(regrets)))))
    noise = value_of_information.run_noise(fit).deviation
    proposals: list[tuple[float, NextRun]] = []
    for n_experts in experts:
        for compute in (factor * largest for factor in _COMPUTE):
            centre, _ = _optimal(fit, n_experts, compute)
            for size in (factor * centre for factor in _SIZE):
                tokens = compute / (6.0 * size)
                predicted = _predictions(fit, n_experts, size, tokens)[: len(regrets)]
                after, unsettled = _after(predicted, regrets, noise)
                proposals.append((unsettled, NextRun(n_experts, size, tokens, compute, "", before, after)))
    doubted = missed > UNANSWERED_LIMIT
    unsettled, chosen = min(
        proposals,
        key=lambda one: (one[0] if doubted else 0.0, one[1].regret_after or 0.0, one[1].train_flops),
    )
    reason = f"of {len(proposals)} candidate runs it leaves the least expected regret"
    if not doubted and (chosen.regret_after or 0.0) >= before:
        return None  # one run changes no choice; `scaling sweep suggest` looks for several
    if doubted:
        reason = (
            f"of {len(proposals)} candidate runs it settles best whether any size of the E chosen meets the loss: that "
            f"stays open after {unsettled:.0%} of its outcomes"
        )
    return replace(chosen, reason=reason)


def _after(predicted: Array, regrets: Array, noise: float) -> tuple[float, float]:
    """Expected regret of the E chosen once the run's loss is known, and how often it stays open whether it can answer.

    Both averaged over what the loss may turn out to be; open means that more than 5 % of the draws say it cannot and
    more than 5 % that it can. Every candidate meets the same noise, so that they differ by what they tell alone.
    """
    weights = value_of_information.outcome_weights(predicted[:, None], np.array([[noise**2]]), np.random.default_rng(0))
    regret, missed = _chosen(regrets, weights)
    unsettled = (missed > UNANSWERED_LIMIT) & (missed < 1.0 - UNANSWERED_LIMIT)
    return float(regret.mean()), float(unsettled.mean())


def _chosen(regrets: Array, weights: Array) -> tuple[Array, Array]:
    """Expected regret and unanswered share of the E one would choose under each row of weights (cases, draws).

    That of least expected regret among those that can answer in all but 5 % of the draws; where there is none, that
    which can answer in most.
    """
    mean, missed = expected_regret(regrets, weights), unanswered(regrets, weights)
    allowed = missed <= np.maximum(UNANSWERED_LIMIT, missed.min(axis=1, keepdims=True))
    pick = np.where(allowed, np.nan_to_num(mean, nan=np.inf), np.inf).argmin(axis=1)
    cases = np.arange(len(pick))
    return np.nan_to_num(mean[cases, pick]), missed[cases, pick]


def _optimal(fit: Fit, n_experts: int, compute: float) -> tuple[float, float]:
    found = least_loss(_space(fit, n_experts), np.array([compute]))
    return float(found.n_active[0]), float(found.tokens[0])


def _predictions(fit: Fit, n_experts: int, size: float, tokens: float) -> Array:
    """ln loss of one model under every draw."""
    space = _space(fit, n_experts)
    law: Law = fit.definition
    columns = space.columns(space.sizes(np.array([size])), np.array([tokens]))
    return law.log_loss(fit.parameter_draws(), columns)[:, 0]


def _space(fit: Fit, n_experts: int) -> SearchSpace:
    return SearchSpace(fit.definition, fit.params, n_experts, fit.family, anything_fits, fit.settings)
