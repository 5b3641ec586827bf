"""The gate: whether a method beats a baseline, run by run, over its runs together, and beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fitting.fit import Fit
from analysis.tables.runs import RunTable
from analysis.worth.candidate import Against
from analysis.worth.judged import KINDS, Judged, judge
from analysis.worth.prices import Prices
from analysis.worth.speedup import Growth, Interval, Sample, Speedup, factor, factors, growth_of, span, times
from scaling.errors import InputError
from scaling.formatting import flops, percent

SURE = 0.95
_EDGE = 1e-6  # relative
_ONE_BUDGET = "the candidates were all run at about {budget} FLOPs, which gives no trend to extrapolate by"


@dataclass(frozen=True)
class CandidateRun:
    """One run of the method: what it is worth at its own shape and against the baseline's frontier (`matched`), each
    None where the baseline never has its loss. `interval` is that of the one that counts (`Gate.against`), with the
    law's draws and run-to-run noise."""

    n_experts: int
    n_active: float
    tokens: float
    train_flops: float
    loss: float
    own_shape: float | None
    frontier: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Gate:
    """Whether a method beats the baseline.

    `alone` is the mean over the runs, weighted by their noise, at the geometric mean of their compute; `at` the line of
    ln speedup in ln C through them at the budgets asked for, `extrapolated` where these lie beyond the runs; `growth`
    its slope, None where the runs have one budget. `probability` is the share of the draws in which the speedup of
    `alone` exceeds 1; `verdict` says in words what `decided` says: better, worse, or open. `noise` is the deviation of
    ln loss of a run, `excess` how many times larger than that the runs scatter about their line (1: no more).
    """

    against: Against
    runs: tuple[CandidateRun, ...]
    alone: Speedup
    at: tuple[Speedup, ...]
    growth: Growth | None
    probability: float | None
    time_probability: float | None
    decided: str
    verdict: str
    noise: float
    excess: float
    left_out: int


def gate(fit: Fit, table: RunTable, budgets: Sequence[float], prices: Prices, against: Against = "own shape") -> Gate:
    """Test the runs of a method against the law of a baseline (E = `reference_experts` of the question).

    Each draw of the law meets one of the noise of the runs: the deviation of the fit's own runs or of the candidates'
    seeds, whichever is more, part of it common to a trunk (`value_of_information.run_noise`); times by how much the
    candidates scatter more about their line than that, as the Particle Data Group scales errors. Raises InputError
    where the fit is no baseline, or the baseline has the loss of none of the runs.
    """
    judged = judge(fit, table, prices, against)
    kept = judged.kept
    if not kept.any():
        raise InputError(
            f"{table.source}: the baseline reaches the loss of none of the runs, whatever it is given: is it the same "
            "held-out text and the same unit of loss?"
        )
    spent = judged.runs.train_flops[kept]
    alone = _speedup(judged, judged.centre, judged.compute.mean, judged.time.mean)
    probability = judged.compute.mean.above(0.0)
    decided = "open" if probability is None else _decided(probability)
    at = tuple(_at(judged, budget) for budget in budgets)
    growth = None
    if judged.compute.slope is not None and judged.time.slope is not None:
        ends = float(spent.min()), float(spent.max())
        growth = growth_of(judged.runs.one_experts, ends, judged.compute.slope, judged.time.slope)
    return Gate(
        against=against,
        runs=tuple(_run(judged, number) for number in range(len(judged.runs))),
        alone=alone,
        at=at,
        growth=growth,
        probability=probability,
        time_probability=judged.time.mean.above(0.0),
        decided=decided,
        verdict=_verdict(alone, at, decided),
        noise=judged.noise,
        excess=judged.excess,
        left_out=int(np.sum(~kept)),
    )


def _decided(probability: float) -> str:
    return "better" if probability >= SURE else "worse" if probability <= 1.0 - SURE else "open"


def _at(judged: Judged, budget: float) -> Speedup:
    """The line at a budget; beyond the runs it is extrapolated, and without a trend there is nothing to extrapolate."""
    spent = judged.runs.train_flops[judged.kept]
    low, high = float(spent.min()), float(spent.max())
    inside = low * (1 - _EDGE) <= budget <= high * (1 + _EDGE)
    distance = float(np.log(budget / judged.centre))
    compute, time = judged.compute, judged.time
    if compute.slope is None or time.slope is None:
        if not inside:
            reason = _ONE_BUDGET.format(budget=flops(judged.centre))
            return Speedup(judged.runs.one_experts, budget, None, reason=reason, extrapolated=True)
        return _speedup(judged, budget, compute.mean, time.mean)
    there = compute.mean.along(compute.slope, distance), time.mean.along(time.slope, distance)
    return _speedup(judged, budget, *there, extrapolated=not inside)


def _speedup(
    judged: Judged, train_flops: float, compute: Sample, time: Sample, *, extrapolated: bool = False
) -> Speedup:
    return Speedup(
        n_experts=judged.runs.one_experts,
        train_flops=train_flops,
        compute_speedup=factor(compute.value),
        compute_interval=factors(compute.interval),
        time_speedup=factor(time.value),
        time_interval=factors(time.interval),
        cost_speedup=factor(time.value),
        cost_interval=factors(time.interval),
        above_one=compute.above(0.0),
        time_above_one=time.above(0.0),
        extrapolated=extrapolated,
    )


def _run(judged: Judged, number: int) -> CandidateRun:
    runs, one = judged.runs, judged.each[number]
    own, frontier = (Sample(judged.estimates[kind][number]).value for kind in KINDS)
    return CandidateRun(
        n_experts=int(runs.experts[number]),
        n_active=float(runs.n_active[number]),
        tokens=float(runs.tokens[number]),
        train_flops=float(runs.train_flops[number]),
        loss=float(np.exp(runs.log_loss[number])),
        own_shape=factor(own),
        frontier=factor(frontier),
        interval=None if one.value is None else factors(one.interval),
    )


def _verdict(alone: Speedup, at: Sequence[Speedup], decided: str) -> str:
    """The finding in words, with its probabilities."""
    worth = alone.sentence("the method")
    if alone.above_one is None:
        return f"{worth} at {flops(alone.train_flops)} FLOPs; how sure that is cannot be said"
    judgement = {"better": "it beats", "worse": "it does not beat", "open": "open whether it beats"}[decided]
    text = (
        f"{worth} at {flops(alone.train_flops)} FLOPs: {judgement} the baseline (probability that its speedup exceeds "
        f"1: {percent(alone.above_one)} in compute, {percent(alone.time_above_one)} in time)"
    )
    for one in at:
        how = "extrapolated" if one.extrapolated else "by the line through the runs"
        text += f"; at {flops(one.train_flops)} FLOPs "
        text += (
            one.reason
            if one.compute_speedup is None
            else (f"{times(one.compute_speedup)}{span(one.compute_interval)}, {percent(one.above_one)} ({how})")
        )
    return text
