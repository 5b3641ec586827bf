"""Rivals: fits of other k, routers, experts or granularities, and which of them a question is best answered with.

A law sees one way to build a layer. Runs with another number of experts per token are fitted apart, and compared here:
the best model of every fit, each at its best E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare_fits(fits: Mapping[str, Fit], question: Question, speeds: Speeds | None = None) -> FitAlternatives:
    """The best model of each fit, at the loss of the first fit's reference where a budget says the loss to keep.

    Draws of different fits are independent of each other and meet in their order. Losses must be of the same held-out
    text. Raises InputError where a fit cannot answer at all, naming it.
    """
    fits = {name: with_settings(fit, question) for name, fit in fits.items()}
    n_draws = min(fit.n_draws for fit in fits.values())
    met = None if speeds is None else speeds.some()
    estimated, best_experts = _solved(fits, question, 1, None)
    drawn = _solved(fits, question, n_draws, met)[0] if n_draws else None
    values = {name: float(estimated.value(i)[0]) for i, name in enumerate(fits)}
    lost = [name for name, value in values.items() if not np.isfinite(value)]
    if lost:
        raise InputError(
            f"{', '.join(lost)}: no model of it can answer within the limits given; leave it out, or allow more"
        )
    chances = drawn.probability_best() if drawn else {}
    regrets = expected_regret(drawn.regrets()) if drawn else np.full(len(fits), np.nan)
    found = []
    for i, (name, fit) in enumerate(fits.items()):
        best, e = estimated.found[i], int(best_experts[i][0])
        found.append(
            FitAlternative(
                name=name,
                top_k=SizeOptimiser(fit, question).space(e, dict(fit.params)).sizes(best.n_active).top_k,
                n_experts=e,
                n_active=float(best.n_active[0]),
                tokens=float(best.tokens[0]),
                value=values[name],
                probability_best=chances.get(i),
                regret=None if np.isnan(regrets[i]) else float(regrets[i]),
            )
        )
    return FitAlternatives(tuple(sorted(found, key=lambda rival: rival.value)), n_draws)


def _target(fits: Mapping[str, Fit], question: Question, rows: int) -> Array | None:
    """The loss that all have to reach: by the first fit's estimate, or draw after draw."""
    first = next(iter(fits.values()))
    return SizeOptimiser(first, question).target(_params(first, rows), rows)


def _solved(
    fits: Mapping[str, Fit], question: Question, rows: int, speeds: Speeds | None
) -> tuple[Optima, list[Integers]]:
    """The best over E of every fit in every row, as if fits were expert counts numbered in their order; and of which
    E."""
    target = _target(fits, question, rows)
    found: dict[int, Optimum] = {}
    slopes: dict[int, Array] = {}
    chosen = []
    for i, fit in enumerate(fits.values()):
        experts = candidates(fit, question)
        each = SizeOptimiser(fit, question).solve(experts, _params(fit, rows), rows, speeds, target=target)
        best = np.argmin([each.value(e) for e in experts], axis=0)
        chosen.append(np.array(experts)[best])

        def of_best(arrays: list[Array], best: npt.NDArray[np.intp] = best) -> Array:
            return np.take_along_axis(np.stack(arrays), best[None], axis=0)[0]

        found[i] = Optimum(
            *(of_best([getattr(each.found[e], name) for e in experts]) for name in ("n_active", "tokens", "value"))
        )
        if each.budget_slopes:
            slopes[i] = of_best([each.budget_slopes[e] for e in experts])
    return Optima(tuple(found), found, slopes), chosen


def _params(fit: Fit, rows: int) -> dict[str, Any]:
    if rows == 1:
        return dict(fit.params)
    return {name: value[:rows] if np.ndim(value) else value for name, value in some_draws(fit).items()}
