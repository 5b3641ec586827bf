"""Optima: the best model of every expert count under every row of parameters, and what choosing each would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.decision.allocation import Allocation
from analysis.decision.lifetime_cost import NEAR, PriceTable, Pricing
from analysis.decision.question import Question
from analysis.decision.size_search import Optimum, SearchSpace, TokensFound, largest_that_fits, least_cost, least_loss
from analysis.decision.training_price import TokenPrice, training_price
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from analysis.laws.model_family import Sizes
from scaling.arrays import Array, Integers

MOST_REGRET = 10.0  # of one draw: where an expert count can only just answer, its cost is without bound
UNANSWERED_LIMIT = 0.05  # share of the draws in which an expert count that is chosen may be unable to answer
_LARGER_BUDGET = 1.02  # times the budget, for the slope of loss in it
_LEVELS = 12  # losses at which the trade-off is listed
_DIVISIONS = 60  # steps to the model that uses a budget up: each halves what is missing, or does better
_EDGE = 1.2  # times the end of a range of sizes, within which an optimum may be cut off by it


@dataclass(frozen=True)
class SizeOptimiser:
    """A question put to a fit: what is minimised over N_active and D, for every E.

    `question.goal` says what: a cost at the target loss, or within a training budget at the loss of a `reference`; or
    the loss that a training budget, or a lifetime cost, allows.
    """

    fit: Fit
    question: Question
    _shared: _Shared = field(default_factory=lambda: _Shared({}, {}, {}), repr=False, compare=False)

    @property
    def pricing(self) -> Pricing:
        return self.question.pricing

    @property
    def loss_is_minimised(self) -> bool:
        """Whether the value of an optimum is a loss; otherwise it is a cost."""
        return self.question.goal == "loss"

    def space(self, n_experts: int, params: Mapping[str, Any] | None = None) -> SearchSpace:
        """The models of one E that may be chosen, under some parameters (None: the estimate)."""
        at_estimate = params is None or params is self.fit.params
        return SearchSpace(
            fit=self.fit,
            n_experts=n_experts,
            params=self.fit.params if params is None else params,
            fits=self.pricing.fits,
            largest=self._largest(n_experts),
            found=self._shared.tokens if at_estimate else None,
            lineage=self.pricing.family,
        )

    def _largest(self, n_experts: int) -> float:
        """The largest N_active of one E that fits; sizes do not depend on the law's parameters."""
        key, largest = (n_experts, self.pricing.limits), self._shared.largest
        if key not in largest:
            space = SearchSpace(self.fit, n_experts, self.fit.params, self.pricing.fits, lineage=self.pricing.family)
            largest[key] = largest_that_fits(space)
        return largest[key]

    def asked(self, question: Question) -> SizeOptimiser:
        """The same fit asked another question, which shares what does not depend on what was changed."""
        return SizeOptimiser(self.fit, question, self._shared)

    def sizes(self, n_experts: int, n_active: float) -> Sizes:
        """The counts of one model."""
        return self.space(n_experts).sizes(np.array([n_active]))

    def estimate(self, experts: Sequence[int], target: Array | None = None) -> Optima:
        """The optimum of every E at the estimate, in one row; `target` as in `solve`."""
        return self.solve(experts, self.fit.params, 1, target=target)

    def estimate_near(self, sizes: Mapping[int, float], target: Array | None = None) -> Optima:
        """The optimum of every E at the estimate near an N_active, from tables of prices there: to 2 % of the size and
        .1 % of the cost, in a third of the time. An E whose optimum is not near is solved exactly."""
        if self.pricing.device is None or self.pricing.demand is not None:
            return self.estimate(list(sizes), target)
        rough = self.solve(list(sizes), self.fit.params, 1, near=sizes, target=target)
        far = [e for e, optimum in rough.by_experts.items() if not _is_near(optimum, sizes[e], self._largest(e))]
        if not far:
            return rough
        exact = self.estimate(far, target)
        return Optima({**rough.by_experts, **exact.by_experts}, {**rough.budget_slopes, **exact.budget_slopes})

    def all_near(self, n_experts: int, optimum: Optimum, size: float) -> bool:
        """Whether the optima of an E that were searched `near` a size are those of all sizes, as far as they show."""
        return _is_near(optimum, size, self._largest(n_experts))

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
        near: Mapping[int, float] | None = None,
        drawn: bool = False,
    ) -> Optima:
        """The optimum of every E under each of `rows` rows of parameters.

        `speeds` are draws of the device's speed in serving, which rows meet in turn; None: the estimate in all. With
        `drawn` rows meet draws of the training speed, too. `budgets` and `volumes` (rows,) are what training may cost
        (FLOPs, or USD of a question in it) and tokens served instead of the question's, `target` (rows,) the loss to
        reach instead of this fit's (`target`). Prices of several rows are interpolated (`PriceTable`), of one exact,
        unless an N_active by E says where the optimum is `near` (`SearchSpace.near`).
        """
        near = near or {}
        spaces = {e: replace(self.space(e, params), near=near.get(e)) for e in experts}
        budget = self._budget(rows, budgets, volumes)
        prices = {
            e: _Prices(
                training_price(self.pricing, spaces[e], rows, drawn=drawn),
                self._token_price(spaces[e], speeds, exact=rows == 1, near=near.get(e)),
            )
            for e in experts
        }
        if self.loss_is_minimised:
            optima, at_larger = (
                {e: self._least_loss(spaces[e], budget.times(factor), prices[e]) for e in experts}
                for factor in (1.0, _LARGER_BUDGET)
            )
            with np.errstate(invalid="ignore"):
                slopes = {e: (optima[e].value - at_larger[e].value) / np.log(_LARGER_BUDGET) for e in experts}
            return Optima(optima, slopes)
        if target is None:
            target = self.target(params, rows, budgets, drawn=drawn)
        alone = self.question.goal == "serving"
        return Optima({e: self._least_cost(spaces[e], prices[e], target, budget, serving=alone) for e in experts}, {})

    def target(
        self, params: Mapping[str, Any], rows: int, budgets: Array | None = None, *, drawn: bool = False
    ) -> Array:
        """The loss to reach in every row where a cost is minimised: as asked, or the reference's at the budget."""
        asked = self.question.loss_asked
        return self.reference(params, rows, budgets, drawn=drawn).value if asked is None else np.full(rows, asked)

    def reference(
        self, params: Mapping[str, Any], rows: int, budgets: Array | None = None, *, drawn: bool = False
    ) -> Optimum:
        """The model whose loss is kept in every row, where none was given outright; its value is that loss.

        What serving allows does not lower the bar: the reference is trained on what there is, and not served.
        """
        question, budget = self.question, self._budget(rows, budgets)
        free = SearchSpace(self.fit, question.reference_experts, params, lineage=self.pricing.family)
        prices = _Prices(training_price(self.pricing, free, rows, drawn=drawn), self.pricing.per_token)
        if question.reference_model is not None:
            size, tokens = (np.full(rows, value) for value in question.reference_model)
        elif question.reference_fit is not None:
            size, tokens = self._divided(question.reference_fit, free, budget, prices)
        else:
            return self._least_loss(free, budget, prices)
        return Optimum(size, tokens, free.loss(size[:, None], tokens[:, None])[:, 0])

    def _divided(
        self, allocation: Allocation, space: SearchSpace, budget: _Budget, prices: _Prices
    ) -> tuple[Array, Array]:
        """N_active and tokens that an allocation makes of the training budget, or of as much of it as the data take."""
        flops = [self.pricing.flops_about(cost) for cost in budget.train] if budget.in_usd else budget.train
        size = allocation.size(np.asarray(flops))
        for _ in range(_DIVISIONS):
            sizes = space.sizes(size[:, None])
            tokens = np.minimum(budget.train[:, None] / budget.per_token(prices, sizes), budget.most_tokens)[:, 0]
            size = allocation.size(6.0 * size * tokens)
        return size, tokens

    def lifetime(
        self, n_experts: int, optimum: Optimum, speeds: Speeds | None = None, *, exact: bool = True, drawn: bool = False
    ) -> Array:
        """Lifetime cost of the optimum of one E in every row, NaN where it has none; from tables unless `exact`, at
        draws of the training speed where `drawn`."""
        if self.question.goal == "lifetime":
            return np.where(np.isfinite(optimum.value), optimum.value, np.nan)
        space = self.space(n_experts)
        sizes = space.sizes(optimum.n_active[:, None])
        exists = np.isfinite(optimum.value) & np.isfinite(optimum.tokens)
        tokens = np.where(exists, optimum.tokens, 1.0)
        volumes = _per_row(len(tokens), self.pricing.serve_tokens)
        serving = _serving(self._token_price(space, speeds, exact=exact), sizes, volumes)
        training = training_price(self.pricing, space, len(tokens), drawn=drawn)(sizes) * tokens[:, None]
        return np.where(exists, np.asarray(training + serving)[:, 0], np.nan)

    def trade_off(self, experts: Sequence[int], loss: float) -> tuple[TradeOff, ...]:
        """The cheapest model of every E at losses around `loss`, at the estimate, within the training budget if any.

        Empty where a training budget alone was asked about: all costs are equal then.
        """
        if self.loss_is_minimised and not self.pricing.serve_tokens:
            return ()
        spaces = {e: self.space(e) for e in experts}
        prices = {
            e: _Prices(training_price(self.pricing, space, _LEVELS), self._token_price(space, None, exact=False))
            for e, space in spaces.items()
        }
        if self.question.budget is None:
            levels = loss * np.linspace(0.97, 1.03, _LEVELS + 1)
        else:
            lowest = min(float(self._least_loss(spaces[e], self._budget(1), prices[e]).value[0]) for e in experts)
            highest = loss + max(loss - lowest, 0.01 * loss)
            levels = np.unique(np.append(np.linspace(lowest * (1 + 1e-9), highest, _LEVELS), loss))
        budget = self._budget(len(levels))
        optima = {e: self._least_cost(spaces[e], prices[e], levels, budget, serving=False) for e in sorted(experts)}
        cheapest = np.min([optimum.value for optimum in optima.values()], axis=0)
        return tuple(
            TradeOff(
                n_experts=e,
                n_active=float(optimum.n_active[i]),
                tokens=float(optimum.tokens[i]),
                train_flops=float(6.0 * optimum.n_active[i] * optimum.tokens[i]),
                loss=float(levels[i]),
                cost=float(optimum.value[i]),
                on_front=bool(optimum.value[i] <= cheapest[i]),
            )
            for e, optimum in optima.items()
            for i in np.flatnonzero(np.isfinite(optimum.value))
        )

    def _budget(self, rows: int, budgets: Array | None = None, volumes: Array | None = None) -> _Budget:
        question = self.question
        return _Budget(
            train=_per_row(rows, question.budget if budgets is None else budgets),
            in_usd=question.train_usd is not None,
            volumes=_per_row(rows, self.pricing.serve_tokens if volumes is None else volumes),
            lifetime=question.lifetime_cost,
            most_tokens=question.data_tokens or np.inf,
        )

    def _token_price(
        self, space: SearchSpace, speeds: Speeds | None, *, exact: bool, near: float | None = None
    ) -> TokenPrice:
        """The cost of a served token of one E: exact, or from a table that is made when a price is first needed."""
        if self.pricing.device is None or (exact and near is None):
            return self.pricing.per_token
        priced = self.pricing.served

        def from_table(sizes: Sizes) -> Array:
            key, tables = (priced, space.n_experts, speeds is not None, near), self._shared.tables
            if key not in tables:
                tables[key] = self.pricing.tabulated(space.sizes, self._largest(space.n_experts), speeds, near)
            return tables[key].per_token(sizes.n_active)

        return from_table

    def _least_loss(self, space: SearchSpace, budget: _Budget, prices: _Prices) -> Optimum:
        """The model of least loss within a training budget, or a lifetime cost."""
        if budget.lifetime is not None:
            paid = np.full(budget.volumes.shape, budget.lifetime)
        else:
            paid = budget.train
        in_money = budget.in_usd or budget.lifetime is not None

        def affordable(sizes: Sizes) -> Array:
            left = paid[:, None]
            if budget.lifetime is not None:
                left = left - _serving(prices.serving, sizes, budget.volumes)
            return np.minimum(left / budget.per_token(prices, sizes), budget.most_tokens)

        about = np.array([self.pricing.flops_about(cost) for cost in paid]) if in_money else paid
        return least_loss(space, about, affordable)

    def _least_cost(
        self, space: SearchSpace, prices: _Prices, target: Array, budget: _Budget, *, serving: bool
    ) -> Optimum:
        """The model of least cost at a loss: of its lifetime, or of `serving` alone."""

        def cost(sizes: Sizes, tokens: Array) -> Array:
            served = _serving(prices.serving, sizes, budget.volumes)
            return served + 0.0 * tokens if serving else prices.training(sizes) * tokens + served

        def share(sizes: Sizes, tokens: Array) -> Array:
            return budget.per_token(prices, sizes) * tokens / budget.train[:, None]

        limit = share if np.isfinite(budget.train).all() else None
        return least_cost(space, target, cost, limit, budget.most_tokens, jumps=self.pricing.device is not None)


