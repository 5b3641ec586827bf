"""What would change the answer: other prices, loads, volumes, data and efficiencies, and where one E overtakes
another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import with_settings
from analysis.decision.recommendation import Recommendation
from analysis.fitting.fit import Fit
from scaling.arrays import Array
from scaling.errors import InputError

_DECADES, _VOLUMES = 4.0, 161  # of volume to either side, and how many are tried between
_LOADS = 17


@dataclass(frozen=True)
class Case:
    """The answer if one thing were otherwise, at the estimate. `n_experts` is None where no E could answer."""

    what: str
    value: str
    n_experts: int | None
    n_active: float | None
    tokens: float | None
    cost: float | None
    changes: bool


@dataclass(frozen=True)
class Crossover:
    """Where one E overtakes another: at `volume` served tokens the best is `before` below and `after` above."""

    volume: float
    before: int
    after: int


@dataclass(frozen=True)
class WhatIf:
    """Cases that were tried, and the volumes served at which the best E changes, between `volumes` (least, largest).

    With a load in requests the volume grows with it, and devices come whole.
    """

    cases: tuple[Case, ...]
    crossovers: tuple[Crossover, ...]
    volumes: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def explore(fit: Fit, question: Question, answer: Recommendation) -> WhatIf:
    """Ask again with one assumption changed at a time, at the fit's estimate, among the E that could answer."""
    experts = sorted({answer.recommendation.n_experts, *(choice.n_experts for choice in answer.alternatives)})
    best = answer.recommendation.n_experts
    fit = with_settings(fit, question)
    cases = [_case(fit, asked, experts, best, what, value) for what, value, asked in _variations(question, answer)]
    found, range_ = crossovers(fit, question, experts) if question.served else ((), None)
    return WhatIf(tuple(cases), found, range_)


def _variations(question: Question, answer: Recommendation) -> Iterator[tuple[str, str, Question]]:
    """What is changed, its value in words, and the question that it makes."""
    service, reached = question.service, question.service.efficiency
    pricing = question.pricing
    for factor, told in ((0.1, "a tenth"), (10.0, "tenfold")):
        if question.requests_per_month is not None:
            yield "requests", told, replace(question, requests_per_month=factor * question.requests_per_month)
        elif question.serve_tokens:
            yield "tokens served", told, replace(question, serve_tokens=factor * question.serve_tokens)
    for factor, told in ((0.5, "half"), (2.0, "double")):
        for name in ("train_flops", "train_usd", "lifetime_cost"):
            if (budget := getattr(question, name)) is not None:
                yield "budget", told, replace(question, **{name: factor * budget})
        if question.memory_gb is not None:
            yield "memory", told, replace(question, memory_gb=factor * question.memory_gb)
        if question.data_tokens is not None:
            yield "data", told, replace(question, data_tokens=factor * question.data_tokens)
        if pricing.device is None:
            continue
        yield "rent of a device", told, replace(question, usd_per_hour=factor * pricing.device.usd_per_hour)
        mfu = min(1.0, factor * pricing.mfu)
        yield "MFU of training", f"{mfu:.0%}", replace(question, mfu=mfu)
        if not question.served:
            continue
        busy = min(1.0, factor * service.utilisation)
        yield "utilisation", f"{busy:.0%}", replace(question, service=replace(service, utilisation=busy))
        for name, what in (("bandwidth_share", "bandwidth reached"), ("flops_share", "FLOP/s reached in serving")):
            share = min(1.0, factor * getattr(reached, name))
            changed = replace(service, efficiency=replace(reached, **{name: share}))
            yield what, f"{share:.0%}", replace(question, service=changed)
    if question.data_tokens is None:
        half = 0.5 * answer.recommendation.tokens
        yield "data", f"{_spoken(half)} tokens, half of what is recommended", replace(question, data_tokens=half)
    if pricing.device is not None and question.served:
        skew = service.skew + 1.0
        yield "skew of the router", f"{skew:g}", replace(question, service=replace(service, skew=skew))


