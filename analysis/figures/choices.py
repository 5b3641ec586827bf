"""Panels of what is chosen between: measured times, lifetime cost, expected loss, chances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis.figures.style import ACCENT, INK, MUTED, Curve, Palette, powers, ticks


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
    ticks(ax.xaxis, rows["batch"])
    reach = [*rows[["time_ms", "roofline_ms"]].min(), rows["time_q75_ms"].max()]
    ticks(ax.yaxis, [value for value in reach if np.isfinite(value)], studied=False)
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
    ticks(ax.xaxis, np.concatenate([curve.x for curve in curves]), studied=False)
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
