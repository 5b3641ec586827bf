"""Optima: the best model of every expert count under every row of parameters, and what choosing each would cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.decision.lifetime_cost import PriceTable, Pricing
from analysis.decision.question import Question
from analysis.decision.size_search import Optimum, SearchSpace, anything_fits, largest_that_fits, least_cost, least_loss
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from analysis.laws.model_family import Sizes
from scaling.arrays import Array

MOST_REGRET = 10.0  # of one draw: where an expert count can only just answer, its cost is without bound
UNANSWERED_LIMIT = 0.05  # share of the draws in which an expert count that is chosen may be unable to answer
_MORE = 1.02  # times the budget, for what a larger one would give
_LEVELS = 12  # losses at which the trade-off is listed


@dataclass(frozen=True)
class SizeOptimiser:
    """A question put to a fit: what is minimised over N_active and D, for every E.

    `question.goal` says what: a cost at the target loss, or within a training budget at the loss of the best model with
    E = `reference_experts` at it; or the loss that a training budget, or a lifetime cost, allows.
    """

    fit: Fit
    question: Question
    _largest: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _tables: dict[tuple[int, bool], PriceTable] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def pricing(self) -> Pricing:
        return self.question.pricing

    @property
    def loss_is_minimised(self) -> bool:
        """Whether the value of an optimum is a loss; otherwise it is a cost."""
        return self.question.goal == "loss"

    def space(self, n_experts: int, params: Mapping[str, Any]) -> SearchSpace:
        """The models of one E that may be chosen, under some parameters."""
        fit = self.fit
        space = SearchSpace(fit.definition, params, n_experts, fit.family, self.pricing.fits, fit.settings)
        if n_experts not in self._largest:  # sizes do not depend on the law's parameters
            self._largest[n_experts] = largest_that_fits(space)
        return replace(space, largest=self._largest[n_experts])

    def solve(
        self,
        experts: Sequence[int],
        params: Mapping[str, Any],
        rows: int,
        speeds: Speeds | None = None,
        *,
        budgets: Array | None = None,
        volumes: Array | None = None,
        target: Array | None = None,
    ) -> Optima:
        """The optimum of every E under each of `rows` rows of parameters.

        `speeds` are draws of the device's speed, which rows meet in turn; None: the estimate in all.
        `budgets` and `volumes` (rows,) are training FLOPs and tokens served instead of the question's, `target` (rows,)
        the loss to reach instead of this fit's (`target`). Of several rows prices are looked up in a table
        (`PriceTable`), of one they are exact.
        """
        question = self.question
        spaces = {e: self.space(e, params) for e in experts}
        money = self._money(rows, budgets, volumes)
        served = {e: self._served(spaces[e], rows, speeds) for e in experts}
        if self.loss_is_minimised:
            found, more = (
                {e: self._least_loss(spaces[e], money.times(factor), served[e]) for e in experts}
                for factor in (1.0, _MORE)
            )
            with np.errstate(invalid="ignore"):
                slopes = {e: (found[e].value - more[e].value) / np.log(_MORE) for e in experts}
            return Optima(tuple(experts), found, slopes, speeds)
        wanted = self._target(params, money) if target is None else target
        found = {e: self._least_cost(spaces[e], served[e], wanted, money, question.goal == "serving") for e in experts}
        return Optima(tuple(experts), found, {}, speeds)

    def target(self, params: Mapping[str, Any], rows: int) -> Array | None:
        """The loss to reach in every row, where a cost is minimised: as asked, or that of the reference at the
        budget."""
        if self.loss_is_minimised:
            return None
        return self._target(params, self._money(rows))

    def _target(self, params: Mapping[str, Any], money: _Money) -> Array:
        if self.question.target_loss is not None:
            return np.full(money.volumes.shape, self.question.target_loss)
        # What serving allows does not lower the bar: the reference is trained on what there is, and not served.
        free = replace(self.space(self.question.reference_experts, params), fits=anything_fits, largest=None)
        return self._least_loss(free, money, None).value

    def _money(self, rows: int, budgets: Array | None = None, volumes: Array | None = None) -> _Money:
        question = self.question
        return _Money(
            budgets=_filled(rows, question.budget if budgets is None else budgets),
            volumes=_filled(rows, self.pricing.serve_tokens if volumes is None else volumes),
            lifetime=question.lifetime_cost,
            most_tokens=question.data_tokens or np.inf,
        )

    def lifetime(self, n_experts: int, n_active: Array, tokens: Array, rows: int, speeds: Speeds | None) -> Array:
        """Lifetime cost of one model of one E in every row, by the table where `solve` looked it up for `rows` rows."""
        space = self.space(n_experts, dict(self.fit.params))
        sizes = space.sizes(n_active[:, None])
        volumes = _filled(len(n_active), self.pricing.serve_tokens)
        serving = _serving(self._served(space, rows, speeds), sizes, volumes)
        return np.asarray(self.pricing.train(sizes, tokens[:, None]) + serving)[:, 0]

    def _served(self, space: SearchSpace, rows: int, speeds: Speeds | None) -> Callable[[Sizes], Array]:
        """The cost of a served token of one E: exact for one row or in FLOPs, else from its table, made when first
        asked."""
        if rows == 1 or self.pricing.device is None:
            return self.pricing.per_token

        def looked_up(sizes: Sizes) -> Array:
            key = (space.n_experts, speeds is not None)
            if key not in self._tables:
                self._tables[key] = self.pricing.tabulated(space.sizes, self._largest[space.n_experts], speeds)
            return self._tables[key].per_token(sizes.n_active)

        return looked_up

    def _least_loss(self, space: SearchSpace, money: _Money, per_token: Callable[[Sizes], Array] | None) -> Optimum:
        pricing = self.pricing
        if money.lifetime is None:
            budget = money.budgets
        else:
            budget = np.full(money.volumes.shape, pricing.train_flops(money.lifetime))

        def affordable(sizes: Sizes) -> Array:
            if money.lifetime is None:
                return np.minimum(budget[:, None] / (6.0 * sizes.n_active), money.most_tokens)
            serving = 0.0 if per_token is None else _serving(per_token, sizes, money.volumes)
            return np.minimum((money.lifetime - serving) / pricing.train_per_token(sizes), money.most_tokens)

        return least_loss(space, budget, affordable)

    def _least_cost(
        self, space: SearchSpace, per_token: Callable[[Sizes], Array], target: Array, money: _Money, alone: bool
    ) -> Optimum:
        """The cheapest model at a loss; `alone`: of serving only."""
        pricing = self.pricing

        def cost(sizes: Sizes, tokens: Array) -> Array:
            serving = _serving(per_token, sizes, money.volumes)
            return serving + 0.0 * tokens if alone else pricing.train(sizes, tokens) + serving

        limited = np.isfinite(money.budgets).all()
        budgets = money.budgets if limited else None
        return least_cost(space, target, cost, budgets, money.most_tokens, jumps=pricing.device is not None)

    def trade_off(self, experts: Sequence[int], kept: float) -> tuple[TradeOff, ...]:
        """Loss against lifetime cost of every E around the loss `kept`, at the estimate, within the training budget if
        any.

        Empty where a training budget alone was asked about: all costs are equal then.
        """
        question = self.question
        if self.loss_is_minimised and not self.pricing.serve_tokens:
            return ()
        spaces = {e: self.space(e, dict(self.fit.params)) for e in experts}
        if question.budget is None:
            levels = kept * np.linspace(0.97, 1.03, _LEVELS + 1)
        else:
            lowest = min(float(self._least_loss(spaces[e], self._money(1), None).value[0]) for e in experts)
            highest = kept + max(kept - lowest, 0.01 * kept)
            levels = np.unique(np.append(np.linspace(lowest * (1 + 1e-9), highest, _LEVELS), kept))
        money = self._money(len(levels))
        found = {e: self._least_cost(spaces[e], self.pricing.per_token, levels, money, False) for e in experts}
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
class _Money:
    """What there is to spend in every row: training FLOPs (inf: no limit), tokens to serve, and limits equal for
    all."""

    budgets: Array
    volumes: Array
    lifetime: float | None
    most_tokens: float

    def times(self, factor: float) -> _Money:
        """So many times the budget, or the lifetime cost."""
        return replace(
            self,
            budgets=factor * self.budgets,
            lifetime=None if self.lifetime is None else factor * self.lifetime,
        )


def _filled(rows: int, value: float | Array | None) -> Array:
    return np.broadcast_to(np.inf if value is None else np.asarray(value, dtype=float), (rows,))


def _serving(per_token: Callable[[Sizes], Array], sizes: Sizes, volumes: Array) -> Array:
    """Cost of serving so many tokens a row; nothing, and not asked for, where nothing is served."""
    return per_token(sizes) * volumes[:, None] if np.any(volumes) else 0.0 * sizes.n_active


@dataclass(frozen=True)
class Optima:
    """The optimum of every E in every row: loss or cost, whichever is minimised (inf where an E cannot answer)."""

    experts: tuple[int, ...]
    found: Mapping[int, Optimum]
    budget_slopes: Mapping[int, Array]  # -dL/dln(budget) at the optimum of each E, where the loss is minimised
    speeds: Speeds | None = None  # of the device, as given

    def value(self, n_experts: int) -> Array:
        """What is minimised, in every row."""
        return self.found[n_experts].value

    def regrets(self) -> Array:
        """What each E costs beyond the best E of the row, as a share of the cost, shape (rows, E); at most tenfold.

        NaN where the E cannot answer. Where the loss is minimised at a budget: how much more of it would make up for
        the loss, to first order.
        """
        values = np.stack([self.value(e) for e in self.experts], axis=1)
        least = values.min(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if self.budget_slopes:
                slopes = np.stack([self.budget_slopes[e] for e in self.experts], axis=1)
                # Where limits leave nothing to be bought, no budget makes up for a loss: the most there is.
                beyond = np.where(slopes > 0, np.expm1((values - least) / slopes), np.inf)
            else:
                beyond = values / least - 1.0
            beyond = np.where(values == least, 0.0, beyond)
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
