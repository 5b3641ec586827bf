"""Whole pages: a fit, a validation and a latency law, each on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations, islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.fit import sheet
from analysis.figures.latency import measured_modelled, time_errors
from analysis.figures.style import Palette, Panel, colours, pages, titled
from analysis.figures.validation import evidence, influence, residual_panels, roll_out_errors
from scaling.columns import EXPERTS

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.tables.runs import RunTable

_CLOUDS = 3  # pairs of parameters drawn against each other


def fit_sheet(fit: Fit, table: RunTable, profiles: Sequence[Profile]) -> Figure:
    """The law along every axis, its residuals, profiles, and clouds of draws of its first exponents."""
    draws = {name: np.array(values) for name, values in fit.draws.items()}
    exponents = [name for name in fit.free if fit.definition.parameter(name).linear == "" and name in draws]
    pairs = islice(combinations(exponents, 2), _CLOUDS)
    return sheet(fit, table, profiles, {(a, b): (draws[a], draws[b]) for a, b in pairs})


def validation_sheet(
    fit: Fit, table: RunTable, roll_out: pd.DataFrame, weights: pd.DataFrame, exclusions: pd.DataFrame
) -> Figure:
    """Roll-out beside evidence, residuals against each column, influence; a row without data is left out.

    The frames are those of `roll_out_errors`, `evidence` (drawn for two laws or more) and `influence`.
    """
    palette = _colours(table.experts)
    top = [titled(partial(roll_out_errors, roll_out, palette), "Roll-out")] if len(roll_out) else []
    top += [titled(partial(evidence, weights), "Laws")] if len(weights) > 1 else []
    middle = residual_panels(fit, table, palette)
    bottom = [titled(partial(influence, exclusions), "Influence of runs left out")] if len(exclusions) else []
    rows = [(panels, height) for panels, height in ((top, 2.5), (middle, 1.9), (bottom, 2.9)) if panels]
    return pages(*(panels for panels, _ in rows), heights=[height for _, height in rows], legend=palette)


def latency_sheet(rows: pd.DataFrame) -> Figure:
    """Measured against modelled times by phase; below, the errors against batch and E."""
    palette = _colours(rows[EXPERTS])
    top = [
        titled(partial(measured_modelled, rows[rows["phase"] == phase], palette), phase.capitalize())
        for phase in ("prefill", "decode")
        if (rows["phase"] == phase).any()
    ]
    bottom: list[Panel] = [
        partial(time_errors, rows, by, label, palette)
        for by, label in (("batch", "batch size"), (EXPERTS, "experts per layer E"))
    ]
    return pages(top, bottom, heights=[3.0, 2.1], legend=palette)


def _colours(experts: Sequence[int] | pd.Series | np.ndarray) -> Palette:
    """The colours of these expert counts."""
    present = {int(e) for e in experts}
    return {e: colour for e, colour in colours(present).items() if e in present}
