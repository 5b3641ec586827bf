"""Studied: how the runs of a fit spent their compute on size and tokens, and which split is plausible beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from analysis.tables.rows import ratio
from analysis.tables.runs import RunTable
from scaling.arrays import Array
from scaling.columns import COMPUTE, EXPERTS, TOKENS

Range = tuple[float, float]

USUAL_RATIOS: Range = (5.0, 500.0)
"""Tokens per active parameter between which models are trained: compute-optimal ones at 10 to 60 (Hoffmann et al. 2022,
arXiv 2203.15556), runs for fits at 5 to 640 (Gadre et al. 2024, arXiv 2403.08540)."""
WIDENING = 3.0
"""Times the range of tokens per parameter studied, within the usual one, that is believed without runs."""


@dataclass(frozen=True)
class Studied:
    """Of the runs of one E: tokens per active parameter, and training FLOPs (None where unknown), least and most."""

    tokens_per_param: Range
    train_flops: Range | None = None


class HasStudied(Protocol):
    """What is asked of a fit."""

    @property
    def studied(self) -> Mapping[int, Studied]: ...


def studied(table: RunTable) -> dict[int, Studied]:
    """What the runs of every E were; none without `n_active`. Without `n_experts` they count as dense."""
    frame = table.frame
    if "n_active" not in frame or TOKENS not in frame:
        return {}
    ratios = ratio(table.column(TOKENS), table.column("n_active"))
    compute = table.column(COMPUTE) if COMPUTE in frame else np.full(len(table), np.nan)
    experts = table.column(EXPERTS) if EXPERTS in frame else np.ones(len(table))
    found = {}
    for e in np.unique(experts[np.isfinite(experts) & np.isfinite(ratios)]):
        per_param = _range(ratios[experts == e])
        if per_param is not None:
            found[int(e)] = Studied(per_param, _range(compute[experts == e]))
    return found


def _range(values: Array) -> Range | None:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else None


def plausible_ratios(fit: HasStudied, n_experts: int | None = None) -> Range:
    """Tokens per active parameter, least and most, at which a model can be believed or a run be proposed.

    Those of the runs studied (of one E where it was studied, else of all), widened threefold within 5 to 500; where
    the runs themselves lie outside 5 to 500, as far as they do. 5 to 500 where the fit does not say what was run.
    """
    runs = fit.studied.get(n_experts) if n_experts is not None else None
    of = list(fit.studied.values()) if runs is None else [runs]
    least, most = USUAL_RATIOS
    if not of:
        return least, most
    low, high = min(each.tokens_per_param[0] for each in of), max(each.tokens_per_param[1] for each in of)
    return min(low, max(low / WIDENING, least)), max(high, min(high * WIDENING, most))
