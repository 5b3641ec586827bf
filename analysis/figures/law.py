"""Panels of runs and the law through them: coverage, loss, residuals, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Curve, Palette
from scaling.arrays import Array
from scaling.formatting import si

_FARTHEST = 300.0  # percent of an estimate
_SIDEWAYS = 0.06  # in ln E, between slices


def coverage(runs: pd.DataFrame, failed: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """The grid: active parameters against training tokens, one dot per E, failed cells as red crosses."""
    for frame, marker in ((runs, "o"), (failed, "x")):
        place = frame["tokens"] * np.exp(style.side_by_side(frame["n_experts"], palette, runs["tokens"]))
        tint = [palette[int(e)] for e in frame["n_experts"]] if marker == "o" else style.ACCENT
        ax.scatter(place, frame["n_active"], c=tint, s=15, marker=marker, linewidths=0 if marker == "o" else 1.3)
    ax.set(xscale="log", yscale="log", xlabel="training tokens D", ylabel="active parameters")
    style.ticks(ax.xaxis, runs["tokens"], digits=2)
    style.ticks(ax.yaxis, runs["n_active"])
    return ax


def loss_against(
    column: str, points: pd.DataFrame, curves: Sequence[Curve], palette: Palette, ax: Axes, *, label: str
) -> Axes:
    """Held-out loss against one column: measured points in the colour of their E, the law with its 95 % band."""
    for curve in curves:
        style.band(curve, palette[curve.n_experts], ax)
    style.dots(points[column], points["loss_val"], points["n_experts"], palette, ax)
    style.limit_losses(np.concatenate([points["loss_val"], *(curve.y for curve in curves)]), ax)
    ax.set(xscale="log", xlabel=label, ylabel="held-out loss, nats per token")
    style.ticks(ax.xaxis, points[column], digits=2 if column == "tokens" else 3)
    return ax


def loss_against_experts(points: pd.DataFrame, curves: Sequence[tuple[str, Curve]], ax: Axes) -> Axes:
    """Held-out loss against E: a line of the law for each named slice of the grid, points of the column `slice`.

    Bars are the 95 % intervals of the law at the E of the points, set side by side by slice.
    """
    shades = mpl.colormaps["cividis"](np.linspace(0.0, 0.75, len(curves)))
    for index, ((name, curve), shade) in enumerate(zip(curves, shades, strict=True)):
        rows = points[points["slice"] == name]
        ax.plot(curve.x, curve.y, color=shade, lw=1.3)
        place = rows["n_experts"] * np.exp(_SIDEWAYS * (index - (len(curves) - 1) / 2))
        if curve.low is not None and curve.high is not None:
            low, high = (np.interp(rows["n_experts"], curve.x, end) for end in (curve.low, curve.high))
            ax.vlines(place, low, high, colors=shade, lw=2.2, alpha=0.4)
        ax.scatter(place, rows["loss_val"], color=shade, s=17, zorder=3, edgecolors="white", linewidths=0.4)
    style.limit_losses(np.concatenate([points["loss_val"], *(curve.y for _, curve in curves)]), ax)
    ends = [curve.y[-1] for _, curve in curves]
    labels = style.kept_apart(ends, 0.08 * float(np.ptp(ax.get_ylim())))
    for (name, curve), shade, label in zip(curves, shades, labels, strict=True):
        style.beside(name, (curve.x[-1], label), (11, 0), ax, va="center", color=shade)
    ax.set(xscale="log", xlabel="experts per layer E", ylabel="held-out loss, nats per token")
    ax.margins(x=0.05)
    ax.set_xlim(right=float(points["n_experts"].max()) * 2.6)
    style.ticks(ax.xaxis, points["n_experts"], most=8)
    return ax


def observed_predicted(observed: Array, predicted: Array, n_experts: Array, palette: Palette, ax: Axes) -> Axes:
    """Measured against predicted loss; on the diagonal the law is exact."""
    ends = [min(observed.min(), predicted.min()), max(observed.max(), predicted.max())]
    ax.plot(ends, ends, color=style.MUTED, lw=0.9, zorder=1)
    style.dots(predicted, observed, n_experts, palette, ax)
    ax.set(xlabel="predicted loss, nats per token", ylabel="measured loss, nats per token")
    return ax


def paired_differences(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Loss minus that of the dense model of equal active size and tokens, with 95 % bars, grouped by size.

    Columns `n_active`, `tokens`, `n_experts`, `difference`, `se`.
    """
    experts, sizes = (sorted(set(rows[name])) for name in ("n_experts", "n_active"))
    cells = [(n, d) for n in sizes for d in sorted(set(rows.loc[rows["n_active"] == n, "tokens"]))]
    place = {cell: index + 0.6 * sizes.index(cell[0]) for index, cell in enumerate(cells)}
    for index, e in enumerate(experts):
        of_e = rows[rows["n_experts"] == e]
        x = np.array([place[cell] for cell in zip(of_e["n_active"], of_e["tokens"], strict=True)])
        shift = (index - (len(experts) - 1) / 2) * 0.6 / len(experts)
        bars = 1.96 * of_e["se"]
        ax.errorbar(x + shift, of_e["difference"], yerr=bars, fmt="o", color=palette[int(e)], ms=3.4, lw=1.1)
    ax.axhline(0, color=palette[1], lw=1.4)
    ax.set_xticks(list(place.values()), [si(d, 2) for _, d in cells], fontsize=6.5)
    for n in sizes:
        middle = np.mean([x for (size, _), x in place.items() if size == n])
        under: Any = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "top", "fontsize": 7}
        style.beside(f"{si(n)} active", (middle, 0), (0, -16), ax, **under)
    ax.set_ylabel("loss − dense loss, nats per token")
    ax.set_xlabel("training tokens D, by active parameters", labelpad=13)
    ax.grid(visible=False, axis="x")
    return ax


def parameter_intervals(params: Mapping[str, float], intervals: Mapping[str, Sequence[float]], ax: Axes) -> Axes:
    """Fitted parameters with their 95 % intervals, in percent of each estimate; those without an interval were pinned.

    An interval that reaches beyond +-300 % ends in an arrow.
    """
    names = list(params)[::-1]
    for row, name in enumerate(names):
        value, interval = params[name], intervals.get(name)
        if interval is None:
            ax.plot(0, row, "D", color="white", mec=style.MUTED, ms=4)
            style.beside("pinned", (0, row), (6, 0), ax, va="center", color=style.MUTED)
            continue
        ends = [float(np.clip(100 * (bound - value) / abs(value), -_FARTHEST, _FARTHEST)) for bound in interval]
        ax.plot(ends, [row, row], color=style.INK, lw=1.6, solid_capstyle="butt")
        ax.plot(0, row, "o", color=style.INK, ms=4)
        for end in ends:
            if abs(end) == _FARTHEST:
                ax.plot(end, row, ">" if end > 0 else "<", color=style.INK, ms=5)
    ax.axvline(0, color=style.MUTED, lw=0.8, zorder=0)
    style.named_rows(names, ax)
    ax.set(xlabel="95% interval, % of the estimate", ylim=(-0.6, len(names) - 0.4))
    ax.set_xscale("symlog", linthresh=10)
    reach = max(abs(bound) for bound in ax.get_xlim())
    marks = [sign * mark for sign in (-1, 1) for mark in (10, 30, 100, _FARTHEST) if mark <= reach]
    style.fixed_ticks(ax.xaxis, sorted([0, *marks]), lambda value: style.signed(value, "+.0f"))
    return ax
