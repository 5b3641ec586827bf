"""Panels of an isoFLOP analysis: valleys of loss against size, and the frontier through their minima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures import style
from scaling.arrays import Array
from scaling.formatting import powers

if TYPE_CHECKING:
    from analysis.isoflop.frontier import Frontier
    from analysis.isoflop.valleys import Valley, Valleys

_PAST = 0.12  # share of the window that a parabola extends beyond it
_LABELS = 9  # budgets labelled beside their parabolas; of more, some of the unflagged ones


def isoflop_valleys(valleys: Valleys, ax: Axes, *, label: str = "active parameters N") -> Axes:
    """Loss against N of one E: the runs of each budget in one colour, their parabola, and its minimum as a star.

    A flagged valley has hollow points, a dashed parabola and a hollow star, without a minimum no star.
    """
    ordered = sorted(valleys.valleys, key=lambda valley: valley.train_flops)
    sizes, losses = valleys.table.column(valleys.n_column), valleys.table.column("loss_val")
    named = [v for v in ordered if len(ordered) <= _LABELS or not v.flags] or ordered
    named = named[:: -int(np.ceil(len(named) / _LABELS))]
    for valley, shade in zip(ordered, _shades(ordered), strict=True):
        flagged = bool(valley.flags)
        face, edge, width, dashes = ("white", shade, 0.9, "--") if flagged else (shade, style.INK, 0.4, "-")
        x, y = sizes[valley.rows], losses[valley.rows]
        ax.scatter(x, y, s=13, zorder=3, facecolors=face, edgecolors=shade, linewidths=width)
        curve, parabola = _parabola(valley, log_loss=valleys.log_loss)
        ax.plot(curve, parabola, color=shade, lw=0.8 if flagged else 1.2, ls=dashes, zorder=2)
        if valley.n_range[0] <= valley.n_opt <= valley.n_range[1]:
            ax.plot(valley.n_opt, valley.loss, "*", ms=8, color=face, mec=edge, mew=0.6, zorder=4)
        if valley in named:
            end = curve[-1], parabola[-1]
            look: Any = {"va": "center", "color": shade, "zorder": 5, "bbox": style.PLATE}
            style.beside(powers(valley.train_flops, 2), end, (4, 0), ax, **look)
    ax.set(xscale="log", xlabel=label, ylabel="loss, nats per token")
    low, high = min(v.n_range[0] for v in ordered), max(v.n_range[1] for v in ordered)
    ax.set_xlim(low * 0.8, high * (high / low) ** 0.22)  # room for the budgets' names
    style.ticks(ax.xaxis, [low, high], studied=False)
    return ax


def isoflop_frontier(
    valleys: Valleys, line: Frontier, ax: Axes, *, budget: float | None = None, label: str = "compute-optimal N"
) -> Axes:
    """N* against C of one E: the minima of the valleys with intervals, the power law and its 95 % band.

    Minima left out of the regression are hollow. With a `budget` the line is extrapolated to it and N* marked there.
    """
    minima = [valley for valley in valleys.valleys if np.isfinite(valley.n_opt)]
    used = {id(valley) for valley in line.used}
    spent = [valley.train_flops for valley in minima]
    reach = np.geomspace(min(spent), max([*spent, budget or 0.0]), 80)
    sizes = line.n_opt.predict(reach)
    ax.fill_between(reach, sizes.low, sizes.high, color=style.INK, alpha=0.12, lw=0, zorder=1)
    ax.plot(reach, sizes.mean, color=style.INK, lw=1.2, zorder=2)
    shown = [sizes.low.min(), sizes.high.max()]
    for valley, shade in zip(minima, _shades(minima), strict=True):
        fitted = id(valley) in used
        if valley.n_interval is not None and fitted:
            ax.vlines(valley.train_flops, *valley.n_interval, colors=shade, lw=1.2, zorder=3)
        if fitted or shown[0] / 3 < valley.n_opt < shown[1] * 3:
            ax.plot(valley.train_flops, valley.n_opt, "o", color=shade if fitted else "white", mec=shade, zorder=4)
    if budget is not None:
        there = line.n_opt.predict(budget)
        ax.vlines(budget, there.low[0], there.high[0], colors=style.ACCENT, lw=1.6, zorder=4)
        ax.plot(budget, there.mean[0], "*", ms=8, color=style.ACCENT, zorder=5)
    low, high = line.n_opt.exponent_interval
    exponent = f"N* ∝ C^{line.n_opt.exponent:.3f}\n95% {low:.3f} to {high:.3f}"
    ax.annotate(exponent, (0.04, 0.96), xycoords="axes fraction", va="top", fontsize=7)
    if any(id(valley) not in used for valley in minima):
        key = Line2D([], [], marker="o", ls="", color=style.MUTED, markerfacecolor="white", label="left out")
        ax.legend(handles=[key], loc="lower right", handletextpad=0.1)
    ax.set(xscale="log", yscale="log", xlabel="training FLOPs C", ylabel=label)
    decades = np.arange(np.ceil(np.log10(reach[0]) - 0.05), np.floor(np.log10(reach[-1]) + 0.05) + 1)
    if len(decades) >= 2:
        style.ticks(ax.xaxis, 10.0 ** decades[:: int(np.ceil(len(decades) / 6))])
    else:
        style.ticks(ax.xaxis, reach, studied=False)
    style.ticks(ax.yaxis, shown, studied=False)
    return ax


def _shades(ordered: Sequence[Valley]) -> list[str]:
    """A colour for each budget by ln C, dark for large ones."""
    places = np.log([valley.train_flops for valley in ordered])
    span = np.ptp(places) or 1.0
    return [mpl.colors.to_hex(mpl.colormaps["viridis"](0.9 - 0.85 * (p - places.min()) / span)) for p in places]


def _parabola(valley: Valley, *, log_loss: bool) -> tuple[Array, Array]:
    """The parabola of a valley over its window and slightly beyond."""
    low, high = (np.log(end) - valley.centre for end in valley.n_range)
    u = np.linspace(low - _PAST * (high - low), high + _PAST * (high - low), 60)
    y = np.polyval(valley.coefficients[::-1], u)
    return np.exp(u + valley.centre), np.exp(y) if log_loss else y