@dataclass(frozen=True)
class _Shared:
    """What the questions put to one fit have in common: the largest N_active of an E within limits, the tokens that
    reach a loss at the estimate, and prices of serving by E, whether they are of draws, and the size they are near."""

    largest: dict[tuple[int, Pricing], float]
    tokens: TokensFound
    tables: dict[tuple[Pricing, int, bool, float | None], PriceTable]


@dataclass(frozen=True)
class _Prices:
    """The cost of a training token and of a served one, of one E."""

    training: TokenPrice
    serving: TokenPrice


@dataclass(frozen=True)
class _Budget:
    """What there is in every row: what training may cost (inf: no limit), in FLOPs or `in_usd`, and tokens to serve;
    and limits equal for all."""

    train: Array
    in_usd: bool
    volumes: Array
    lifetime: float | None
    most_tokens: float

    def per_token(self, prices: _Prices, sizes: Sizes) -> Array:
        """What a training token takes of the budget, or of the lifetime cost."""
        if self.in_usd or self.lifetime is not None:
            return prices.training(sizes)
        return 6.0 * sizes.n_computed

    def times(self, factor: float) -> _Budget:
        """So many times the training budget, or the lifetime cost."""
        lifetime = None if self.lifetime is None else factor * self.lifetime
        return replace(self, train=factor * self.train, lifetime=lifetime)


