"""Panels of methods compared: differences with intervals, decode times, router metrics beside chance, saturation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures.style import ACCENT, INK, MUTED, ticks

_SHADES = "cividis"
_FARTHEST = 4.0  # times the third quartile of the differences: beyond it, an arrow


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """One colour for each method, the same in all figures; the dense model in grey. Repeats after 20."""
    names = [name for name in methods if name != "dense"]
    shades = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    # tab20 comes in pairs of one hue: the strong ones first.
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    found = {name: mpl.colors.to_hex(shades[order[i % 20]]) for i, name in enumerate(names)}
    return {name: found.get(name, "#98a2b3") for name in methods}


def method_differences(rows: pd.DataFrame, reference: str, ax: Axes) -> Axes:
    """Loss minus the reference's, best method on top: dot, 95 % interval (thick), and that of all together (thin).

    Columns `method`, `difference`, `low`, `high`, `low_all`, `high_all`, `rank_low`, `group`; without intervals the
    dots are hollow. Letters on the right: methods that share one cannot be told apart; red: may be the best. One that
    is so far off that the others would not be told apart by eye stands at the edge as an arrow with its value.
    """
    reach = _FARTHEST * float(rows["difference"].abs().quantile(0.75)) or np.inf
    for place, (_, row) in enumerate(rows.iterrows()):
        value = row["difference"]
        tint = ACCENT if row["rank_low"] == 1 else INK
        if row["method"] == reference:
            ax.plot(0, place, "D", color=MUTED, ms=4, zorder=4)
        elif abs(value) > reach:
            # The axis ends there; the text stands inside.
            ax.plot(
                np.sign(value) * reach, place, ">" if value > 0 else "<", color=tint, ms=4.6, clip_on=False, zorder=4
            )
            ax.annotate(
                f"{value:+.2f}".replace("-", "−"), (np.sign(value) * reach, place), xytext=(-7 * np.sign(value), 0),
                textcoords="offset points", ha="right" if value > 0 else "left", va="center", fontsize=7,
            )  # fmt: skip
        elif np.isnan(row["low"]):
            ax.plot(value, place, "o", color="white", mec=INK, ms=4, zorder=4)
        else:
            ax.plot([row["low_all"], row["high_all"]], [place, place], color=tint, lw=0.8)
            ax.plot([row["low"], row["high"]], [place, place], color=tint, lw=2.6, solid_capstyle="butt")
            ax.plot(value, place, "o", color=tint, mec="white", mew=0.5, ms=4.6, zorder=4)
        ax.annotate(
            row["group"], (1.0, place), xytext=(3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    ax.axvline(0, color=MUTED, lw=1.0, zorder=0)
    if (rows["difference"].abs() > reach).any():
        ends = [
            -reach if (rows["difference"] < -reach).any() else None,
            reach if rows["difference"].max() > reach else None,
        ]
        ax.set_xlim(*ends)
    _listed(rows["method"], ax)
    ax.set_xlabel(f"loss − {'dense' if reference == 'dense' else 'reference'} loss, nats per token")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    return ax


def method_times(times: pd.DataFrame, methods: Sequence[str], ax: Axes) -> Axes:
    """Decode time over the reference's, a row for each method and a shade for each batch. Columns of `decode_times`."""
    batches = sorted(times["batch"].unique())
    shades = mpl.colormaps[_SHADES](np.linspace(0.05, 0.8, len(batches)))
    place = {name: index for index, name in enumerate(methods)}
    for offset, (batch, shade) in enumerate(zip(batches, shades, strict=True)):
        mine = times[(times["batch"] == batch) & times["method"].isin(place)]
        at = mine["method"].map(place) + 0.3 * (offset - (len(batches) - 1) / 2) / max(len(batches) - 1, 1)
        ax.scatter(mine["times"], at, color=shade, s=14, zorder=3, label=f"batch {batch}")
    ax.axvline(1, color=MUTED, lw=1.0, zorder=0)
    _listed(methods, ax, named=False)
    ax.set_xlabel("relative decode time")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    # Above the axes no row is covered, whatever the times are.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(batches), handletextpad=0.1, columnspacing=0.8)
    return ax


def metric_beside_chance(rows: pd.DataFrame, methods: Sequence[str], ax: Axes, *, named: bool) -> Axes:
    """One router metric by method: mean and range over seeds; the grey stroke is what routing by chance gives.

    Columns `method`, `value`, `least`, `most`, `chance`. `named`: whether the methods' names stand beside it.
    """
    place = {name: index for index, name in enumerate(methods)}
    mine = rows[rows["method"].isin(place)]
    at = mine["method"].map(place)
    ax.hlines(at, mine["least"], mine["most"], colors=INK, lw=1.6)
    ax.scatter(mine["value"], at, color=INK, s=13, zorder=3)
    ax.scatter(mine["chance"], at, color=MUTED, marker="|", s=60, linewidths=1.6, zorder=2)
    _listed(methods, ax, named=named)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    return ax


def saturation(curves: pd.DataFrame, colours: Mapping[str, str], ax: Axes) -> Axes:
    """Share of the final experts chosen already, over training tokens. Columns of `saturation`.

    Dashed: what chance gives for as many experts as each method chooses at the end, one line for all that agree.
    """
    levels = curves.sort_values("tokens").groupby("method")["chance"].last()
    for level in sorted(set(levels.dropna().round(2))):
        ax.axhline(level, color=MUTED, lw=0.8, ls="--", zorder=1)
    for method, mine in curves.groupby("method", sort=False):
        ax.plot(mine["tokens"], mine["saturation"], color=colours[str(method)], lw=1.2)
    ax.set(xscale="log", xlabel="training tokens", ylabel="share of the final experts", ylim=(0, 1.03))
    ticks(ax.xaxis, curves["tokens"], digits=2)
    return ax


def _listed(methods: Sequence[str] | pd.Series, ax: Axes, *, named: bool = True) -> None:
    """A row for each method, the first on top."""
    ax.set_yticks(range(len(methods)), list(methods) if named else [""] * len(methods))
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
