"""One shape of experts: the models of a fit with experts divided, and lineages as tables that are searched fast."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from analysis.decision.lineage import sizes_of_lineage
from analysis.decision.question import Question
from analysis.fitting.fit import Fit
from analysis.laws.expert_shape import SHAPE_COLUMNS
from analysis.laws.model_family import SIZE_COLUMNS, PolynomialFamily, TableFamily
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.families import ArchitectureFamily

_SIZES, _ENDS = 400, (1e4, 1e15)


def tabulated(lineage: ArchitectureFamily, experts: Iterable[int], columns: Iterable[str]) -> TableFamily:
    """A lineage as a table of some columns, with what routing computes, for searches over many models: `_SIZES` of
    each E over eleven decades, 6 % apart, between which logarithms are interpolated."""
    grid = np.geomspace(*_ENDS, _SIZES)
    names = sorted(({*columns, "n_total"} & set(SIZE_COLUMNS) | {"n_routing"}) - {"top_k"})
    rows: dict[int, dict[str, tuple[float, ...]]] = {}
    shapes: dict[int, dict[str, float]] = {}
    for e in experts:
        sizes = sizes_of_lineage(lineage, grid, e)
        found = {name: getattr(sizes, name) for name in names if getattr(sizes, name, None) is not None}
        steady = {name: values for name, values in found.items() if name in SHAPE_COLUMNS and np.ptp(values) == 0}
        shapes[e] = {name: float(values[0]) for name, values in steady.items()}
        kept = {name: values for name, values in found.items() if name not in steady and np.all(values > 0)}
        rows[e] = {name: tuple(values.tolist()) for name, values in {"n_active": grid, **kept}.items()}
    k = {e: min(lineage.k, e) for e in rows}
    return TableFamily(rows, None, source=lineage.source, top_k_of=k, shape_of=shapes)


def divides(fit: Fit, question: Question) -> bool:
    """Whether a question is about the fit's own models with their experts divided: it names granularities and no
    lineage, and the law reads the granularity of models that the family of the fit can divide."""
    own = isinstance(fit.family, PolynomialFamily) and "granularity" in fit.family.shape
    reads = "granularity" in fit.definition.columns and "granularity" not in fit.settings
    return own and reads and question.family is None and bool(question.granularity)


def in_shape(fit: Fit, question: Question) -> Fit:
    """The fit of models of the one shape that a question names: experts of a studied family, divided into G.

    A lineage that is priced takes its shape from the question itself (`Question.pricing`). Raises InputError for
    several shapes, and for one that the fit's models cannot have.
    """
    asked = {name: getattr(question, name) for name in ("top_k", "granularity", "n_shared")}
    for name, values in asked.items():
        if len(values) > 1:
            raise InputError(f"`{name}` has {len(values)} values: one shape is asked about at a time")
    named = [f"`{name}`" for name, values in asked.items() if values]
    if not named or question.family is not None:
        return fit
    if not divides(fit, question):
        raise InputError(
            f"{listed(named)}: law {fit.law} says nothing of other shapes of experts than those of its runs; `family` "
            "or `like` names models that are priced in another"
        )
    if len(named) > 1:
        raise InputError(
            f"{listed(named)}: give `granularity` alone; experts of a token are together as wide as a dense MLP, so "
            "that k = G"
        )
    if "granularity" in question.settings:
        raise InputError("`set` granularity: give it as `granularity` alone, which is priced too")
    family = fit.family
    assert isinstance(family, PolynomialFamily)
    parts = question.granularity[0] / family.shape["granularity"]
    if parts != round(parts) or parts < 1:
        raise InputError(f"`granularity`: experts can be divided into whole parts alone, found {parts:g}")
    experts = tuple(e * round(parts) if e > 1 else e for e in fit.experts)
    return replace(fit, family=family.divided(round(parts)), experts=experts)
