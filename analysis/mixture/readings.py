"""Readings: published MoE laws as functions of one model of any architecture, so that their advice can be compared.

A model has N_active, D, and E routed experts of which a token takes k; its lineage says the rest. Papers count experts
of different widths. What they share is the expansion E/k, by how much all routed experts are wider than those of a
token: the E of a law of k = 1, and Krajewski's expansion rate, where a token takes G experts that are together as wide
as a dense MLP (arXiv 2402.07871, section 3), so that G = k. The expansion of a dense model is 1.

- joint-moe-2025 reads E/k as its E (arXiv 2502.05172: k = 1). Granularity is not in it.
- fine-grained-2024 is `fine_grained.BY_EXPANSION`, of G = k; beyond an expansion of 64 it knows nothing.
- sparsity-2025 reads S = 1 - k/E and N_total (arXiv 2501.12370).
- tencent-2025 reads N_total, N_active, all experts of a token, and the share of shared ones (arXiv 2509.23678). It was
  fitted to MoE models alone: a dense model is its limit N_active = N_total at the G and S of the routed models.

Each adds an offset to ln L, by which the loss of other runs differs from the paper's; 0 as published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.published_draws import with_draws
from analysis.laws import JOINT_MOE, Law, Parameter
from analysis.laws.moe_shape import SPARSITY, TENCENT
from analysis.mixture.fine_grained import BY_EXPANSION, EXPANSION, LARGEST, fine_grained
from scaling.columns import EXPERTS, TOKENS

OFFSET = "offset"
_OFFSET = Parameter(OFFSET, "mixture", "ln of the loss of other runs over the paper's", (-0.1, 0.1), (-5.0, 5.0))
_MODELS = ("n_active", TOKENS, EXPERTS, "top_k")
_UNLIMITED = 1e12

Shape = tuple[float, float]
"""Experts of a token, shared ones in it, and the share of shared ones, of the routed models of a lineage."""
Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """A published law that reads models: `law`, for routed models of some shape, and `fit`, its parameters and draws.

    `known_to` is the largest expansion that it can speak of, `studied_to` the largest of its runs. `extra` are the
    columns that it reads beside N_active, D, E and k.
    """

    name: str
    fit: Callable[[], Fit]
    translate: Callable[[Columns, Shape], Columns]
    extra: tuple[str, ...]
    base: Law
    studied_to: float
    known_to: float = _UNLIMITED

    def law(self, shape: Shape = (1.0, 0.0)) -> Law:
        """The law in the columns of models; its parameters are the same for every shape."""

        def formula(p: Mapping[str, Any], x: Columns) -> Any:
            return self.base.log_formula(p, {**x, **self.translate(x, shape)}) + p[OFFSET]

        return replace(
            self.base,
            name=self.name,
            n_column="n_active",
            parameters=(*self.base.parameters, _OFFSET),
            log_formula=formula,
            columns=(*_MODELS, *self.extra),
            optimum=None,
            extends=None,
        )


def expansion(x: Columns) -> Any:
    """E/k; 1 of a dense model, whatever its k."""
    experts, k = np.asarray(x[EXPERTS], dtype=float), np.asarray(x["top_k"], dtype=float)
    return np.where(experts == 1, 1.0, experts / np.minimum(k, experts))


def _joint(x: Columns, shape: Shape) -> Columns:
    return {EXPERTS: expansion(x)}


def _fine_grained(x: Columns, shape: Shape) -> Columns:
    return {EXPANSION: expansion(x), "granularity": np.asarray(x["top_k"], dtype=float)}


def _sparsity(x: Columns, shape: Shape) -> Columns:
    return {EXPERTS: expansion(x), "top_k": 1.0}


def _tencent(x: Columns, shape: Shape) -> Columns:
    dense = np.asarray(x[EXPERTS]) == 1
    return {
        "active_experts": np.where(dense, shape[0], x["active_experts"]),
        "shared_share": np.where(dense, shape[1], x["shared_share"]),
    }


def _published(name: str) -> Callable[[], Fit]:
    return lambda: with_draws(name)


READINGS: Mapping[str, Reading] = {
    reading.name: reading
    for reading in (
        Reading("joint-moe-2025", _published("joint-moe-2025"), _joint, (), JOINT_MOE, studied_to=32.0),
        Reading(
            "fine-grained-2024",
            fine_grained,
            _fine_grained,
            ("n_active_nonembed",),
            BY_EXPANSION,
            studied_to=LARGEST,
            known_to=LARGEST,
        ),
        Reading("sparsity-2025", _published("sparsity-2025"), _sparsity, ("n_total",), SPARSITY, studied_to=50.0),
        Reading(
            "tencent-2025",
            _published("tencent-2025"),
            _tencent,
            ("n_total", "active_experts", "shared_share"),
            TENCENT,
            studied_to=_UNLIMITED,
        ),
    )
}
"""The published MoE laws that divide compute: clark has no D, leverage predicts a ratio of compute."""


@cache
def reading_law(name: str, shape: Shape = (1.0, 0.0)) -> Law:
    """The law of a reading, made once for a shape."""
    return READINGS[name].law(shape)
