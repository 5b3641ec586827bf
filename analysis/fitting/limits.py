"""Limits of a fit: where its formula still gives a number, and that number is no answer.

Three things make it none: an exponent that ended at its bound, so that the runs say nothing of how loss goes on; a
model more than 30 times outside the sizes or tokens studied; and larger runs that missed the law in roll-out by so much
that it cannot tell what more compute gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from analysis.fitting.discrepancy import Discrepancy
from analysis.laws import Law
from scaling.arrays import Array
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.formatting import flops, listed, si

FAR = 30.0
"""Times outside the sizes or tokens studied, beyond which a model is no extrapolation but another study."""
_LOST = 0.5  # of what a factor e of compute gains: a discrepancy of that scale may hide the gain
_FEWEST_CUTS = 2  # roll-outs without which a discrepancy is assumed
_EDGE = 1e-9  # relative


class Judged(Protocol):
    """What is asked of a fit to say where its predictions are no answer."""

    @property
    def definition(self) -> Law: ...
    @property
    def domain(self) -> Mapping[str, tuple[float, float]]: ...
    @property
    def experts(self) -> tuple[int, ...]: ...
    @property
    def discrepancy(self) -> Discrepancy | None: ...
    @property
    def largest_train_flops(self) -> float | None: ...
    @property
    def exponents_at_bound(self) -> tuple[str, ...]: ...
    def loss(self, columns: Mapping[str, Any]) -> Array: ...
    def outside_domain(self, columns: Mapping[str, float]) -> list[str]: ...


def exponents(law: Law) -> tuple[str, ...]:
    """The exponents of size, tokens and compute in a law: what its behaviour far away rests on."""
    return tuple(
        parameter.name
        for parameter in law.parameters
        if parameter.role in ("size", "data") and parameter.meaning.startswith("exponent of")
    )


def refused_of_model(fit: Judged, columns: Mapping[str, Any]) -> str:
    """Why the prediction of a model is no answer, "" where it is one; `columns` are its numbers as the law reads them.

    Inside the ranges of the runs every prediction is an answer, whatever the exponents.
    """
    reasons = _far(fit, columns)
    compute = 6.0 * float(columns["n_active"]) * float(columns[TOKENS]) if {"n_active", TOKENS} <= set(columns) else 0.0
    if fit.outside_domain({**columns, COMPUTE: compute} if compute else columns):
        reasons = [*reasons, *_at_bound(fit)]
    if fit.largest_train_flops and compute > fit.largest_train_flops * (1 + _EDGE):
        reasons = [*reasons, *_lost(fit)]
    return "; ".join(reasons)


def refused_of_optimum(fit: Judged, columns: Mapping[str, Any], train_flops: float) -> tuple[str, ...]:
    """Why an optimum is no answer: where it lies follows from the exponents, wherever that is."""
    reasons = [*_at_bound(fit), *_far(fit, columns)]
    if fit.largest_train_flops and train_flops > fit.largest_train_flops * (1 + _EDGE):
        reasons += _lost(fit)
    return tuple(reasons)


def gain_of_compute(fit: Judged) -> float | None:
    """By how much ln loss falls for a factor e of compute, divided between N and D, from the largest N and D studied;
    None where the law does not divide compute or the fit does not say what was studied."""
    law = fit.definition
    names = (law.n_column, TOKENS)
    if not law.divides_compute or any(name not in fit.domain for name in law.columns if name != EXPERTS):
        return None
    columns = {name: fit.domain[name][1] for name in law.columns if name != EXPERTS}
    columns |= {EXPERTS: float(np.median(fit.experts or (1,)))} if law.uses_experts else {}
    further = {name: value * (np.exp(0.5) if name in names else 1.0) for name, value in columns.items()}
    return float(np.log(fit.loss(columns)) - np.log(fit.loss(further)))


def _at_bound(fit: Judged) -> list[str]:
    held = fit.exponents_at_bound
    if not held:
        return []
    return [f"{listed(held)} ended at the bound of an exponent: these runs do not say how loss goes on"]


def _far(fit: Judged, columns: Mapping[str, Any]) -> list[str]:
    """Sizes and tokens that lie more than 30 times outside what was studied."""
    reasons = []
    for name in (fit.definition.n_column, TOKENS):
        if name not in fit.domain or name not in columns:
            continue
        (low, high), value = fit.domain[name], float(np.ravel(columns[name])[0])
        times = max(value / high, low / value)
        if times > FAR:
            side = "above" if value > high else "below"
            reasons.append(
                f"{name} = {si(value)} is {times:.2g} times {side} what was studied ({si(low)} to {si(high)}; limit "
                f"{FAR:g})"
            )
    return reasons


def _lost(fit: Judged) -> list[str]:
    found = fit.discrepancy
    if found is None or found.n_cuts < _FEWEST_CUTS:
        return []
    gain = gain_of_compute(fit)
    if gain is None or found.scale < _LOST * max(gain, 0.0):
        return []
    return [
        f"in roll-out larger runs missed the predictions by {100 * found.scale:.2g} % of the loss for each factor 2.7 "
        f"of compute, and that much compute gains {100 * max(gain, 0.0):.2g} %: nothing is known beyond "
        f"{flops(found.train_flops)} FLOPs"
    ]
