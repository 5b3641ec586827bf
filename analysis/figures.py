"""The figures: one function per figure, data in, Axes out; one style; the only place that draws.

A panel is a function of an `Axes` that returns it; `figure` lays panels out in a row under one legend of expert counts,
and `save` writes SVG (text as outlines, so it looks the same everywhere) or PNG. Every E has one colour in all figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Figure  # re-exported: the report speaks of figures without matplotlib
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

Array = npt.NDArray[np.float64]
Panel = Callable[[Axes], Axes]
Palette = Mapping[int, str]

INK, MUTED, GRID, ACCENT = "#1b1f24", "#667085", "#e4e7ec", "#c2410c"
WIDTH = 6.9  # inches between the margins of the report
_FARTHEST = 300.0  # percent of an estimate
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.linewidth": 0.7,
    "lines.linewidth": 1.4, "lines.markersize": 4.2, "legend.frameon": False, "svg.fonttype": "path",
    "svg.hashsalt": "scaling", "savefig.dpi": 200, "figure.facecolor": "white",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A line of a law for one E, with the 95 % band of its draws where there are any; `low`, `high` bound it."""

    n_experts: int
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None


def si(value: float, digits: int = 3) -> str:
    """A number as people say it: 1234567 -> `1.23M`, 2e9 -> `2B`, .00012 -> `0.00012`; powers of ten beyond."""
    if not np.isfinite(value):
        return "–"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 1e15 or 0 < abs(rounded) < 1e-4:
        return powers(value, digits)
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(rounded) >= unit:
            return f"{rounded / unit:g}{suffix}"
    return f"{rounded:g}"


def powers(value: float, digits: int = 3) -> str:
    """A number in powers of ten, as budgets of compute are quoted: 5.684e12 -> `5.68×10¹²`."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{float(mantissa):g}×10{raised}"


def colours(experts: Iterable[int]) -> Palette:
    """One colour for each of these E: dense in grey, routed ones along viridis (legible in print, to the colour-blind).

    All figures of a study share one palette, so that an E keeps its colour.
    """
    routed = sorted({int(e) for e in experts if e > 1})
    places = np.linspace(0.17, 0.85, len(routed)) if len(routed) > 1 else [0.45] * len(routed)
    found = {e: mpl.colors.to_hex(mpl.colormaps["viridis"](1 - p)) for e, p in zip(routed, places, strict=True)}
    return {1: "#98a2b3", **found}


def figure(
    *panels: Panel,
    height: float = 2.5,
    width: float = WIDTH,
    ratios: Sequence[float] | None = None,
    legend: Palette | None = None,
) -> Figure:
    """Panels side by side in the one style, sizes in inches, with a legend of the palette's colours above."""
    with mpl.rc_context(_STYLE):
        page = Figure(figsize=(width, height), layout="constrained")
        axes = np.atleast_1d(page.subplots(1, len(panels), width_ratios=ratios))
        for panel, ax in zip(panels, axes, strict=True):
            panel(ax)
        if legend and len(legend) > 1:
            keys = [Line2D([], [], color=colour, marker="o", ls="") for colour in legend.values()]
            page.legend(
                keys,
                ["dense" if e == 1 else f"E = {e}" for e in legend],
                loc="outside upper left",
                ncols=len(legend),
                handletextpad=0.1,
                columnspacing=1.2,
            )
    return page


def titled(panel: Panel, title: str) -> Panel:
    """The panel with a title over it."""

    def drawn(ax: Axes) -> Axes:
        ax.set_title(title)
        return panel(ax)

    return drawn


