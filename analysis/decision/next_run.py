"""The next run: the one more training run that would do most for a decision."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.decision.optima import UNANSWERED_LIMIT, expected_regret, unanswered_share
from analysis.decision.size_search import SearchSpace, least_loss
from analysis.decision.value_of_information import outcome_weights, run_noise
from analysis.fitting.fit import Fit
from scaling.arrays import Array

_COMPUTE = (1.0, 3.0)  # budgets tried, in units of the largest run so far
_SIZE = (0.5, 1.0, 2.0)  # around the size of least loss at that budget


@dataclass(frozen=True)
class NextRun:
    """A proposed run and why. `regret_before` and `regret_after` are expected regrets, shares of the cost.

    They are those of the E one would choose (`regret_of_choice`), means over the draws in which it can answer; None
    where the draws agree.
    """

    n_experts: int
    n_active: float
    tokens: float
    train_flops: float
    reason: str
    regret_before: float | None = None
    regret_after: float | None = None


def run_towards(fit: Fit, best: int, train_flops: float) -> NextRun | None:
    """The run that would help an undecided answer, E = `best` at `train_flops`, most where the draws agree.

    At an edge of the E studied: a run beyond that edge, at the largest compute so far. Beyond the largest run: a run of
    `best` at three times the largest compute. None elsewhere, and where the fit knows no run's compute.
    """
    largest, beyond = fit.largest_train_flops, beyond_edge(fit, best)
    if largest is None:
        return None
    if beyond is not None:
        reason = f"the answer is at an edge of the E studied: run E = {beyond} beside it"
        return NextRun(beyond, *_optimal(fit, best, largest), largest, reason)
    if train_flops > largest:
        compute = min(_COMPUTE[-1] * largest, train_flops)
        reason = "the answer lies beyond the largest run: run one nearer to it"
        return NextRun(best, *_optimal(fit, best, compute), compute, reason)
    return None


def beyond_edge(fit: Fit, best: int) -> int | None:
    """Twice the largest E studied or half the smallest, where `best` is at that edge or beyond; never below 1."""
    if not fit.definition.uses_experts or not fit.experts:
        return None
    if best >= fit.experts[-1]:
        return 2 * best
    lowest = fit.experts[0]
    return max(1, best // 2) if best < lowest or (best == lowest and best > 1) else None


def most_informative_run(fit: Fit, experts: Sequence[int], regrets: Array) -> NextRun | None:
    """The run that would help most where the draws disagree; None where no run's compute is known, or none helps.

    Candidates are every E compared, at one and three times the largest run's compute, at half, one and two times the
    size of least loss. The loss of each is simulated from draw after draw with the fit's noise, the draws are
    reweighted by how well they predicted it, and an E is chosen again (`value_of_information`). The candidate that
    leaves the least regret wins; where the E chosen cannot answer in more than 5 % of the draws, the one that settles
    most often whether it can, and of several the one that leaves the least regret.
    """
    largest = fit.largest_train_flops
    if largest is None:
        return None
    before, unanswered = (float(value[0]) for value in regret_of_choice(regrets, np.ones((1, len(regrets)))))
    noise = run_noise(fit).deviation
    proposals: list[tuple[float, float, NextRun]] = []
    for n_experts, compute in itertools.product(experts, (factor * largest for factor in _COMPUTE)):
        centre, _ = _optimal(fit, n_experts, compute)
        for size in (factor * centre for factor in _SIZE):
            tokens = compute / (6.0 * size)
            after, unsettled = regret_after_run(
                _predictions(fit, n_experts, size, tokens)[: len(regrets)], regrets, noise
            )
            proposals.append((unsettled, after, NextRun(n_experts, size, tokens, compute, "", before, after)))
    doubted = unanswered > UNANSWERED_LIMIT
    unsettled, after, run = min(proposals, key=lambda p: (p[0] if doubted else 0.0, p[1], p[2].train_flops))
    if not doubted and after >= before:
        return None  # one run changes no choice; `scaling sweep suggest` looks for several
    reason = f"of {len(proposals)} candidate runs it leaves the least expected regret"
    if doubted:
        reason = (
            f"of {len(proposals)} candidate runs it settles best whether any size of the E chosen meets the loss: that "
            f"stays open after {unsettled:.0%} of its outcomes"
        )
    return replace(run, reason=reason)


def regret_after_run(predicted: Array, regrets: Array, noise: float) -> tuple[float, float]:
    """Expected regret of the E chosen once the run's loss is known, and how often it stays open whether it can answer.

    Both averaged over the losses that the run may have; open means that more than 5 % of the draws say it cannot and
    more than 5 % that it can. Every candidate meets the same noise, so that they differ by their predictions alone.
    """
    weights = outcome_weights(predicted[:, None], np.array([[noise**2]]), np.random.default_rng(0))
    regret, unanswered = regret_of_choice(regrets, weights)
    unsettled = (unanswered > UNANSWERED_LIMIT) & (unanswered < 1.0 - UNANSWERED_LIMIT)
    return float(regret.mean()), float(unsettled.mean())


def regret_of_choice(regrets: Array, weights: Array) -> tuple[Array, Array]:
    """Expected regret and unanswered share of the E one would choose under each row of weights (cases, draws).

    That of least expected regret among those that can answer in all but 5 % of the draws; else that which can in most.
    """
    mean, unanswered = expected_regret(regrets, weights), unanswered_share(regrets, weights)
    allowed = unanswered <= np.maximum(UNANSWERED_LIMIT, unanswered.min(axis=1, keepdims=True))
    chosen = np.where(allowed, np.nan_to_num(mean, nan=np.inf), np.inf).argmin(axis=1)
    cases = np.arange(len(chosen))
    return np.nan_to_num(mean[cases, chosen]), unanswered[cases, chosen]


def _optimal(fit: Fit, n_experts: int, compute: float) -> tuple[float, float]:
    """Size and tokens of least loss at so much compute."""
    optimum = least_loss(SearchSpace(fit, n_experts, fit.params), np.array([compute]))
    return float(optimum.n_active[0]), float(optimum.tokens[0])


def _predictions(fit: Fit, n_experts: int, size: float, tokens: float) -> Array:
    """ln loss of one model under every draw."""
    space = SearchSpace(fit, n_experts, fit.params)
    columns = space.columns(space.sizes(np.array([size])), np.array([tokens]))
    return fit.definition.log_loss(fit.parameter_draws(), columns)[:, 0]
