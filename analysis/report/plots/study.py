"""The figures of a study and its law: which slices are shown, with the law through them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import Curve, Figure, titled
from analysis.fitting.fit import Fit
from analysis.report.measured import shown_latency, with_most, with_sizes
from analysis.report.plots.decision import palette_of
from analysis.report.study import ReportStudy
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.formatting import si

_POINTS = 60


def drawn(study: ReportStudy) -> list[Callable[[ReportStudy], Figure]]:
    """The figures that this study has."""
    if not study.answers:
        return []
    there = {
        **dict.fromkeys((coverage, loss_against_size_and_tokens, loss_against_experts, parameters), True),
        paired: len(study.effects.rows) > 0,
        latency: len(study.latency) > 0,
    }
    return [draw for draw, has_data in there.items() if has_data]


def law_curve(fit: Fit, n_experts: Array, n_active: Array, tokens: Array, x: Array) -> Curve:
    """The law along x with the 95% band of its draws; the first E gives the colour."""
    definition, size = fit.definition, n_active
    if definition.n_column != "n_active" and fit.family is not None:
        models = zip(n_active, n_experts, strict=True)
        size = np.array([fit.family.sizes(np.array([n]), int(e)).column(definition.n_column)[0] for n, e in models])
    columns = {definition.n_column: size, TOKENS: tokens, EXPERTS: n_experts}
    band = fit.loss_interval(columns)
    return Curve(int(n_experts[0]), x, fit.loss(columns), *(band or (None, None)))


def coverage(study: ReportStudy) -> Figure:
    """Which cells were run."""
    palette = palette_of(study)
    failed = study.failed.dropna(subset=["n_active", TOKENS, EXPERTS])
    draw = partial(figures.coverage, study.table.frame, failed, palette)
    return figures.figure(draw, height=1.8, legend=palette, width=5.0)


def sliced(study: ReportStudy) -> bool:
    """Whether some size was trained on several token budgets, so that a slice through the runs shows them."""
    return int(with_sizes(study.table.frame).groupby("size")[TOKENS].nunique().max()) > 1


def loss_against_size_and_tokens(study: ReportStudy) -> Figure:
    """Loss against tokens at the smallest and the largest size, and against size at the budget with most sizes.

    Where no size has two budgets, the law along its axes with every run brought there (`figures.along`).
    """
    fit, palette = study.law_fit, palette_of(study)
    if not sliced(study):
        names = [name for name in (fit.definition.n_column, TOKENS) if name]
        axes = [partial(figures.along, name, fit, study.table, palette) for name in names]
        return figures.figure(*axes, height=2.5, legend=palette)
    frame = with_sizes(study.table.frame)
    budgets = frame.groupby("size")[TOKENS].nunique()
    several = budgets[budgets > 1].index
    slices = [
        (TOKENS, "training tokens D", frame[frame["size"] == size], f"{si(size)} active parameters")
        for size in sorted({several.min(), several.max()})
    ]
    widest = with_most(frame, TOKENS, "size")
    if len(widest["size"].unique()) > 1:
        title = f"{si(widest[TOKENS].iloc[0], 2)} training tokens"
        slices.append(("n_active", "active parameters", widest, title))
    panels = []
    for column, label, points, title in slices:
        along = np.geomspace(float(points[column].min()), float(points[column].max()), _POINTS)
        same = np.ones_like(along)
        size, tokens = points["size"].iloc[0] * same, points[TOKENS].iloc[0] * same
        size, tokens = (size, along) if column == TOKENS else (along, tokens)
        studied = sorted(set(points[EXPERTS].astype(int)))
        curves = [law_curve(fit, e * same, size, tokens, along) for e in studied]
        draw = partial(figures.loss_against, column, points, curves, palette, label=label)
        panels.append(titled(draw, title))
    return figures.figure(*panels, height=2.5, legend=palette)


def loss_against_experts(study: ReportStudy) -> Figure:
    """Loss against E at the corners of the grid, with the residuals of the law beside it."""
    fit, palette = study.law_fit, palette_of(study)
    frame = with_sizes(study.table.frame)
    varied = frame.groupby(["size", TOKENS])[EXPERTS].nunique()
    cells = list(varied[varied > 1].index) or list(varied.index)
    first, last = min(cells)[0], max(cells)[0]
    corners = [end(cell for cell in cells if cell[0] == size) for size in (first, last) for end in (min, max)]
    along = np.unique(np.geomspace(1, frame[EXPERTS].max(), _POINTS).round())
    same = np.ones_like(along)
    curves, points = [], []
    for size, budget in dict.fromkeys(corners):
        name = f"{si(size)}, {si(budget, 2)}"
        curves.append((name, law_curve(fit, along, size * same, budget * same, along)))
        points.append(frame[(frame["size"] == size) & (frame[TOKENS] == budget)].assign(slice=name))
    shown = pd.concat(points)
    draw = partial(figures.loss_against_experts, shown, curves)
    effect = titled(draw, "By active parameters, tokens")
    predicted, observed = fit.loss(study.table.columns(fit.definition.columns)), study.table.column("loss_val")
    experts, tokens = study.table.column(EXPERTS), study.table.column(TOKENS)
    agreement = partial(figures.observed_predicted, observed, predicted, experts, palette)
    errors = np.log(observed / predicted)
    residuals = partial(figures.residuals_against, tokens, errors, experts, palette, label="training tokens D")
    panels = [effect, titled(agreement, "Law against measurement"), titled(residuals, "Residuals")]
    if len(palette) == 1:
        return figures.figure(*panels[1:], height=2.5)
    return figures.figure(*panels, height=2.5, legend=palette, ratios=[1.35, 1, 1])


def paired(study: ReportStudy) -> Figure:
    """Every routed run against its dense twin."""
    palette, rows = palette_of(study), with_sizes(study.effects.rows)
    rows = rows.assign(n_active=rows["size"])
    return figures.figure(partial(figures.paired_differences, rows, palette), height=2.2, legend=palette)


def parameters(study: ReportStudy) -> Figure:
    """Intervals of the fitted parameters."""
    fit = study.law_fit
    draw = partial(figures.parameter_intervals, dict(fit.params), dict(fit.intervals))
    return figures.figure(draw, height=0.5 + 0.16 * len(fit.params), width=4.6)


def latency(study: ReportStudy) -> Figure:
    """Measured prefill and decode of the largest size, one context, by E."""
    rows, palette = shown_latency(study.latency), palette_of(study)
    panels = []
    for phase, name in (("prefill", "Prefill of"), ("decode", "One decode step at")):
        times = rows[rows["phase"] == phase]
        if len(times):
            draw = partial(figures.step_times, times, palette)
            panels.append(titled(draw, f"{name} {si(times['context'].iloc[0])} tokens"))
    return figures.figure(*panels, height=2.5, legend=palette)
