"""What would change the answer: other prices, loads, volumes, data and efficiencies; where one E overtakes another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.decision.optima import SizeOptimiser, best_columns
from analysis.decision.question import Question
from analysis.decision.recommend import with_settings
from analysis.decision.recommendation import Recommendation, Served
from analysis.decision.reference import ReferenceCase, reference_cases
from analysis.fitting.fit import Fit
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import si
from scaling.serving.precision import served_in
from scaling.serving.training_speed import MfuByExperts, TrainingSpeed
from scaling.serving.training_work import LEAST

_DECADES, _VOLUMES = 4.0, 161  # of volume to either side, and how many are tried between
_LOADS = 17
_SCALED = {
    "train_flops": "budget",
    "train_usd": "budget",
    "lifetime_cost": "budget",
    "memory_gb": "memory",
    "data_tokens": "data",
}


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

    With a load in requests the volume grows with it, and devices come whole. `references` are other losses that could
    be kept, the one asked first; empty where none is kept.
    """

    cases: tuple[Case, ...]
    crossovers: tuple[Crossover, ...]
    volumes: tuple[float, float] | None
    references: tuple[ReferenceCase, ...] = ()


def explore(fit: Fit, question: Question, answer: Recommendation) -> WhatIf:
    """Ask again with one assumption changed at a time, at the fit's estimate, among the E that could answer."""
    best = answer.best_at_estimate
    experts = sorted(choice.n_experts for choice in (answer.recommendation, *answer.alternatives))
    fit = with_settings(fit, question)
    asked = SizeOptimiser(fit, question)
    sizes = {choice.n_experts: choice.n_active for choice in (answer.recommendation, *answer.alternatives)}
    cases = [_case(asked, changed, sizes, best, what, value) for what, value, changed in _variations(question, answer)]
    overtakings, range_ = _crossovers(asked, experts) if question.served else ((), None)
    return WhatIf(tuple(cases), overtakings, range_, reference_cases(asked, sizes, best))


def _variations(question: Question, answer: Recommendation) -> Iterator[tuple[str, str, Question]]:
    """What is changed, its value in words, and the question with that change."""
    pricing, half = question.pricing, 0.5 * answer.recommendation.tokens
    for factor, words in ((0.1, "a tenth"), (10.0, "tenfold")):
        if question.requests_per_month is not None:
            yield "requests", words, replace(question, requests_per_month=factor * question.requests_per_month)
        elif question.serve_tokens:
            yield "tokens served", words, replace(question, serve_tokens=factor * question.serve_tokens)
    for factor, words in ((0.5, "half"), (2.0, "double")):
        for name, what in _SCALED.items():
            if (given := getattr(question, name)) is not None:
                yield what, words, replace(question, **{name: factor * given})
        if pricing.device is not None:
            yield "rent of a device", words, replace(question, usd_per_hour=factor * pricing.device.usd_per_hour)
            if question.served:
                yield from _speed_variations(question, factor)
    if pricing.device is not None:
        yield from _training_variations(question)
    if question.data_tokens is None:
        yield "data", f"{si(half)} tokens, half of what is recommended", replace(question, data_tokens=half)
    if pricing.device is not None and question.served:
        yield from _serving_variations(question, answer.recommendation.served)
        skew = question.service.skew + 1.0
        yield "skew of the router", f"{skew:g}", replace(question, service=replace(question.service, skew=skew))


def _training_variations(question: Question) -> Iterator[tuple[str, str, Question]]:
    """The same of what training reaches: half and one and a half of the share of the peak, and one share for all E; of
    a law that was fitted, a standard deviation of what it makes of a configuration that it has not seen."""
    speed = question.pricing.training_speed
    varied: list[tuple[str, TrainingSpeed]] = []
    if isinstance(speed, MfuByExperts):
        for factor in (0.5, 1.5):
            mfu = min(1.0, factor * speed.mfu)
            varied.append((f"{mfu:.0%} at E = {speed.at:g}", replace(speed, mfu=mfu)))
        if speed.slope:
            varied.append((f"{speed.mfu:.0%} at every E", replace(speed, slope=0.0, slope_spread=0.0)))
    else:
        for times in (np.exp(speed.scatter), np.exp(-speed.scatter)):
            coefficients = np.maximum(times * np.array(speed.coefficients), LEAST)
            words = f"{abs(times - 1):.0%} {'slower' if times > 1 else 'faster'}"
            varied.append((words, replace(speed, coefficients=tuple(coefficients.tolist()))))
    for value, otherwise in varied:
        what = "MFU of training" if isinstance(otherwise, MfuByExperts) else "training speed"
        yield what, value, replace(question, training_speed=otherwise, mfu=None)


