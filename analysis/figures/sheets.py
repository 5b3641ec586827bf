"""Whole pages: a fit, a validation, a latency law and an engine's speed, each on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations, islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.engines import by_group
from analysis.figures.fit import along, cloud, profile_curve
from analysis.figures.latency import measured_modelled, time_errors
from analysis.figures.law import observed_predicted
from analysis.figures.style import Palette, Panel, colours, pages, titled
from analysis.figures.validation import evidence, influence, residual_panels, residuals_against, roll_out_errors
from analysis.fitting.refit import log_residuals
from scaling.columns import EXPERTS, TOKENS

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.tables.runs import RunTable

_CLOUDS = 3  # pairs of parameters
_A_ROW = 3


def fit_sheet(fit: Fit, table: RunTable, profiles: Sequence[Profile]) -> Figure:
    """The law along every axis, its residuals, profiles, and clouds of draws of its first exponents."""
    palette = colours(table.experts)
    columns = table.columns(fit.definition.columns)
    law: list[Panel] = [partial(along, name, fit, table, palette) for name in columns if np.ptp(columns[name]) > 0]
    observed = table.column(fit.definition.target)
    law.append(partial(observed_predicted, observed, fit.loss(columns), table.experts, palette))
    if TOKENS in columns:
        errors = -log_residuals(fit, table)
        law.append(
            partial(residuals_against, columns[TOKENS], errors, table.experts, palette, label="training tokens D")
        )
    curves: list[Panel] = [partial(profile_curve, profile, fit.params[profile.name]) for profile in profiles]
    draws = {name: np.array(values) for name, values in fit.draws.items()}
    exponents = [name for name in fit.free if fit.definition.parameter(name).linear == "" and name in draws]
    clouds: list[Panel] = [
        partial(cloud, draws[a], draws[b], (fit.params[a], fit.params[b]), (a, b))
        for a, b in islice(combinations(exponents, 2), _CLOUDS)
    ]
    rows: list[list[Panel]] = []
    for title, panels in (("The law and the runs", law), ("Profiles", curves), ("Bootstrap draws", clouds)):
        for first in range(0, len(panels), _A_ROW):
            row = panels[first : first + _A_ROW]
            row[0] = titled(row[0], "" if first else title)
            rows.append(row + [_blank] * (_A_ROW - len(row)))
    return pages(*rows, heights=[2.1] * len(rows), legend=palette)


def _blank(ax: Axes) -> Axes:
    ax.set_axis_off()
    return ax


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


def engine_sheet(rows: pd.DataFrame) -> Figure:
    """Measured against modelled times per token, by model and by engine."""
    panels = [titled(partial(by_group, rows, column), f"By {column}") for column in ("model", "engine")]
    return pages(panels, heights=[3.2], legend={})


def _colours(experts: Sequence[int] | pd.Series | np.ndarray) -> Palette:
    """The colours of these expert counts."""
    present = {int(e) for e in experts}
    return {e: colour for e, colour in colours(present).items() if e in present}
