"""Fits compared: of other k, routers, experts or granularities, and which of them answers a question best.

A law describes one way to build a layer. Runs with another number of experts per token are fitted apart, and compared
here: the best model of every fit, each at its best E.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from analysis.decision.optima import Optima, SizeOptimiser, expected_regret
from analysis.decision.question import Question
from analysis.decision.recommend import candidates, some_draws, with_settings
from analysis.decision.size_search import Optimum
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from scaling.arrays import Array, Integers
from scaling.errors import InputError


@dataclass(frozen=True)
class FitAlternative:
    """The best that one fit offers: at the estimate its E, and how sure it is that no other fit offers better.

    `value` is what is minimised, a cost or a loss. `probability_best` and `regret` as those of an E
    (`analysis.decision.recommendation.Choice`), None unless every fit has draws.
    """

    name: str
    top_k: int | None
    n_experts: int
    n_active: float
    tokens: float
    value: float
    probability_best: float | None
    regret: float | None


@dataclass(frozen=True)
class FitAlternatives:
    """Fits by what they offer, the best first; `n_draws` were compared."""

    rivals: tuple[FitAlternative, ...]
    n_draws: int


def compare_fits(fits: Mapping[str, Fit], question: Question, speeds: Speeds | None = None) -> FitAlternatives:
    """The best model of each fit, at the loss of the first fit's reference where a budget says the loss to keep.

    Draws of different fits are independent of each other and meet in their order. Losses must be of the same held-out
    text. Raises InputError where a fit cannot answer at all, naming it.
    """
    fits = {name: with_settings(fit, question) for name, fit in fits.items()}
    n_draws = min(fit.n_draws for fit in fits.values())
    estimated, best_experts = _optima_of_fits(list(fits.values()), question, 1, None)
    values = {name: float(estimated.value(i)[0]) for i, name in enumerate(fits)}
    unable = [name for name, value in values.items() if not np.isfinite(value)]
    if unable:
        raise InputError(
            f"{', '.join(unable)}: no model of it can answer within the limits given; leave it out, or allow more"
        )
    chances, regrets = {}, np.full(len(fits), np.nan)
    if n_draws:
        drawn, _ = _optima_of_fits(list(fits.values()), question, n_draws, None if speeds is None else speeds.some())
        chances, regrets = drawn.probability_best(), expected_regret(drawn.regrets())
    alternatives = []
    for i, (name, fit) in enumerate(fits.items()):
        optimum, n_experts = estimated.by_experts[i], int(best_experts[i][0])
        n_active = float(optimum.n_active[0])
        alternatives.append(
            FitAlternative(
                name=name,
                top_k=SizeOptimiser(fit, question).sizes(n_experts, n_active).top_k,
                n_experts=n_experts,
                n_active=n_active,
                tokens=float(optimum.tokens[0]),
                value=values[name],
                probability_best=chances.get(i),
                regret=None if np.isnan(regrets[i]) else float(regrets[i]),
            )
        )
    return FitAlternatives(tuple(sorted(alternatives, key=lambda alternative: alternative.value)), n_draws)


def _optima_of_fits(
    fits: Sequence[Fit], question: Question, rows: int, speeds: Speeds | None
) -> tuple[Optima, list[Integers]]:
    """The best over E of every fit in every row, as if fits were expert counts numbered in their order; and of which
    E. All have to reach the loss of the first, by its estimate or draw after draw."""
    optima: dict[int, Optimum] = {}
    slopes: dict[int, Array] = {}
    chosen, target = [], None
    for i, fit in enumerate(fits):
        optimiser, experts = SizeOptimiser(fit, question), candidates(fit, question)
        params = fit.params if rows == 1 else some_draws(fit, rows)
        if i == 0 and not optimiser.loss_is_minimised:
            target = optimiser.target(params, rows, drawn=rows > 1)
        solved = optimiser.solve(experts, params, rows, speeds, target=target, drawn=rows > 1)
        best = solved.values.argmin(axis=1)
        chosen.append(np.array(experts)[best])
        by_experts = solved.by_experts.values()
        names = (field.name for field in fields(Optimum))
        optima[i] = Optimum(*(_of_best([getattr(optimum, name) for optimum in by_experts], best) for name in names))
        if solved.budget_slopes:
            slopes[i] = _of_best(list(solved.budget_slopes.values()), best)
    return Optima(optima, slopes), chosen


def _of_best(arrays: Sequence[Array], best: Integers) -> Array:
    """In every row the value of the array numbered `best`."""
    return np.take_along_axis(np.stack(arrays), best[None], axis=0)[0]
