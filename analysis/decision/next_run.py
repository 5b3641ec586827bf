"""The next run: the one more training run that would do most for a decision."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.decision.optima import UNANSWERED_LIMIT, expected_regret
from analysis.decision.size_search import SearchSpace, least_loss
from analysis.decision.value_of_information import (
    LEAST_GAIN,
    after_outcomes,
    outcome_weights,
    regret_of_choice,
    run_noise,
)
from analysis.fitting.fit import Fit
from analysis.fitting.studied import plausible_ratios
from scaling.arrays import Array
from scaling.serving.families import ArchitectureFamily

_COMPUTE = (1.0, 3.0)  # budgets tried, in units of the largest run so far
_SIZE = (0.5, 1.0, 2.0)  # around the size of least loss at that budget


@dataclass(frozen=True)
class NextRun:
    """A proposed run and why; its tokens per parameter are plausible (`analysis.fitting.studied.plausible_ratios`).

    `regret_before` is the expected regret of the E recommended, as the verdict has it (`Choice.regret`);
    `regret_after` that of the E that will be chosen, over the losses that the run may have. Shares of the cost, None
    where the draws agree.
    """

    n_experts: int
    n_active: float
    tokens: float
    train_flops: float
    reason: str
    regret_before: float | None = None
    regret_after: float | None = None


def run_towards(
    fit: Fit, best: int, n_active: float, tokens: float, lineage: ArchitectureFamily | None = None
) -> NextRun | None:
    """The run that would help an undecided answer, E = `best` of such a size on so many tokens, most where the draws
    agree.

    At an edge of the E studied: a run beyond that edge, at the largest compute so far, of the size of least loss.
    Beyond the largest run: one of `best` at three times the largest compute, at most the answer's, with as many tokens
    per parameter as the answer has. None elsewhere, and where the fit knows no run's compute. `lineage` gives the
    counts where the fit has no family.
    """
    largest, beyond, train_flops = fit.largest_train_flops, beyond_edge(fit, best), 6.0 * n_active * tokens
    if largest is None:
        return None
    if beyond is not None:
        reason = f"the answer is at an edge of the E studied: run E = {beyond} beside it"
        return NextRun(beyond, *_optimal(fit, best, largest, lineage), largest, reason)
    if train_flops > largest:
        compute = min(_COMPUTE[-1] * largest, train_flops)
        size = _plausible(fit, n_active * float(np.sqrt(compute / train_flops)), compute)
        reason = "the answer lies beyond the largest run: run one nearer to it"
        return NextRun(best, size, compute / (6.0 * size), compute, reason)
    return None


def beyond_edge(fit: Fit, best: int) -> int | None:
    """Twice the largest E studied or half the smallest, where `best` is at that edge or beyond; never below 1."""
    if not fit.definition.uses_experts or not fit.experts:
        return None
    if best >= fit.experts[-1]:
        return 2 * best
    lowest = fit.experts[0]
    return max(1, best // 2) if best < lowest or (best == lowest and best > 1) else None


def most_informative_run(
    fit: Fit, experts: Sequence[int], regrets: Array, best: int, lineage: ArchitectureFamily | None = None
) -> NextRun | None:
    """The run that would help most where the draws disagree on E = `best`; None where no run's compute is known, and
    where none takes a hundredth off the expected regret.

    `regrets` (draws, E) is of `experts`. Candidates are every E compared, at one and three times the largest run's
    compute, at half, one and two times the size of least loss, as far as tokens per parameter are plausible. The loss
    of each is simulated from draw after draw with the fit's noise, the draws are reweighted by how well they predicted
    it, and an E is chosen again (`value_of_information`). The candidate that leaves the least regret wins; where the E
    chosen cannot answer in more than 5 % of the draws, the one that settles most often whether it can, and of several
    the one that leaves the least regret.
    """
    largest = fit.largest_train_flops
    if largest is None:
        return None
    now = float(expected_regret(regrets)[list(experts).index(best)])
    least, unanswered = (float(value[0]) for value in regret_of_choice(regrets))
    noise = run_noise(fit).deviation
    proposals: list[tuple[float, float, NextRun]] = []
    for n_experts, compute in itertools.product(experts, (factor * largest for factor in _COMPUTE)):
        centre, _ = _optimal(fit, n_experts, compute, lineage)
        for size in sorted({_plausible(fit, factor * centre, compute) for factor in _SIZE}):
            tokens = compute / (6.0 * size)
            predicted = _predictions(fit, n_experts, size, tokens, lineage)[: len(regrets)]
            after, unsettled = regret_after_run(predicted, regrets, noise)
            before = None if np.isnan(now) else now
            proposals.append((unsettled, after, NextRun(n_experts, size, tokens, compute, "", before, after)))
    doubted = unanswered > UNANSWERED_LIMIT
    unsettled, after, run = min(proposals, key=lambda p: (p[0] if doubted else 0.0, p[1], p[2].train_flops))
    if not doubted and after >= (1.0 - LEAST_GAIN) * least:
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

    Every candidate meets the same noise, so that they differ by their predictions alone.
    """
    weights = outcome_weights(predicted[:, None], np.array([[noise**2]]), np.random.default_rng(0))
    after = after_outcomes(regrets, weights)
    return after.regret, after.unsettled


def _plausible(fit: Fit, n_active: float, compute: float) -> float:
    """The size nearest to one at which so much compute buys a plausible number of tokens per parameter."""
    few, many = plausible_ratios(fit)
    return float(np.clip(n_active, np.sqrt(compute / (6.0 * many)), np.sqrt(compute / (6.0 * few))))


def _optimal(fit: Fit, n_experts: int, compute: float, lineage: ArchitectureFamily | None) -> tuple[float, float]:
    """Size and tokens of least loss at so much compute, as far as tokens per parameter are plausible."""
    optimum = least_loss(SearchSpace(fit, n_experts, fit.params, lineage=lineage), np.array([compute]))
    size = _plausible(fit, float(optimum.n_active[0]), compute)
    return size, compute / (6.0 * size)


def _predictions(
    fit: Fit, n_experts: int, size: float, tokens: float, lineage: ArchitectureFamily | None = None
) -> Array:
    """ln loss of one model under every draw."""
    space = SearchSpace(fit, n_experts, fit.params, lineage=lineage)
    columns = space.columns(space.sizes(np.array([size])), np.array([tokens]))
    return fit.definition.log_loss(fit.parameter_draws(), columns)[:, 0]
