"""A fit of efficiency leverage with a dense fit beside it: what predicts a loss."""

from __future__ import annotations

from dataclasses import replace

from analysis.fitting.fit import Fit
from analysis.laws.leveraged import dense_parameter, leveraged
from analysis.laws.moe_shape import LEVERAGE
from scaling.errors import InputError


def with_dense(fit: Fit, dense: Fit) -> Fit:
    """A fit of `leverage` on a dense fit (`analysis.laws.leveraged`). Draws of the two are independent and meet in
    their order; a fit without draws is held at its estimate.

    Raises InputError where the one is no fit of `leverage` or the other none of a dense law.
    """
    if fit.definition is not LEVERAGE:
        raise InputError(f"a dense fit goes beside law {LEVERAGE.name}, which gives no loss; {fit.law} gives its own")
    law = leveraged(dense.definition)
    n_draws = min((each.n_draws for each in (fit, dense) if each.n_draws), default=0)

    def drawn(each: Fit) -> dict[str, tuple[float, ...]]:
        return {name: each.draws.get(name, (value,) * n_draws)[:n_draws] for name, value in each.params.items()}

    of_dense = {dense_parameter(name): value for name, value in dense.params.items()}
    draws = drawn(fit) | {dense_parameter(name): each for name, each in drawn(dense).items()} if n_draws else {}
    held = [each.law for each in (fit, dense) if n_draws and not each.n_draws]
    return replace(
        fit,
        law=law.name,
        own_law=law,
        params={**fit.params, **of_dense},
        draws=draws,
        domain={**{name: ends for name, ends in dense.domain.items() if name != "train_flops"}, **fit.domain},
        source=f"{fit.source}; dense models: {dense.source}",
        warnings=(
            *fit.warnings,
            *dense.warnings,
            *(f"{name} has no draws: the draws hold it at its estimate" for name in held),
            "leverage was measured between models of the best size for their compute, on another text than the dense "
            "law: a smaller model on more tokens is priced by the dense law's trade of N for D, which is assumed",
        ),
        notes=(*fit.notes, *dense.notes),
    )
