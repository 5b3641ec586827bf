"""What a report asks the fit once more around the stored answer: the best E over a plane, and prices against load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.decision.lifetime_cost import structure
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import with_settings
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT
from analysis.decision.what_if import Plane, plane
from analysis.fitting.fit import Fit
from scaling.errors import InputError
from scaling.serving import replicas as fleet

CELLS, LOADS = 13, 400
_BUDGETS, _VOLUMES = 100.0, 1000.0  # times what was asked, to either side
_FEWEST, _MOST = 0.03, 30.0  # replicas of load, of the smallest and of the largest
_SAME = 1e-9  # relative: prices that differ by less are equal
_PRICES = ("n_experts", "requests_per_month", "usd_per_million")


@dataclass(frozen=True)
class CostCurves:
    """`plane`: the best E over training budgets and tokens served, at the estimate; None, and `without_plane` says why.

    `asked` is where the question lies in it, `most_budget` the budget beyond which nothing counts as decided (None: not
    known). `prices`: USD per million generated tokens of the best model of each E against requests a month, in whole
    replicas; `overtakings`: where another E becomes the cheapest (`after`). Both empty without a device.
    """

    plane: Plane | None = None
    without_plane: str = ""
    asked: tuple[float, float] = (np.nan, np.nan)
    most_budget: float | None = None
    prices: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_PRICES)))
    overtakings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["before", "after", *_PRICES[1:]]))


def explored(fit: Fit, answer: Mapping[str, Any], served_per_trained: float) -> CostCurves:
    """Look around an answer with the fit behind it. A question that serves nothing is put in the middle of the plane at
    `served_per_trained` times the tokens recommended."""
    question = Question.from_json(answer["question"])
    try:
        fit = with_settings(fit, question)
    except InputError as error:  # a fit that is not the one that answered may lack what the question needs
        return CostCurves(without_plane=str(error))
    made = CostCurves()
    if question.budget is None or question.goal == "loss":
        made = replace(made, without_plane="the question does not minimise a cost within a training budget")
    else:
        served = question.served or served_per_trained * answer["recommendation"]["tokens"]
        made = _with_plane(fit, question, answer, (question.budget, served))
    try:
        prices = _prices(fit, question, (answer["recommendation"], *answer["alternatives"]))
    except InputError:  # the fit knows no widths, so nothing can be priced
        return made
    return replace(made, prices=prices, overtakings=overtakings(prices)) if len(prices) else made


def _with_plane(fit: Fit, question: Question, answer: Mapping[str, Any], asked: tuple[float, float]) -> CostCurves:
    choices = (answer["recommendation"], *answer["alternatives"])
    experts = sorted({*(int(choice["n_experts"]) for choice in choices), *answer["unreachable"]})
    budgets, volumes = (
        middle * np.geomspace(1 / reach, reach, CELLS)
        for middle, reach in zip(asked, (_BUDGETS, _VOLUMES), strict=True)
    )
    try:
        found = plane(fit, question, experts, budgets, volumes)
    except InputError as error:
        return CostCurves(without_plane=str(error))
    largest = fit.largest_train_flops
    return CostCurves(found, "", asked, None if largest is None else EXTRAPOLATION_LIMIT * largest)


def _prices(fit: Fit, question: Question, choices: tuple[Mapping[str, Any], ...]) -> pd.DataFrame:
    """The price of a token of each of these models at loads from hardly any to many replicas; rows ascend in load."""
    pricing, task = question.pricing, SizeOptimiser(fit, question)
    if pricing.device is None:
        return pd.DataFrame(columns=list(_PRICES))
    on, service = pricing.rented, pricing.service
    replicas = {}
    for choice in choices:
        e = int(choice["n_experts"])
        sizes = task.space(e, dict(fit.params)).sizes(np.array([choice["n_active"]]))
        found = fleet.replica(structure(sizes), on, service, fleet.layouts(service, e, models=1))
        if np.any(np.asarray(found.batch) >= 1):
            replicas[e] = found
    if not replicas:
        return pd.DataFrame(columns=list(_PRICES))
    full = [_cheapest_when_full(one) for one in replicas.values()]
    ends = service.utilisation * np.array([_FEWEST * min(full), _MOST * max(full)])
    if pricing.demand is not None:
        ends = np.array([min(ends[0], 0.3 * pricing.demand), max(ends[1], 3.0 * pricing.demand)])
    rows = [
        (
            e,
            demand / fleet.demand_of(1.0, service),
            1e6 * float(np.min(fleet.price(one.n_devices, one.output_throughput, on, service, float(demand))[1])),
        )
        for e, one in sorted(replicas.items())
        for demand in np.geomspace(ends[0], ends[1], LOADS)
    ]
    every = pd.DataFrame(rows, columns=list(_PRICES))
    return every[np.isfinite(every["usd_per_million"])]  # a fleet may be too small for the load


def _cheapest_when_full(one: fleet.Replica) -> float:
    """Tokens per second of the replica, of all layouts, that makes most of them on each of its devices."""
    rates = np.ravel(np.asarray(one.output_throughput))
    return float(rates[np.argmax(rates / np.ravel(np.asarray(one.n_devices)))])


def overtakings(prices: pd.DataFrame) -> pd.DataFrame:
    """Where the cheapest E changes as the load rises: columns `before`, `after`, `requests_per_month`,
    `usd_per_million`.

    Loads at which several are equally cheap, as where each of them leaves one device idle, change nothing.
    """
    table = prices.pivot_table(index="requests_per_month", columns="n_experts", values="usd_per_million").fillna(np.inf)
    found: list[tuple[int, int, float, float]] = []
    last: int | None = None
    for load, row in zip(table.index, table.to_numpy(), strict=True):
        cheapest = np.flatnonzero(row <= row.min() * (1 + _SAME))
        if len(cheapest) > 1:
            continue
        now = int(table.columns[cheapest[0]])
        if last is not None and now != last:
            found.append((last, now, float(load), float(row.min())))
        last = now
    return pd.DataFrame(found, columns=["before", "after", *_PRICES[1:]])
