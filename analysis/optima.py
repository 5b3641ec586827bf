"""Optima: the best model of every expert count under every row of parameters, and what choosing each would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.dual import Array
from analysis.fit import Fit
from analysis.pricing import Pricing
from analysis.search import Optimum, Space, least_cost, least_loss

MOST_REGRET = 10.0  # of one draw: where an expert count can only just answer, its cost is without bound
UNANSWERED_LIMIT = 0.05  # share of the draws in which an expert count that is chosen may be unable to answer
_LEVELS = 12  # losses at which the trade-off is listed


@dataclass(frozen=True)
class Task:
    """What is minimised over N_active and D.

    The lifetime cost at `target_loss`; with `train_flops` alone, the loss at that budget; with something to serve too,
    the lifetime cost within the budget at the loss of the best model with E = `reference_experts` at it.
    """

    fit: Fit
    pricing: Pricing
    train_flops: float | None
    target_loss: float | None
    reference_experts: int

    @property
    def loss_is_minimised(self) -> bool:
        """Whether the value of an optimum is a loss; otherwise it is a cost."""
        return self.train_flops is not None and not self.pricing.serve_tokens

    def space(self, n_experts: int, params: Mapping[str, Any]) -> Space:
        """The models of one E that may be chosen, under some parameters."""
        return Space(self.fit.definition, params, n_experts, self.fit.family, self.pricing.fits, self.fit.settings)

    def solve(self, experts: Sequence[int], params: Mapping[str, Any], rows: int) -> Optima:
        """The optimum of every E under each of `rows` rows of parameters."""
        spaces = {e: self.space(e, params) for e in {*experts, self.reference_experts}}
        budget = None if self.train_flops is None else np.full(rows, self.train_flops)
        if budget is not None and self.loss_is_minimised:
            found = {e: least_loss(spaces[e], budget) for e in experts}
            return Optima(tuple(experts), found, {e: _compute_slope(spaces[e], found[e]) for e in experts})
        if budget is None:
            target = np.full(rows, self.target_loss)
        else:
            target = least_loss(spaces[self.reference_experts], budget).value
        return Optima(
            tuple(experts), {e: least_cost(spaces[e], target, self.pricing.total, budget) for e in experts}, {}
        )

    def trade_off(self, experts: Sequence[int], kept: float) -> tuple[TradeOff, ...]:
        """Loss against lifetime cost of every E around the loss `kept`, at the estimate, within the budget if any.

        Empty where a training budget alone was asked about: all costs are equal then.
        """
        if self.loss_is_minimised:
            return ()
        spaces = {e: self.space(e, dict(self.fit.params)) for e in experts}
        if self.train_flops is None:
            levels, budget = kept * np.linspace(0.97, 1.03, _LEVELS + 1), None
        else:
            lowest = min(float(least_loss(spaces[e], np.array([self.train_flops])).value[0]) for e in experts)
            highest = kept + max(kept - lowest, 0.01 * kept)
            levels = np.unique(np.append(np.linspace(lowest * (1 + 1e-9), highest, _LEVELS), kept))
            budget = np.full(levels.shape, self.train_flops)
        found = {e: least_cost(spaces[e], levels, self.pricing.total, budget) for e in experts}
        cheapest = np.min([found[e].value for e in experts], axis=0)
        return tuple(
            TradeOff(
                n_experts=e,
                n_active=float(found[e].n_active[i]),
                tokens=float(found[e].tokens[i]),
                train_flops=float(6.0 * found[e].n_active[i] * found[e].tokens[i]),
                loss=float(loss),
                cost=float(found[e].value[i]),
                on_front=bool(found[e].value[i] <= cheapest[i]),
            )
            for e in sorted(found)
            for i, loss in enumerate(levels)
            if np.isfinite(found[e].value[i])
        )


@dataclass(frozen=True)
class Optima:
    """The optimum of every E in every row: loss or cost, whichever is minimised (inf where an E cannot answer)."""

    experts: tuple[int, ...]
    found: Mapping[int, Optimum]
    compute_slopes: Mapping[int, Array]  # -dL/dln C at the optimum of each E, where the loss is minimised

    def value(self, n_experts: int) -> Array:
        """What is minimised, in every row."""
        return self.found[n_experts].value

    def regrets(self) -> Array:
        """What each E costs beyond the best E of the row, as a share of the cost, shape (rows, E); at most tenfold.

        NaN where the E cannot answer. Where the loss is minimised at a budget: the extra compute that would make up
        for it, to first order.
        """
        values = np.stack([self.value(e) for e in self.experts], axis=1)
        least = values.min(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.compute_slopes:
                slopes = np.stack([self.compute_slopes[e] for e in self.experts], axis=1)
                beyond = np.expm1((values - least) / slopes)
            else:
                beyond = values / least - 1.0
        return np.where(np.isfinite(values), np.clip(beyond, 0.0, MOST_REGRET), np.nan)

    def probability_best(self) -> dict[int, float]:
        """Share of the rows in which each E is best; rows in which none can answer count for none."""
        values = np.stack([self.value(e) for e in self.experts], axis=1)
        winners = np.where(np.isfinite(values.min(axis=1)), values.argmin(axis=1), -1)
        return {e: float(np.mean(winners == i)) for i, e in sorted(enumerate(self.experts), key=lambda pair: pair[1])}


def expected_regret(regrets: Array, weights: Array | None = None) -> Array:
    """Mean regret of each E over the rows in which it can answer; NaN where it can in none.

    `regrets` is (rows, E) as `Optima.regrets` gives it. `weights` (cases, rows) gives one mean a case, (cases, E);
    without them all rows count alike and the result is (E,).
    """
    answered = np.isfinite(regrets)
    each = np.ones((1, len(regrets))) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (each @ np.where(answered, regrets, 0.0)) / (each @ answered.astype(float))
    return np.asarray(means if weights is not None else means[0], dtype=float)


def unanswered(regrets: Array, weights: Array | None = None) -> Array:
    """Share of the rows in which each E cannot answer; arguments and shape as in `expected_regret`."""
    each = np.full((1, len(regrets)), 1.0) if weights is None else weights
    shares = (each @ np.isnan(regrets).astype(float)) / each.sum(axis=1, keepdims=True)
    return np.asarray(shares if weights is not None else shares[0], dtype=float)


@dataclass(frozen=True)
class TradeOff:
    """The cheapest model of one E at one loss; `on_front` where no other E is cheaper at that loss."""

    n_experts: int
    n_active: float
    tokens: float
    train_flops: float
    loss: float
    cost: float
    on_front: bool


def _compute_slope(space: Space, optimum: Optimum) -> Array:
    """-dL/dln C along the optimum of an E: by the envelope theorem -dL/dln D at its N_active."""
    size, tokens = optimum.n_active[:, None], optimum.tokens[:, None]
    value, slope = space.law.log_loss_by_tokens(space.params, space.columns(space.sizes(size), tokens))
    return np.asarray(-(np.exp(value) * slope)[:, 0], dtype=float)
