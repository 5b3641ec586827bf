"""Cost curves: what a report asks the fit again around an answer, the best E over a plane and prices against load."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import pandas as pd

from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import with_settings
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT, Choice, Recommendation
from analysis.decision.what_if import Plane, plane
from analysis.fitting.fit import Fit
from scaling.arrays import AsColumns
from scaling.errors import InputError
from scaling.serving.replicas import Replica, demand_of, layouts, price, replica

CELLS, LOADS = 13, 400
SERVED_PER_TRAINED = 10.0
"""Tokens served for each one trained on, where a question does not say."""
_BUDGETS, _VOLUMES = 100.0, 1000.0  # times those of the question, to either side
_FEWEST, _MOST = 0.03, 30.0  # replicas of load, of the smallest and of the largest
_SAME = 1e-9  # relative: prices that differ by less are equal
_PRICES = ["n_experts", "requests_per_month", "usd_per_million"]
_OVERTAKINGS = ["before", "after", *_PRICES[1:]]
Prices = Annotated[pd.DataFrame, AsColumns(tuple(_PRICES))]
Overtakings = Annotated[pd.DataFrame, AsColumns(tuple(_OVERTAKINGS))]


@dataclass(frozen=True)
class CostCurves:
    """`plane`: the best E over training budgets and tokens served, at the estimate; None, and `without_plane` says why.

    `asked` is where the question lies in it, `most_budget` the budget beyond which nothing counts as decided (None: not
    known). Budgets are in USD where the question's is, and the most is what its FLOPs cost of the model recommended.
    `prices`: USD per million generated tokens of the best model of each E against requests a month, in whole replicas;
    `overtakings`: where another E becomes the cheapest (`after`). Both empty without a device.
    """

    plane: Plane | None = None
    without_plane: str = ""
    asked: tuple[float, float] | None = None
    most_budget: float | None = None
    prices: Prices = field(default_factory=lambda: pd.DataFrame(columns=_PRICES))
    overtakings: Overtakings = field(default_factory=lambda: pd.DataFrame(columns=_OVERTAKINGS))


def cost_curves_around(fit: Fit, answer: Recommendation) -> CostCurves:
    """The curves around an answer, from the fit behind it. A question that serves nothing is put in the middle of the
    plane at `SERVED_PER_TRAINED` times the tokens recommended."""
    question = answer.question
    try:
        fit = with_settings(fit, question)
    except InputError as error:  # a fit that is not the one that answered may lack what the question needs
        return CostCurves(without_plane=str(error))
    curves = CostCurves(without_plane="the question does not minimise a cost within a training budget")
    if question.budget is not None and question.goal != "loss":
        served = question.served or SERVED_PER_TRAINED * answer.recommendation.tokens
        curves = _with_plane(fit, question, answer, (question.budget, served))
    try:
        prices = _prices(fit, question, (answer.recommendation, *answer.alternatives))
    except InputError:  # the fit knows no widths, so nothing can be priced
        return curves
    return replace(curves, prices=prices, overtakings=overtakings(prices)) if len(prices) else curves


def _with_plane(fit: Fit, question: Question, answer: Recommendation, centre: tuple[float, float]) -> CostCurves:
    choices = (answer.recommendation, *answer.alternatives)
    experts = sorted({*(choice.n_experts for choice in choices), *answer.unreachable})
    budgets, volumes = (
        middle * np.geomspace(1 / reach, reach, CELLS)
        for middle, reach in zip(centre, (_BUDGETS, _VOLUMES), strict=True)
    )
    try:
        best_experts = plane(fit, question, experts, budgets, volumes)
    except InputError as error:
        return CostCurves(without_plane=str(error))
    largest, best = fit.largest_train_flops, answer.recommendation
    a_flop = best.cost.train / best.train_flops if question.budget_unit == "USD" else 1.0
    return CostCurves(best_experts, "", centre, None if largest is None else EXTRAPOLATION_LIMIT * largest * a_flop)


def _prices(fit: Fit, question: Question, choices: tuple[Choice, ...]) -> pd.DataFrame:
    """The price of a token of each of these models at loads from hardly any to many replicas; rows ascend in load."""
    pricing, optimiser, service = question.pricing, SizeOptimiser(fit, question), question.service
    replicas = {}
    for choice in choices if pricing.device is not None else ():
        e = choice.n_experts
        sizes = pricing.structure(optimiser.sizes(e, choice.n_active))
        of_layouts = replica(sizes, pricing.rented, service, layouts(service, e, models=1))
        if np.any(np.asarray(of_layouts.batch) >= 1):
            replicas[e] = of_layouts
    if not replicas:
        return pd.DataFrame(columns=_PRICES)
    full = [_cheapest_when_full(of_layouts) for of_layouts in replicas.values()]
    ends = service.utilisation * np.array([_FEWEST * min(full), _MOST * max(full)])
    if pricing.demand is not None:
        ends = np.array([min(ends[0], 0.3 * pricing.demand), max(ends[1], 3.0 * pricing.demand)])
    rows = []
    for e, of_layouts in sorted(replicas.items()):
        for demand in np.geomspace(ends[0], ends[1], LOADS).tolist():
            _, usd = price(of_layouts.n_devices, of_layouts.output_throughput, pricing.rented, service, demand)
            rows.append((e, demand / demand_of(1.0, service), 1e6 * float(np.min(usd))))
    prices = pd.DataFrame(rows, columns=_PRICES)
    return prices[np.isfinite(prices["usd_per_million"])]  # a fleet may be too small for the load


def _cheapest_when_full(of_layouts: Replica) -> float:
    """Tokens per second of the replica, of all layouts, that makes most of them on each of its devices."""
    rates = np.ravel(np.asarray(of_layouts.output_throughput))
    return float(rates[np.argmax(rates / np.ravel(np.asarray(of_layouts.n_devices)))])


def overtakings(prices: pd.DataFrame) -> pd.DataFrame:
    """Where the cheapest E changes as the load rises: `before`, `after`, `requests_per_month`, `usd_per_million`.

    Loads at which several are equally cheap, as where each of them leaves one device idle, change nothing.
    """
    table = prices.pivot_table(index="requests_per_month", columns="n_experts", values="usd_per_million").fillna(np.inf)
    least = table.min(axis=1)
    clear = table.le(least * (1 + _SAME), axis=0).sum(axis=1) == 1
    cheapest = table[clear].idxmin(axis=1)
    changes = [
        (before, after, load, least[load])
        for before, after, load in zip(cheapest[:-1], cheapest[1:], cheapest.index[1:], strict=True)
        if after != before
    ]
    return pd.DataFrame(changes, columns=_OVERTAKINGS)