def _spoken(tokens: float) -> str:
    """A number of tokens with a suffix, to three digits."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if tokens >= size:
            return f"{tokens / size:.3g}{suffix}"
    return f"{tokens:.3g}"


def _case(fit: Fit, question: Question, experts: Sequence[int], best: int, what: str, value: str) -> Case:
    task = SizeOptimiser(fit, question)
    try:
        found = task.solve(experts, dict(fit.params), 1)
    except InputError:  # what is changed leaves nothing to choose from
        return Case(what, value, None, None, None, None, True)
    values = {e: float(found.value(e)[0]) for e in experts}
    chosen = min(values, key=lambda e: values[e])
    if not np.isfinite(values[chosen]):
        return Case(what, value, None, None, None, None, True)
    optimum = found.found[chosen]
    cost = float(task.lifetime(chosen, optimum.n_active, optimum.tokens, 1, None)[0])
    return Case(what, value, chosen, float(optimum.n_active[0]), float(optimum.tokens[0]), cost, chosen != best)


def crossovers(
    fit: Fit, question: Question, experts: Sequence[int]
) -> tuple[tuple[Crossover, ...], tuple[float, float]]:
    """The volumes at which the best E changes, four decades to either side of what is served, and those ends.

    Between two volumes tried (12 % apart; a factor 3.2 with a load in requests) the costs of both E are taken as
    straight in logarithms.
    """
    count = _VOLUMES if question.requests_per_month is None else _LOADS
    volumes = question.served * np.logspace(-_DECADES, _DECADES, count)
    values = _values(fit, question, experts, volumes)
    best = np.where(np.isfinite(values.min(axis=1)), values.argmin(axis=1), -1)
    found = []
    for i in np.flatnonzero((best[1:] != best[:-1]) & (best[1:] >= 0) & (best[:-1] >= 0)):
        before, after = best[i], best[i + 1]
        gaps = np.log(values[i : i + 2, after]) - np.log(values[i : i + 2, before])  # above 0, then below
        share = gaps[0] / (gaps[0] - gaps[1]) if np.isfinite(gaps).all() else 0.5
        volume = float(volumes[i] * (volumes[i + 1] / volumes[i]) ** share)
        found.append(Crossover(volume, int(experts[before]), int(experts[after])))
    return tuple(found), (float(volumes[0]), float(volumes[-1]))


def _values(fit: Fit, question: Question, experts: Sequence[int], volumes: Array) -> Array:
    """What is minimised, of every E at every volume (volumes, E)."""
    if question.requests_per_month is None:
        found = SizeOptimiser(fit, question).solve(experts, dict(fit.params), len(volumes), volumes=volumes)
        return np.stack([found.value(e) for e in experts], axis=1)
    per_request = question.served / question.requests_per_month
    rows = []
    for volume in volumes:
        asked = replace(question, requests_per_month=float(volume / per_request))
        found = SizeOptimiser(fit, asked).solve(experts, dict(fit.params), 1)
        rows.append([float(found.value(e)[0]) for e in experts])
    return np.array(rows)


@dataclass(frozen=True)
class Plane:
    """The best E over training budgets (rows) and volumes served (columns); -1 where no E can answer."""

    budgets: Array
    volumes: Array
    best: Array


def plane(fit: Fit, question: Question, experts: Sequence[int], budgets: Array, volumes: Array) -> Plane:
    """The best E at every training budget and volume, at the estimate. Raises InputError for a question without a
    budget."""
    if question.budget is None or question.goal == "loss":
        raise InputError("the plane needs a question that minimises a cost within a training budget")
    fit = with_settings(fit, question)
    grid = np.meshgrid(budgets, volumes, indexing="ij")
    rows = grid[0].size
    found = SizeOptimiser(fit, question).solve(
        experts, dict(fit.params), rows, budgets=grid[0].ravel(), volumes=grid[1].ravel()
    )
    values = np.stack([found.value(e) for e in experts], axis=1)
    best = np.where(np.isfinite(values.min(axis=1)), np.asarray(experts)[values.argmin(axis=1)], -1)
    return Plane(budgets, volumes, best.reshape(grid[0].shape))
