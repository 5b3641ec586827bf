"""The advice of each law of an ensemble, as if it were the only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.decision.optima import Optima, SizeOptimiser, best_columns
from analysis.mixture.ensemble import Ensemble


@dataclass(frozen=True)
class LawAdvice:
    """What one law of an ensemble recommends: the best E of its published constants, at its best size.

    `weight` is its weight in the ensemble. `loss` is in nats per token of the text and tokenizer that the law was
    fitted to, and `reference_loss` that of the reference which has to be kept, where there is one: losses of two laws
    cannot be compared. `cost` is the lifetime cost. `probability_best` is the share of the law's draws in which this E
    is best; None where the law has no draw.
    """

    name: str
    weight: float
    n_experts: int
    n_active: float
    n_total: float | None
    tokens: float
    loss: float
    cost: float
    probability_best: float | None
    reference_loss: float | None = None


def advice_of_laws(optimiser: SizeOptimiser, experts: Sequence[int], draws: Optima | None) -> tuple[LawAdvice, ...]:
    """The advice of every law of an ensemble of several, the heaviest first; none for another fit.

    `draws` are the optima of the ensemble's draws. A law by which no E can answer is left out.
    """
    fit = optimiser.fit
    if not isinstance(fit, Ensemble) or len(fit.members) == 1:
        return ()
    rows = [fit.row_of(member.name) for member in fit.members]
    params = {name: np.array([[row[name]] for row in rows]) for name in fit.params}
    optima = optimiser.solve(experts, params, len(rows))
    references = None if optimiser.loss_is_minimised else optimiser.target(params, len(rows))
    found = []
    for row, member in enumerate(fit.members):
        values = optima.values[row]
        if not np.isfinite(values).any():
            continue
        n_experts = optima.experts[int(np.argmin(values))]
        optimum = optima.by_experts[n_experts]
        space = optimiser.space(n_experts, {name: value[row] for name, value in params.items()})
        sizes, tokens = space.sizes(optimum.n_active[row : row + 1]), optimum.tokens[row : row + 1]
        n_total = optimiser.pricing.n_total(sizes)
        pricing = optimiser.pricing
        found.append(
            LawAdvice(
                name=member.name,
                weight=member.weight,
                n_experts=n_experts,
                n_active=float(optimum.n_active[row]),
                n_total=None if n_total is None else float(n_total[0]),
                tokens=float(tokens[0]),
                loss=float(np.ravel(space.loss(sizes.n_active, tokens))[0]),
                cost=float((pricing.train(sizes, tokens) + pricing.serve(sizes))[0]),
                probability_best=_share_best(fit, member.name, draws, n_experts),
                reference_loss=None if references is None else float(references[row]),
            )
        )
    return tuple(sorted(found, key=lambda advice: -advice.weight))


def _share_best(fit: Ensemble, name: str, draws: Optima | None, n_experts: int) -> float | None:
    """The share of the draws of one law in which an E is best."""
    if draws is None:
        return None
    rows = fit.rows_of(name)
    best = best_columns(draws.values)[rows[rows < len(draws.values)]]
    return float(np.mean(best == draws.experts.index(n_experts))) if best.size else None
