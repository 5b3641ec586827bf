"""Panels of the latency law: measured against modelled times and the roofline, and the errors of the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Palette

_LIMIT = 60.0  # percent; larger errors are drawn at the edge


def measured_modelled(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Measured against modelled time, ms, by E, with the line of equality; grey marks are the roofline of each row.

    Columns `modelled_ms`, `time_ms`, `floor_ms`, `n_experts`.
    """
    times = rows[["modelled_ms", "time_ms"]]
    reach = [times.min().min(), times.max().max()]
    ax.plot(reach, reach, color=style.MUTED, lw=0.9, zorder=2)
    ax.scatter(rows["modelled_ms"], rows["floor_ms"], s=7, marker="_", c=style.MUTED, linewidths=0.7, zorder=1)
    style.dots(rows["modelled_ms"], rows["time_ms"], rows["n_experts"], palette, ax)
    ax.annotate("− roofline", (0.98, 0.04), xycoords="axes fraction", ha="right", color=style.MUTED, fontsize=7)
    ax.set(xscale="log", yscale="log", xlabel="modelled time, ms", ylabel="measured time, ms")
    style.ticks(ax.xaxis, reach, digits=2, studied=False)
    style.ticks(ax.yaxis, [min(reach[0], rows["floor_ms"].min()), reach[1]], digits=2, studied=False)
    return ax


def time_errors(rows: pd.DataFrame, by: str, label: str, palette: Palette, ax: Axes) -> Axes:
    """Modelled over measured time minus 1, in percent, against a column, with medians as red bars; errors beyond 60 %
    are drawn at the edge.

    Columns `error`, `n_experts` and that of `by`.
    """
    error = np.clip(100 * rows["error"].to_numpy(float), -_LIMIT, _LIMIT)
    shift = 0.0 if by == "n_experts" else style.side_by_side(rows["n_experts"], palette, rows[by])
    ax.axhline(0, color=style.MUTED, lw=0.9, zorder=1)
    colours = [palette[int(e)] for e in rows["n_experts"]]
    ax.scatter(rows[by] * np.exp(shift), error, c=colours, s=5, alpha=0.6, linewidths=0)
    middle = (100 * rows["error"]).groupby(rows[by]).median()
    span = max(rows[by].max() / rows[by].min(), 2.0) ** 0.03
    ax.hlines(middle, middle.index / span, middle.index * span, colors=style.ACCENT, lw=1.6, zorder=4)
    ax.set(xscale="log", xlabel=label, ylabel="modelled − measured, %", ylim=(-_LIMIT - 4, _LIMIT + 4))
    style.ticks(ax.xaxis, rows[by])
    return ax