def _serving_variations(question: Question, served: Served | None) -> Iterator[tuple[str, str, Question]]:
    """The same of batch, devices, number formats and where prompts are read."""
    service, device = question.service, question.pricing.rented
    changes: list[tuple[str, str, dict[str, Any]]] = []
    if served is not None and served.batch > 1:
        changes.append(("batch", f"at most {si(served.batch // 2)}", {"max_batch": served.batch // 2}))
    if served is not None and served.n_devices > 1:
        fewer = served.n_devices // 2
        changes.append(("devices of a replica", f"at most {fewer}", {"max_devices": fewer}))
    where = "with decode" if service.apart else "apart"
    changes.append(("prompts read", where, {"apart": not service.apart}))
    for what, value, changed in changes:
        yield what, value, replace(question, service=replace(service, **changed))
    other = {2.0: "fp8", 1.0: "bf16"}
    weights, cache = other.get(service.bytes_per_weight), other.get(service.bytes_per_kv)
    if weights is not None and (weights == "bf16" or "fp8" in dict(device.peaks)):
        formats = {"weights": weights, "experts": None if service.bytes_per_expert is None else weights}
        yield "weights", f"in {weights}", replace(question, service=served_in(service, device, **formats))
    if cache is not None:
        yield "keys and values", f"in {cache}", replace(question, service=served_in(service, device, kv=cache))


def _speed_variations(question: Question, factor: float) -> Iterator[tuple[str, str, Question]]:
    """The same of how busy replicas are, and of what they reach of the device."""
    service, engine = question.service, question.service.engine
    busy = min(1.0, factor * service.utilisation)
    yield "utilisation", f"{busy:.0%}", replace(question, service=replace(service, utilisation=busy))
    if engine is not None:  # a standard deviation of what it makes of a model that it was not fitted to
        times = float(np.exp(engine.scatter if factor < 1 else -engine.scatter))
        otherwise = replace(engine, coefficients=tuple(times * each for each in engine.coefficients))
        words = f"{abs(times - 1):.0%} {'slower' if times > 1 else 'faster'}"
        yield "engine", words, replace(question, service=replace(service, engine=otherwise))
        return
    for name, what in (("bandwidth_share", "bandwidth reached"), ("flops_share", "FLOP/s reached in serving")):
        share = min(1.0, factor * getattr(service.efficiency, name))
        efficiency = replace(service.efficiency, **{name: share})
        yield what, f"{share:.0%}", replace(question, service=replace(service, efficiency=efficiency))


def _case(
    asked: SizeOptimiser, question: Question, sizes: Mapping[int, float], best: int, what: str, value: str
) -> Case:
    """The answer to a changed question, searched near the optima of the one that was asked (`estimate_near`)."""
    optimiser = asked.asked(question)
    try:
        optima = optimiser.estimate_near(dict(sorted(sizes.items())))
        chosen = optima.ranked()[0]
    except (InputError, IndexError):  # the change leaves nothing to choose from
        return Case(what, value, None, None, None, None, True)
    optimum = optima.by_experts[chosen]
    cost = float(optimiser.lifetime(chosen, optimum)[0])
    return Case(what, value, chosen, float(optimum.n_active[0]), float(optimum.tokens[0]), cost, chosen != best)


def crossovers(
    fit: Fit, question: Question, experts: Sequence[int]
) -> tuple[tuple[Crossover, ...], tuple[float, float]]:
    """The volumes at which the best E changes, four decades to either side of what is served, and those ends.

    Between two volumes tried (12 % apart; a factor 3.2 with a load in requests) log cost is taken as linear in log
    volume.
    """
    return _crossovers(SizeOptimiser(fit, question), experts)


def _crossovers(asked: SizeOptimiser, experts: Sequence[int]) -> tuple[tuple[Crossover, ...], tuple[float, float]]:
    question = asked.question
    count = _VOLUMES if question.requests_per_month is None else _LOADS
    volumes = question.served * np.logspace(-_DECADES, _DECADES, count)
    values = _values(asked, experts, volumes)
    best = best_columns(values)
    overtakings = []
    for i in np.flatnonzero((best[1:] != best[:-1]) & (best[1:] >= 0) & (best[:-1] >= 0)):
        before, after = best[i], best[i + 1]
        gaps = np.log(values[i : i + 2, after]) - np.log(values[i : i + 2, before])  # above 0, then below
        share = gaps[0] / (gaps[0] - gaps[1]) if np.isfinite(gaps).all() else 0.5
        volume = float(volumes[i] * (volumes[i + 1] / volumes[i]) ** share)
        overtakings.append(Crossover(volume, int(experts[before]), int(experts[after])))
    return tuple(overtakings), (float(volumes[0]), float(volumes[-1]))


def _values(asked: SizeOptimiser, experts: Sequence[int], volumes: Array) -> Array:
    """What is minimised, of every E at every volume (volumes, E)."""
    question = asked.question
    if question.requests_per_month is None:
        return asked.solve(experts, asked.fit.params, len(volumes), volumes=volumes).values
    per_request = question.served / question.requests_per_month
    loads = [replace(question, requests_per_month=float(volume / per_request)) for volume in volumes]
    return np.concatenate([asked.asked(load).estimate(experts).values for load in loads])


@dataclass(frozen=True)
class Plane:
    """The best E over training budgets (rows; USD where the question's is) and volumes served (columns); -1 where no E
    can answer."""

    budgets: Array
    volumes: Array
    best: Array


def plane(fit: Fit, question: Question, experts: Sequence[int], budgets: Array, volumes: Array) -> Plane:
    """The best E at every training budget and volume, at the estimate. Raises InputError where a question has none."""
    if question.budget is None or question.goal == "loss":
        raise InputError("the plane needs a question that minimises a cost within a training budget")
    fit = with_settings(fit, question)
    rows, columns = (grid.ravel() for grid in np.meshgrid(budgets, volumes, indexing="ij"))
    optima = SizeOptimiser(fit, question).solve(experts, fit.params, len(rows), budgets=rows, volumes=columns)
    best = best_columns(optima.values)
    best_experts = np.where(best >= 0, np.asarray(experts)[best], -1)
    return Plane(budgets, volumes, best_experts.reshape(len(budgets), len(volumes)))
