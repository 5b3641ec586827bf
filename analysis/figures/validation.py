"""Panels of a validation: errors beyond a cut, residuals against a column, influence of runs, evidence for laws."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Palette, Panel
from analysis.fitting.refit import log_residuals
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.formatting import si

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.tables.runs import RunTable

_LABELS = {TOKENS: "training tokens D", EXPERTS: "experts per layer E", COMPUTE: "training FLOPs C"}
_MOST_BARS = 12
_MOST_COLUMNS = 6
_ALIKE = np.log(1.15)


def roll_out_errors(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Errors of runs that were not fitted, in percent of the prediction, by how far beyond the fitted runs they are.

    Columns `ratio` (the run's compute over the largest fitted), `n_experts`, `error`, `low`, `high`: the measurement
    and the ends of its 95 % prediction interval, all in percent of the predicted loss. Runs of similar `ratio` stand
    side by side in one column, ordered by E. Bars are the intervals; a run outside its interval is ringed in red.
    """
    rows = rows.assign(column=_columns(rows["ratio"].to_numpy(float)))
    order = rows.sort_values(["column", "n_experts", "ratio"], kind="stable")
    columns = order.groupby("column")["ratio"]
    place = order["column"] + 0.8 * ((columns.cumcount() + 0.5) / columns.transform("size") - 0.5)
    tint = [palette[int(e)] for e in order["n_experts"]]
    ax.axhline(0, color=style.MUTED, lw=0.9, zorder=1)
    ax.vlines(place, order["low"], order["high"], colors=tint, lw=2.4, alpha=0.35, zorder=2)
    outside = (order["error"] < order["low"]) | (order["error"] > order["high"])
    ring: Any = {"s": 46, "facecolors": "none", "edgecolors": style.ACCENT, "linewidths": 1.1, "zorder": 4}
    ax.scatter(place[outside], order.loc[outside, "error"], **ring)
    style.dots(place, order["error"], order["n_experts"], palette, ax)
    names = [
        f"{low}×" if low == high else f"{low}–{high}×"
        for low, high in zip(*(map(_two_digits, ends) for ends in (columns.min(), columns.max())), strict=True)
    ]
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="compute relative to the largest fitted run", ylabel="measured − predicted, %")
    ax.grid(visible=False, axis="x")
    for edge in range(len(names) - 1):
        ax.axvline(edge + 0.5, color=style.GRID, lw=0.8, zorder=0)
    return ax


def _columns(ratios: Array) -> Integers:
    """The column of each run: runs within a factor 1.15 of the next share one; at most six, joined where gaps are
    narrowest."""
    distinct = np.unique(ratios)
    gaps = np.diff(np.log(distinct))
    least = max(_ALIKE, *np.sort(gaps)[: -(_MOST_COLUMNS - 1)], 0.0)
    return np.asarray(np.concatenate([[0], np.cumsum(gaps > least)])[np.searchsorted(distinct, ratios)])


def _two_digits(ratio: float) -> str:
    return si(ratio, 2)


def residuals_against(
    values: Array,
    log_residuals: Array,
    n_experts: Array,
    palette: Palette,
    ax: Axes,
    *,
    label: str,
    flops: bool = False,
    bins: int = 6,
) -> Axes:
    """Measured minus predicted, in percent of the loss, against one column; the line joins medians of equal groups.

    `log_residuals` are of ln loss; `flops` writes the column in powers of ten. A line that leaves zero is a trend that
    the law lacks.
    """
    values, residuals = np.asarray(values, dtype=float), 100 * np.asarray(log_residuals, dtype=float)
    ax.axhline(0, color=style.MUTED, lw=0.9, zorder=1)
    shift = 0.0 if np.array_equal(values, n_experts) else style.side_by_side(n_experts, palette, values)
    style.dots(values * np.exp(shift), residuals, n_experts, palette, ax)
    distinct = np.unique(values)
    if len(distinct) <= bins:
        groups = [np.flatnonzero(values == value) for value in distinct]
    else:
        groups = np.array_split(np.argsort(values, kind="stable"), bins)
    if len(groups) > 1:
        middle = [[np.exp(np.mean(np.log(values[g]))), np.median(residuals[g])] for g in groups if len(g)]
        ax.plot(*np.transpose(middle), color=style.INK, lw=1.1, zorder=4)
    ax.set(xscale="log", xlabel=label, ylabel="measured − predicted, %")
    style.ticks(ax.xaxis, values, most=3, digits=2, write=style.bare_power if flops else si)
    return ax


def residual_panels(fit: Fit, table: RunTable, palette: Palette) -> list[Panel]:
    """The residuals of a fit against N, tokens, E and compute, as far as they vary."""
    residuals, experts = -log_residuals(fit, table), table.experts
    panels: list[Panel] = []
    for name in dict.fromkeys((fit.definition.n_column or "n_active", TOKENS, EXPERTS, COMPUTE)):
        values = table.column(name) if name in table.frame else np.zeros(len(table))
        if (np.isfinite(values) & (values > 0)).all() and np.ptp(values) > 0:
            draw = partial(residuals_against, values, residuals, experts, palette)
            panels.append(partial(draw, label=_LABELS.get(name, "model size N"), flops=name == COMPUTE))
    return panels


def influence(rows: pd.DataFrame, ax: Axes) -> Axes:
    """How far leaving out some runs moves a law: the quantity that changes most, in bootstrap standard errors.

    Columns `label`, `moved` (that quantity), `in_se` (signed) and `percent`; the largest change on top. Changes beyond
    two standard errors, the grey band, are larger than chance explains and red.
    """
    shown = rows.reindex(rows["in_se"].abs().sort_values(ascending=False).index).head(_MOST_BARS)
    far = shown["in_se"].abs() > 2
    ax.axvspan(-2, 2, color=style.MUTED, alpha=0.12, lw=0)
    ax.barh(range(len(shown)), shown["in_se"], color=np.where(far, style.ACCENT, style.INK), height=0.62)
    reach = 1.1 * max(float(shown["in_se"].abs().max()), 2.0)
    for place, row in enumerate(shown.to_dict("records")):
        size = format(row["percent"], "+.2g" if abs(row["percent"]) < 99.5 else "+.0f")
        text = f"{row['moved']} {size} %".replace("-", "−")
        style.beside_bar(text, 0, place, ax, left=row["in_se"] >= 0)  # beside zero, where the bar is not
    ax.axvline(0, color=style.MUTED, lw=0.8)
    style.named_rows(shown["label"], ax, fontsize=6.5)
    ax.invert_yaxis()
    ax.set(xlabel="change in bootstrap standard errors", xlim=(-reach, reach))
    return ax


def evidence(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Weight of evidence of every law, best on top. Columns `law`, `weight`, `difference`, `difference_se`.

    Bars are pseudo-BMA+ weights; in brackets the held-out log score minus that of the best law, and its standard error.
    """
    ax.barh(range(len(rows)), rows["weight"], color=[style.ACCENT, *[style.INK] * (len(rows) - 1)], height=0.62)
    for place, row in enumerate(rows.to_dict("records")):
        text = f"{row['weight']:.2f}"
        if row["difference"] < 0:
            text += f"  ({row['difference']:.1f} ± {row['difference_se']:.1f} nats)".replace("-", "−")
        inside = row["weight"] > 0.55
        style.beside_bar(text, row["weight"], place, ax, left=inside, color="white" if inside else style.INK)
    style.named_rows(rows["law"], ax)
    ax.invert_yaxis()
    ax.set(xlabel="weight of evidence", xlim=(0, 1))
    return ax
