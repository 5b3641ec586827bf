"""Panels of a comparison of methods: differences with intervals, decode times, router metrics, saturation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.figures import style

_FARTHEST = 4.0  # times the third quartile of the differences; larger ones are arrows


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """One colour for each method, the same in all figures; the dense model in grey. Repeats after 20."""
    shades = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    # tab20 has pairs of one hue: the strong ones first.
    colours = itertools.cycle(mpl.colors.to_hex(shade) for shade in (*shades[::2], *shades[1::2]))
    return {name: style.DENSE if name == "dense" else next(colours) for name in methods}


def method_differences(rows: pd.DataFrame, reference: str, ax: Axes) -> Axes:
    """Loss minus that of the reference, best method on top, with 95 % intervals: thick alone, thin all together.

    Columns `method`, `difference`, `low`, `high`, `low_all`, `high_all`, `rank_low`, `group`; without intervals the
    dots are hollow. Red methods may be the best; those that share a letter on the right do not differ significantly. A
    difference too large for the scale is an arrow at the edge with its value.
    """
    reach = _FARTHEST * float(rows["difference"].abs().quantile(0.75)) or np.inf
    for place, row in enumerate(rows.to_dict("records")):
        value, colour = row["difference"], style.ACCENT if row["rank_low"] == 1 else style.INK
        if row["method"] == reference:
            ax.plot(0, place, "D", color=style.MUTED, ms=4, zorder=4)
        elif abs(value) > reach:
            # The axis ends there, with the text inside.
            marker, end = (">", reach) if value > 0 else ("<", -reach)
            ax.plot(end, place, marker, color=colour, ms=4.6, clip_on=False, zorder=4)
            ha, offset = ("right", -7) if value > 0 else ("left", 7)
            style.beside(style.signed(value, "+.2f"), (end, place), (offset, 0), ax, ha=ha, va="center", fontsize=7)
        elif np.isnan(row["low"]):
            ax.plot(value, place, "o", color="white", mec=style.INK, ms=4, zorder=4)
        else:
            ax.plot([row["low_all"], row["high_all"]], [place, place], color=colour, lw=0.8)
            ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=2.6, solid_capstyle="butt")
            ax.plot(value, place, "o", color=colour, mec="white", mew=0.5, ms=4.6, zorder=4)
        edge: Any = ("axes fraction", "data")
        style.beside(row["group"], (1.0, place), (3, 0), ax, xycoords=edge, va="center", fontsize=7)
    ax.axvline(0, color=style.MUTED, lw=1.0, zorder=0)
    if (rows["difference"] < -reach).any():
        ax.set_xlim(left=-reach)
    if (rows["difference"] > reach).any():
        ax.set_xlim(right=reach)
    _method_rows(rows["method"], ax)
    ax.set_xlabel(f"loss − {'dense' if reference == 'dense' else 'reference'} loss, nats per token")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(lambda value, _: style.signed(value))
    return ax


def method_times(times: pd.DataFrame, methods: Sequence[str], ax: Axes) -> Axes:
    """Decode time over that of the reference, one row per method, one shade per batch. Columns of `decode_times`."""
    batches = sorted(times["batch"].unique())
    shades = mpl.colormaps["cividis"](np.linspace(0.05, 0.8, len(batches)))
    place = {name: index for index, name in enumerate(methods)}
    for offset, (batch, shade) in enumerate(zip(batches, shades, strict=True)):
        rows = times[(times["batch"] == batch) & times["method"].isin(place)]
        at = rows["method"].map(place) + 0.3 * (offset - (len(batches) - 1) / 2) / max(len(batches) - 1, 1)
        ax.scatter(rows["times"], at, color=shade, s=14, zorder=3, label=f"batch {batch}")
    ax.axvline(1, color=style.MUTED, lw=1.0, zorder=0)
    _method_rows(methods, ax, named=False)
    ax.set_xlabel("relative decode time")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    # Above the axes it covers no row.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(batches), handletextpad=0.1, columnspacing=0.8)
    return ax


def metric_beside_chance(rows: pd.DataFrame, methods: Sequence[str], ax: Axes, *, named: bool) -> Axes:
    """One router metric by method: mean and range over seeds; the grey tick is its value under random routing.

    Columns `method`, `value`, `least`, `most`, `chance`. `named`: whether rows carry the names of the methods.
    """
    place = {name: index for index, name in enumerate(methods)}
    rows = rows[rows["method"].isin(place)]
    at = rows["method"].map(place)
    ax.hlines(at, rows["least"], rows["most"], colors=style.INK, lw=1.6)
    ax.scatter(rows["value"], at, color=style.INK, s=13, zorder=3)
    ax.scatter(rows["chance"], at, color=style.MUTED, marker="|", s=60, linewidths=1.6, zorder=2)
    _method_rows(methods, ax, named=named)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    return ax


def saturation(curves: pd.DataFrame, colours: Mapping[str, str], ax: Axes) -> Axes:
    """Share of the final experts already chosen, against training tokens. Columns of `saturation`.

    Dashed lines: the share under random routing to as many experts as a method chooses at the end.
    """
    levels = curves.sort_values("tokens").groupby("method")["chance"].last()
    for level in sorted(set(levels.dropna().round(2))):
        ax.axhline(level, color=style.MUTED, lw=0.8, ls="--", zorder=1)
    for method, curve in curves.groupby("method", sort=False):
        ax.plot(curve["tokens"], curve["saturation"], color=colours[str(method)], lw=1.2)
    ax.set(xscale="log", xlabel="training tokens", ylabel="share of final experts chosen", ylim=(0, 1.03))
    style.ticks(ax.xaxis, curves["tokens"], digits=2)
    return ax


def _method_rows(methods: Sequence[str] | pd.Series, ax: Axes, *, named: bool = True) -> None:
    """A row for each method, the first on top."""
    style.named_rows(methods if named else [""] * len(methods), ax)
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