def save(page: Figure, path: Path) -> Path:
    """Write the figure as .svg, .pdf or .png, the same bytes for the same data."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}[path.suffix]
    with mpl.rc_context(_STYLE):
        page.savefig(path, metadata=undated)
    return path


def coverage(runs: pd.DataFrame, failed: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """The grid: active parameters against training tokens, one dot per E, failed cells crossed out in red."""
    for frame, marker in ((runs, "o"), (failed, "x")):
        place = frame["tokens"] * np.exp(_beside(frame["n_experts"], palette, runs["tokens"]))
        tint = [palette[int(e)] for e in frame["n_experts"]] if marker == "o" else ACCENT
        ax.scatter(place, frame["n_active"], c=tint, s=15, marker=marker, linewidths=0 if marker == "o" else 1.3)
    ax.set(xscale="log", yscale="log", xlabel="training tokens D", ylabel="active parameters")
    _ticks(ax.xaxis, runs["tokens"], digits=2)
    _ticks(ax.yaxis, runs["n_active"])
    return ax


def loss_against(
    column: str, points: pd.DataFrame, curves: Sequence[Curve], palette: Palette, ax: Axes, *, label: str
) -> Axes:
    """Held-out loss against one column: measured points in the colour of their E, the law with its 95 % band."""
    for curve in curves:
        ax.plot(curve.x, curve.y, color=palette[curve.n_experts], lw=1.3, zorder=2)
        if curve.low is not None and curve.high is not None:
            ax.fill_between(curve.x, curve.low, curve.high, color=palette[curve.n_experts], alpha=0.16, lw=0, zorder=1)
    _dots(points[column], points["loss_val"], points["n_experts"], palette, ax)
    ax.set(xscale="log", xlabel=label, ylabel="held-out loss, nats per token")
    _ticks(ax.xaxis, points[column], digits=2 if column == "tokens" else 3)
    return ax


def loss_against_experts(points: pd.DataFrame, curves: Sequence[tuple[str, Curve]], ax: Axes) -> Axes:
    """Held-out loss against E, a line of the law for each named slice of the grid, points of the column `slice`."""
    names = [name for name, _ in curves]
    shades = mpl.colormaps["cividis"](np.linspace(0.0, 0.75, len(names)))
    for (name, curve), shade in zip(curves, shades, strict=True):
        ax.plot(curve.x, curve.y, color=shade, lw=1.3)
        if curve.low is not None and curve.high is not None:
            ax.fill_between(curve.x, curve.low, curve.high, color=shade, alpha=0.16, lw=0)
        rows = points[points["slice"] == name]
        ax.scatter(rows["n_experts"], rows["loss_val"], color=shade, s=17, zorder=3, edgecolors="white", linewidths=0.4)
        ax.annotate(
            name,
            (curve.x[-1], curve.y[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
            color=shade,
        )
    ax.set(xscale="log", xlabel="experts per layer E", ylabel="held-out loss, nats per token")
    ax.margins(x=0.05)
    ax.set_xlim(right=float(points["n_experts"].max()) * 2.6)
    _ticks(ax.xaxis, points["n_experts"], most=8)
    return ax


def observed_predicted(observed: Array, predicted: Array, n_experts: Array, palette: Palette, ax: Axes) -> Axes:
    """Loss as measured against the law's; on the diagonal the law is exact."""
    ends = [min(observed.min(), predicted.min()), max(observed.max(), predicted.max())]
    ax.plot(ends, ends, color=MUTED, lw=0.9, zorder=1)
    _dots(predicted, observed, n_experts, palette, ax)
    ax.set(xlabel="loss by the law, nats per token", ylabel="measured loss, nats per token")
    return ax


def residuals(tokens: Array, log_residuals: Array, n_experts: Array, palette: Palette, ax: Axes) -> Axes:
    """Residuals of log loss, in percent of the loss, against tokens; a trend, or colours in order, faults the law."""
    ax.axhline(0, color=MUTED, lw=0.9)
    _dots(tokens * np.exp(_beside(n_experts, palette, tokens)), 100 * log_residuals, n_experts, palette, ax)
    ax.set(xscale="log", xlabel="training tokens D", ylabel="measured − law, % of loss")
    _ticks(ax.xaxis, tokens, digits=2)
    return ax


