"""Doubts: what limits a speedup by a law, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from analysis.decision.question import Question
from analysis.decision.recommendation import DRAWS_NEEDED, EXTRAPOLATION_LIMIT
from analysis.fitting.fit import Fit
from analysis.fitting.limits import refused_of_optimum
from analysis.worth.equal_loss import Comparison
from analysis.worth.speedup import Speedup
from scaling.columns import COMPUTE, TOKENS
from scaling.formatting import flops, listed, percent

_RARE = 0.005  # share of the draws without a baseline of that loss, from which on it is said


def beyond_the_runs(fit: Fit, train_flops: float | None) -> bool:
    """Whether so much compute is more than 30 times that of the largest run."""
    largest = fit.largest_train_flops
    return largest is not None and train_flops is not None and train_flops > EXTRAPOLATION_LIMIT * largest * (1 + 1e-9)


def doubts_of_law(compared: Comparison, found: Sequence[Speedup]) -> list[str]:
    """What to know before speedups by a law are used."""
    fit = compared.fit
    doubts = [*doubts_of_draws(fit), *_studied(compared, found), *_extrapolated(fit, found), *_refused(compared, found)]
    rare = [one for one in found if (one.unreachable or 0.0) >= _RARE]
    for spent in dict.fromkeys(one.train_flops for one in rare):
        shares = (f"E = {one.n_experts} in {percent(one.unreachable)}" for one in rare if one.train_flops == spent)
        doubts.append(
            f"at {flops(spent)} FLOPs no baseline reaches the loss of {listed(shares)} of the draws: an interval has "
            "no upper end where they are many"
        )
    doubts += [f"at {flops(one.train_flops)} FLOPs E = {one.n_experts}: {one.reason}" for one in found if one.reason]
    return [*doubts, *(f"the fit: {warning}" for warning in fit.warnings)]


def doubts_of_draws(fit: Fit) -> list[str]:
    """Whether the fit can say how sure a speedup is."""
    if not fit.n_draws:
        return ["the fit has no draws: there are no intervals, and how sure a speedup is cannot be said"]
    if fit.n_draws < DRAWS_NEEDED:
        return [f"{fit.n_draws} draws are too few for intervals ({DRAWS_NEEDED} required)"]
    return []


def _studied(compared: Comparison, found: Sequence[Speedup]) -> list[str]:
    """E that the runs behind the law did not have."""
    studied, base = compared.fit.experts, compared.baseline_experts
    if not studied or not compared.fit.definition.uses_experts:
        return []
    unseen = sorted({one.n_experts for one in found if one.n_experts is not None} - {*studied})
    doubts = [f"E = {listed(unseen)} was not studied; studied were {listed(studied)}"] if unseen else []
    if base not in studied:
        doubts.append(
            f"the baseline, E = {base}, was not studied; `baseline_experts` names another ({listed(studied)})"
        )
    return doubts


def _extrapolated(fit: Fit, found: Iterable[Speedup]) -> list[str]:
    """Budgets far beyond the largest run, the baseline's among them, and columns outside the fitted ranges."""
    largest, doubts = fit.largest_train_flops, []
    spent = {"a model": [one.train_flops for one in found]}
    spent["its baseline"] = [one.baseline_flops for one in found if one.baseline_flops is not None]
    if largest is not None:
        doubts += [
            f"{what} takes up to {max(values) / largest:.3g} times the compute of the largest run (limit "
            f"{EXTRAPOLATION_LIMIT:g}): {flops(max(values))} FLOPs"
            for what, values in spent.items()
            if values and beyond_the_runs(fit, max(values))
        ]
    ranges: dict[str, list[float]] = {"n_active": [], TOKENS: [], COMPUTE: [*spent["a model"], *spent["its baseline"]]}
    for one in found:
        ranges["n_active"] += [size for size in (one.n_active, one.baseline_n_active) if size is not None]
        ranges[TOKENS] += [tokens for tokens in (one.tokens, one.baseline_tokens) if tokens is not None]
    outside = [
        message
        for name, values in ranges.items()
        for value in dict.fromkeys((min(values), max(values)) if values else ())
        for message in fit.outside_domain({name: value})
    ]
    return doubts + [f"extrapolation: {message}" for message in dict.fromkeys(outside)]


def _refused(compared: Comparison, found: Iterable[Speedup]) -> list[str]:
    """Where the formula gives a number that is no answer (`analysis.fitting.limits`), for a model or its baseline."""
    reasons: dict[str, None] = {}
    for one in found:
        for e, n_active, tokens, spent in (
            (one.n_experts, one.n_active, one.tokens, one.train_flops),
            (compared.baseline_experts, one.baseline_n_active, one.baseline_tokens, one.baseline_flops),
        ):
            if e is None or n_active is None or tokens is None or spent is None or compared.tokens is not None:
                continue
            space = compared.space(e)
            columns = space.columns(space.sizes(np.array([n_active])), np.array([tokens]))
            for reason in refused_of_optimum(compared.fit, columns, spent):
                reasons.setdefault(f"no answer at E = {e}, {flops(spent)} FLOPs: {reason}")
    return list(reasons)


def assumptions_of(question: Question, *, of_runs: bool = False) -> list[str]:
    """What a ratio of compute, time and money holds."""
    speed = question.pricing.training_speed
    lines = [
        "compute is 6 N_active D FLOPs of both models; the ratio is that at equal loss",
        f"time is device time of training alone: {speed.source}",
    ]
    if question.served:
        lines.append("money is training and serving the same two models on the device that was named")
    else:
        lines.append("money is training alone, at one rent: its ratio is that of time")
    if of_runs:
        lines.append("a run's time follows from its size and E by that speed: what else its method costs is not in it")
    return lines