def _is_near(optimum: Optimum, size: float, largest: float) -> bool:
    """Whether every row has an optimum, and none at an end of the sizes near this one but for the largest there is."""
    found = optimum.n_active
    within = (size / NEAR * _EDGE < found) & ((found < size * NEAR / _EDGE) | (found > largest / _EDGE))
    return bool(np.all(within & np.isfinite(optimum.value)))


def _per_row(rows: int, value: float | Array | None) -> Array:
    return np.broadcast_to(np.inf if value is None else np.asarray(value, dtype=float), (rows,))


def _serving(token_price: TokenPrice, sizes: Sizes, volumes: Array) -> Array:
    """Cost of serving `volumes` tokens, one a row; no price is looked up where nothing is served."""
    return token_price(sizes) * volumes[:, None] if np.any(volumes) else 0.0 * sizes.n_active


@dataclass(frozen=True)
class Optima:
    """The optimum of every E in every row; its value is what is minimised, a loss or a cost (inf: E cannot answer)."""

    by_experts: Mapping[int, Optimum]
    budget_slopes: Mapping[int, Array]  # -dL/dln(budget) at the optimum of each E, where the loss is minimised

    @property
    def experts(self) -> tuple[int, ...]:
        return tuple(self.by_experts)

    @property
    def values(self) -> Array:
        """What is minimised, shape (rows, E)."""
        return np.stack([optimum.value for optimum in self.by_experts.values()], axis=1)

    def value(self, n_experts: int) -> Array:
        """What is minimised, of one E in every row."""
        return self.by_experts[n_experts].value

    def ranked(self) -> list[int]:
        """The E that can answer in the first row, the best first."""
        first = {e: float(optimum.value[0]) for e, optimum in self.by_experts.items()}
        return sorted((e for e in first if np.isfinite(first[e])), key=first.__getitem__)

    def regrets(self) -> Array:
        """What each E costs beyond the best E of the row, as a share of the cost, shape (rows, E); at most tenfold.

        NaN where the E cannot answer. Where the loss is minimised: how much more of the budget would make up for it,
        to first order.
        """
        values = self.values
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
        """Share of the rows in which each E is best, by E; rows in which none can answer count for none."""
        best = best_columns(self.values)
        return dict(sorted((e, float(np.mean(best == i))) for i, e in enumerate(self.experts)))


def best_columns(values: Array) -> Integers:
    """The column of the least value of every row; -1 where none is finite."""
    return np.where(np.isfinite(values.min(axis=1)), values.argmin(axis=1), -1)


def expected_regret(regrets: Array, weights: Array | None = None) -> Array:
    """Mean regret of each E over the rows in which it can answer; NaN where it can in none.

    `regrets` is (rows, E) as `Optima.regrets` gives it. `weights` (cases, rows) gives one mean a case, (cases, E);
    without them all rows count alike and the result is (E,).
    """
    answered = np.isfinite(regrets)
    row_weights = np.ones((1, len(regrets))) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (row_weights @ np.where(answered, regrets, 0.0)) / (row_weights @ answered.astype(float))
    return np.asarray(means if weights is not None else means[0], dtype=float)


def unanswered_share(regrets: Array, weights: Array | None = None) -> Array:
    """Share of the rows in which each E cannot answer; arguments and shape as in `expected_regret`."""
    row_weights = np.ones((1, len(regrets))) if weights is None else weights
    shares = (row_weights @ np.isnan(regrets).astype(float)) / row_weights.sum(axis=1, keepdims=True)
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
