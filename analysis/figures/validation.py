"""Panels of a fit validated: errors beyond a cut, residuals against a column, influence of runs, evidence for laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Palette
from scaling.arrays import Array
from scaling.formatting import si

_MOST_BARS = 12
_SPREAD = 0.012  # of the axis' logarithm: predictions at one compute ratio stand beside each other


def roll_out_errors(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Measured loss of runs that were not fitted, in percent of the prediction, against their multiple of compute.

    Columns `ratio` (run's compute over the largest fitted), `n_experts`, `error`, `low`, `high`: the measurement and
    the ends of its 95 % prediction interval, all in percent of the predicted loss. Bars are the intervals; a run
    outside of its own is ringed in red.
    """
    order = rows.sort_values(["ratio", "n_experts"], kind="stable")
    shift = order.groupby("ratio").cumcount() - (order.groupby("ratio")["error"].transform("size") - 1) / 2
    span = float(np.log(max(order["ratio"].max() / order["ratio"].min(), 2.0)))
    place = order["ratio"] * np.exp(_SPREAD * span * shift)
    tint = [palette[int(e)] for e in order["n_experts"]]
    ax.axhline(0, color=style.MUTED, lw=0.9, zorder=1)
    ax.vlines(place, order["low"], order["high"], colors=tint, lw=2.4, alpha=0.35, zorder=2)
    outside = (order["error"] < order["low"]) | (order["error"] > order["high"])
    ring: Any = {"s": 46, "facecolors": "none", "edgecolors": style.ACCENT, "linewidths": 1.1, "zorder": 4}
    ax.scatter(place[outside], order.loc[outside, "error"], **ring)
    style.dots(place, order["error"], order["n_experts"], palette, ax)
    ax.set(xscale="log", xlabel="compute, times the largest run fitted", ylabel="measured − predicted, % of loss")
    style.ticks(ax.xaxis, [place.min(), place.max()], digits=2, studied=False)
    return ax


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
    """Measured minus law, in percent of the loss, against one column; the line joins the medians of equal groups.

    `log_residuals` are measured minus law of ln loss; `flops` writes the column in powers of ten. A line that leaves
    zero is a trend that the law does not have.
    """
    values, residuals = np.asarray(values, dtype=float), 100 * np.asarray(log_residuals, dtype=float)
    ax.axhline(0, color=style.MUTED, lw=0.9, zorder=1)
    style.dots(values, residuals, n_experts, palette, ax)
    distinct = np.unique(values)
    if len(distinct) <= bins:
        groups = [np.flatnonzero(values == value) for value in distinct]
    else:
        groups = np.array_split(np.argsort(values, kind="stable"), bins)
    if len(groups) > 1:
        middle = [[np.exp(np.mean(np.log(values[g]))), np.median(residuals[g])] for g in groups if len(g)]
        ax.plot(*np.transpose(middle), color=style.INK, lw=1.1, zorder=4)
    ax.set(xscale="log", xlabel=label, ylabel="measured − law, %")
    style.ticks(ax.xaxis, values, most=3 if flops else 4, digits=2, write=style.bare_power if flops else si)
    return ax


def influence(rows: pd.DataFrame, ax: Axes) -> Axes:
    """How far leaving out some runs moves a law, in bootstrap standard errors of what moves most, largest on top.

    Columns `label`, `moved` (what moves most), `in_se` (signed) and `percent`. Beyond the grey band, two standard
    errors, the runs left out decide more than chance does; such bars are red.
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
    ax.set(xlabel="change, bootstrap standard errors", xlim=(-reach, reach))
    return ax


def evidence(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Weight of evidence of every law, best on top. Columns `law`, `weight`, `difference`, `difference_se`.

    Bars are pseudo-BMA+ weights; the text is the held-out log score less that of the best law, with its standard error.
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