def paired_differences(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Loss minus that of the dense model of equal active size and tokens, with 95 % bars, grouped by size.

    Columns `n_active`, `tokens`, `n_experts`, `difference`, `se`.
    """
    experts, sizes = sorted(set(rows["n_experts"].astype(int))), sorted(set(rows["n_active"]))
    cells = [(n, d) for n in sizes for d in sorted(set(rows.loc[rows["n_active"] == n, "tokens"]))]
    place = {cell: index + 0.6 * sizes.index(cell[0]) for index, cell in enumerate(cells)}
    for index, e in enumerate(experts):
        mine = rows[rows["n_experts"] == e]
        x = [place[cell] for cell in zip(mine["n_active"], mine["tokens"], strict=True)]
        beside = (index - (len(experts) - 1) / 2) * 0.6 / len(experts)
        bars = 1.96 * mine["se"]
        ax.errorbar(np.array(x) + beside, mine["difference"], yerr=bars, fmt="o", color=palette[e], ms=3.4, lw=1.1)
    ax.axhline(0, color=palette[1], lw=1.4)
    ax.set_xticks(list(place.values()), [si(d, 2) for _, d in cells], fontsize=6.5)
    for n in sizes:
        mine_at = [x for (size, _), x in place.items() if size == n]
        ax.annotate(
            f"{si(n)} active",
            (float(np.mean(mine_at)), 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -16),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
        )
    ax.set_ylabel("loss − dense loss, nats per token")
    ax.set_xlabel("training tokens D, by active parameters", labelpad=13)
    ax.grid(visible=False, axis="x")
    return ax


def parameter_intervals(params: Mapping[str, float], intervals: Mapping[str, Sequence[float]], ax: Axes) -> Axes:
    """Fitted parameters with their 95 % intervals, in percent of each estimate; one without an interval was pinned.

    An interval that reaches beyond +-300 % ends in an arrow.
    """
    names = list(params)[::-1]
    for row, name in enumerate(names):
        value, interval = params[name], intervals.get(name)
        if interval is None:
            ax.plot(0, row, "D", color="white", mec=MUTED, ms=4)
            continue
        ends = [float(np.clip(100 * (bound - value) / abs(value), -_FARTHEST, _FARTHEST)) for bound in interval]
        ax.plot(ends, [row, row], color=INK, lw=1.6, solid_capstyle="butt")
        ax.plot(0, row, "o", color=INK, ms=4)
        for end in ends:
            if abs(end) == _FARTHEST:
                ax.plot(end, row, ">" if end > 0 else "<", color=INK, ms=5)
    ax.axvline(0, color=MUTED, lw=0.8, zorder=0)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="95% interval, % of the estimate", ylim=(-0.6, len(names) - 0.4))
    ax.set_xscale("symlog", linthresh=10)
    reach = max(abs(bound) for bound in ax.get_xlim())
    marks = [sign * mark for sign in (-1, 1) for mark in (10, 30, 100, _FARTHEST) if mark <= reach]
    ax.xaxis.set_major_locator(FixedLocator(sorted([0, *marks])))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f}".replace("-", "−") if value else "0"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(visible=False, axis="y")
    return ax


def latency(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Measured time of one phase against batch: median and quartiles by E; dashed, the floor where one is known."""
    for e in sorted(set(rows["n_experts"].astype(int))):
        mine = rows[rows["n_experts"] == e].sort_values("batch")
        ax.fill_between(mine["batch"], mine["time_q25_ms"], mine["time_q75_ms"], color=palette[e], alpha=0.22, lw=0)
        ax.plot(mine["batch"], mine["time_ms"], "o-", color=palette[e], ms=3.4)
        floor = mine.dropna(subset="roofline_ms")
        if len(floor):
            ax.plot(floor["batch"], floor["roofline_ms"], "--", marker=".", ms=2.5, color=palette[e], lw=0.9)
    ax.set(xscale="log", yscale="log", xlabel="sequences in the batch", ylabel="time, ms")
    _ticks(ax.xaxis, rows["batch"])
    reach = [*rows[["time_ms", "roofline_ms"]].min(), rows["time_q75_ms"].max()]
    _ticks(ax.yaxis, [value for value in reach if np.isfinite(value)], studied=False)
    return ax


def decode_times(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Measured time of a decode step per token, by E: medians with quartile bars, and how many times the dense model's.

    One row per E with `n_experts`, `batch`, `time_ms`, `time_q25_ms`, `time_q75_ms`.
    """
    rows = rows.sort_values("n_experts")
    time, low, high = (
        1e3 * (rows[name] / rows["batch"]).to_numpy(copy=True) for name in ("time_ms", "time_q25_ms", "time_q75_ms")
    )
    experts = [int(e) for e in rows["n_experts"]]
    ax.bar(range(len(rows)), time, color=[palette[e] for e in experts], width=0.66)
    ax.vlines(range(len(rows)), low, high, colors=INK, lw=1.1)
    dense = time[experts.index(1)] if 1 in experts else None
    if dense is not None:
        for place, (e, value, top) in enumerate(zip(experts, time, high, strict=True)):
            if e > 1:
                at = (place, max(value, top))
                told = f"{value / dense:.2g}×"
                ax.annotate(told, at, xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7)
    ax.set_xticks(range(len(rows)), ["dense" if e == 1 else str(e) for e in experts])
    ax.set(
        xlabel="experts per layer E", ylabel="decode, µs per token", ylim=(0, 1.14 * float(max(time.max(), high.max())))
    )
    ax.grid(visible=False, axis="x")
    return ax


def tradeoff(
    curves: Sequence[Curve],
    chosen: tuple[float, float],
    palette: Palette,
    ax: Axes,
    *,
    unit: str,
    note: str = "recommended",
    bound: float | None = None,
) -> Axes:
    """Loss against lifetime cost: for every E the least cost of each loss; the star is the recommendation.

    `note` says what the star is; `bound` draws a loss that must be reached.
    """
    for curve in curves:
        ax.plot(curve.x, curve.y, color=palette[curve.n_experts], lw=1.5)
        if curve.low is not None and curve.high is not None:
            ax.fill_between(curve.x, curve.low, curve.high, color=palette[curve.n_experts], alpha=0.12, lw=0)
    if bound is not None:
        ax.axhline(bound, color=MUTED, lw=0.9, ls=":")
    ax.plot(*chosen, marker="*", ms=12, color=ACCENT, mec="white", mew=0.8, zorder=5, ls="")
    # Curves fall to the right, so the upper right corner is free wherever the star lies.
    ax.annotate(f"★ {note}", (0.99, 0.98), xycoords="axes fraction", ha="right", va="top", color=ACCENT, fontsize=7)
    ax.set(xscale="log", xlabel=f"lifetime cost, {unit}", ylabel="expected loss, nats per token")
    _ticks(ax.xaxis, np.concatenate([curve.x for curve in curves]), studied=False)
    if unit == "FLOP":
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: powers(value)))
    return ax


def losses_of_choices(
    losses: Mapping[int, float], intervals: Mapping[int, Sequence[float]], chosen: int, palette: Palette, ax: Axes
) -> Axes:
    """Expected loss of the best model of every E with its 95 % interval; the recommendation carries the star."""
    for place, (e, loss) in enumerate(losses.items()):
        if e in intervals:
            low, high = intervals[e]
            ax.vlines(place, low, high, colors=palette[e], lw=2.2)
        marker, size, tint = ("*", 12.0, ACCENT) if e == chosen else ("o", 5.0, palette[e])
        ax.plot(place, loss, marker=marker, ms=size, color=tint, mec="white", mew=0.8, zorder=5)
    ax.set_xticks(range(len(losses)), ["dense" if e == 1 else str(e) for e in losses])
    ax.set(xlabel="experts per layer E", ylabel="expected loss, nats per token", xlim=(-0.5, len(losses) - 0.5))
    ax.grid(visible=False, axis="x")
    return ax


def probability_best(shares: Mapping[int, float], palette: Palette, ax: Axes) -> Axes:
    """Share of the bootstrap draws in which each E wins."""
    names = ["dense" if e == 1 else str(e) for e in shares]
    bars = ax.bar(names, [100 * p for p in shares.values()], color=[palette[int(e)] for e in shares], width=0.66)
    ax.bar_label(bars, [f"{100 * p:.0f}%" for p in shares.values()], fontsize=7, padding=2)
    ax.set(xlabel="experts per layer E", ylabel="best in … % of draws", ylim=(0, 112))
    ax.set_yticks([0, 25, 50, 75, 100])
    ax.grid(visible=False, axis="x")
    return ax


def _dots(x: Any, y: Any, n_experts: Any, palette: Palette, ax: Axes) -> None:
    ax.scatter(x, y, c=[palette[int(e)] for e in n_experts], s=16, zorder=3, edgecolors="white", linewidths=0.4)


def _beside(n_experts: Any, palette: Palette, x: Any) -> Array:
    """Shifts in ln x that set points of equal x but different E side by side, over a twentieth of the axis in all."""
    order = sorted(palette)
    place = np.array([order.index(int(e)) for e in n_experts]) - (len(order) - 1) / 2
    span = float(np.log(max(np.max(x) / np.min(x), 2.0)))
    return 0.05 * span / max(len(order) - 1, 1) * place


def _ticks(axis: Axis, values: npt.ArrayLike, *, most: int = 6, digits: int = 3, studied: bool = True) -> None:
    """Ticks of a log axis: at the studied values where they are few and apart, else at round numbers."""
    distinct = np.unique(np.asarray(values, dtype=float))
    low, high = np.log10(distinct[0]) - 1e-9, np.log10(distinct[-1]) + 1e-9
    if not studied or len(distinct) > most or np.any(np.diff(np.log10(distinct)) < (high - low) / 10):
        decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        for steps in (
            (1,),
            (1, 3),
            (1, 2, 5),
            (1, 1.5, 2, 3, 4, 5, 6, 8),
            np.arange(1, 10, 0.5),
            np.arange(1, 10, 0.1),
        ):
            distinct = np.array([m * 10.0**d for d in decades for m in steps if low <= np.log10(m * 10.0**d) <= high])
            if len(distinct) >= 3:
                break
        distinct = distinct[:: max(1, int(np.ceil(len(distinct) / most)))]
    axis.set_major_locator(FixedLocator(distinct.tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: si(value, digits)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
