"""Equal loss: the best model of an E at a training budget, and the cheapest baseline of the same loss.

Everything is a row, as in `analysis.decision.size_search`: row s holds one draw of the law's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.decision.size_search import Optimum, SearchSpace, least_cost, least_loss
from analysis.fitting.fit import Fit
from analysis.laws.model_family import Sizes
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.serving.families import ArchitectureFamily

_LOG_SIZES = (np.log(1e-6), np.log(1e24))
_HALVINGS = 90  # of that range, to 1e-26


@dataclass(frozen=True)
class EqualLoss:
    """Two models of one loss in every row: `model` of an E, whose value is the loss, and `baseline`, whose value is its
    training FLOPs (inf where no size reaches the loss)."""

    n_experts: int
    train_flops: float
    model: Optimum
    baseline: Optimum

    @property
    def log_speedup(self) -> Array:
        """ln(C_base(L)/C), the compute-equivalent gain."""
        return np.log(self.baseline.value / self.train_flops)


@dataclass(frozen=True)
class Comparison:
    """Models of every E that a fit knows, against those of one E.

    The loss of an E at a budget C is the least of its law on 6 N_active D = C; C_base(L) is the least 6 N_active D at
    which a model with E = `baseline_experts` has that loss, whatever its size. `tokens` are those of all models where
    the law does not read them (`clark`): then N = C/(6 D) follows from the budget, and N is the law's own.
    """

    fit: Fit
    baseline_experts: int
    lineage: ArchitectureFamily | None = None
    tokens: float | None = None

    def space(self, n_experts: int, params: Mapping[str, Any] | None = None) -> SearchSpace:
        """The models of one E, under some parameters (None: the estimate); no limit on memory or price holds."""
        return SearchSpace(self.fit, n_experts, self.fit.params if params is None else params, lineage=self.lineage)

    def sizes(self, n_experts: int, n_active: Array) -> Sizes:
        """The counts of models; of a law without tokens only the one that it reads."""
        if self.tokens is None:
            return self.space(n_experts).sizes(n_active)
        return Sizes(n_experts, None, n_active)

    def at(self, n_experts: int, train_flops: float, params: Mapping[str, Any], rows: int) -> EqualLoss:
        """The best model of one E at a budget in each of `rows` rows of parameters, and its match."""
        budgets = np.full(rows, train_flops)
        if self.tokens is not None:
            return self._at_fixed_tokens(n_experts, train_flops, params, rows)
        model = least_loss(self.space(n_experts, params), budgets)
        baseline = least_cost(self.space(self.baseline_experts, params), model.value, _train_flops)
        return EqualLoss(n_experts, train_flops, model, baseline)

    def _at_fixed_tokens(self, n_experts: int, train_flops: float, params: Mapping[str, Any], rows: int) -> EqualLoss:
        trained = float(self.tokens or 0.0)
        tokens, size = np.full(rows, trained), np.full(rows, train_flops / (6.0 * trained))
        log_loss = self._log_loss(n_experts, params, size)
        effective = effective_size(self.fit, params, n_experts, size, self.baseline_experts)
        model = Optimum(size, tokens, np.exp(log_loss))
        return EqualLoss(n_experts, train_flops, model, Optimum(effective, tokens, 6.0 * effective * trained))

    def _log_loss(self, n_experts: int, params: Mapping[str, Any], size: Array) -> Array:
        return _log_loss_of_size(self.fit, params, n_experts, size)


def effective_size(
    fit: Fit, params: Mapping[str, Any], n_experts: int, size: Array, baseline_experts: int = 1
) -> Array:
    """N_bar: the size of a model with E = `baseline_experts` that has the loss of models (rows,) of another E, all else
    equal; inf where none has it. Its N is that of the law.

    L(N_bar, E_base) = L(N, E): the effective parameter count of Clark et al. 2022, arXiv 2202.01169, found by bisection
    of ln N, since their closed form holds for their law alone.
    """
    wanted = _log_loss_of_size(fit, params, n_experts, size)
    low, high = (np.full(np.shape(wanted), end) for end in _LOG_SIZES)
    reached = _log_loss_of_size(fit, params, baseline_experts, np.exp(high)) <= wanted
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        too_small = _log_loss_of_size(fit, params, baseline_experts, np.exp(middle)) > wanted
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    return np.where(reached, np.exp(0.5 * (low + high)), np.inf)


def _log_loss_of_size(fit: Fit, params: Mapping[str, Any], n_experts: int, size: Array) -> Array:
    """ln loss of models (rows,), one a row of parameters."""
    law = fit.definition
    columns = {**fit.settings, law.n_column: size[:, None], EXPERTS: float(n_experts)}
    return np.broadcast_to(law.log_loss(params, columns)[..., 0], np.shape(size))


def _train_flops(sizes: Sizes, tokens: Array) -> Array:
    return 6.0 * sizes.n_active * tokens


def fixes_tokens(fit: Fit) -> bool:
    """Whether the law reads sizes and experts but no tokens, so that its models were all trained on as many."""
    law = fit.definition
    return bool(law.n_column) and TOKENS not in law.columns and law.uses_experts
