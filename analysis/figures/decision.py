"""Panels of what is chosen between: measured times, lifetime cost, expected loss, chances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.style import ACCENT, INK, MUTED, Curve, Palette, dots, ticks
from scaling.arrays import Array
from scaling.formatting import powers, si


def step_times(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
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


_REGRET_TICKS = (0, 0.3, 1, 3, 10, 30, 100, 300, 1000)  # percent


def pareto(
    front: pd.DataFrame,
    chosen: tuple[float, float],
    palette: Palette,
    ax: Axes,
    *,
    unit: str,
    note: str = "recommended",
    bound: float | None = None,
    cost_interval: Sequence[float] | None = None,
    loss_interval: Sequence[float] | None = None,
) -> Axes:
    """Loss against lifetime cost of every E, a dot where no other E is cheaper; the star is the recommendation.

    `front` has the columns `n_experts`, `loss`, `cost`, `on_front`. Lines through the star are 95 % intervals; they may
    go on beyond the edge. `chosen` is its cost and loss, `note` and `bound` as in `tradeoff`.
    """
    curves = [
        Curve(int(str(e)), rows["cost"].to_numpy(copy=True), rows["loss"].to_numpy(copy=True))
        for e, rows in front.sort_values("loss").groupby("n_experts")
    ]
    tradeoff(curves, chosen, palette, ax, unit=unit, note=note, bound=bound)
    best = front[front["on_front"]]
    dots(best["cost"], best["loss"], best["n_experts"], palette, ax)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    cost, loss = chosen
    if cost_interval is not None:  # further than half the picture beside it, an interval would flatten the curves
        ax.hlines(loss, cost_interval[0], cost_interval[1], colors=ACCENT, lw=1.1, zorder=4)
        spare = np.sqrt(right / left)
        low, high = max(left / spare, min(left, cost_interval[0])), min(right * spare, max(right, cost_interval[1]))
        ticks(ax.xaxis, [low, high], most=5, studied=False)
        if unit == "FLOP":
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: powers(value)))
        ax.set_xlim(low, high)
    if loss_interval is not None:
        ax.vlines(cost, loss_interval[0], loss_interval[1], colors=ACCENT, lw=1.1, zorder=4)
        spare = 0.5 * (top - bottom)
        ax.set_ylim(max(bottom - spare, min(bottom, loss_interval[0])), min(top + spare, max(top, loss_interval[1])))
    return ax


def best_experts(
    budgets: Array,
    volumes: Array,
    best: Array,
    palette: Palette,
    ax: Axes,
    *,
    asked: tuple[float, float],
    most_budget: float | None = None,
) -> Axes:
    """The best E over training budgets (rows of `best`) and tokens served (columns), -1 where none can answer.

    Cells carry their E, but for the one with the star, which is what was asked. Budgets beyond `most_budget` are
    hatched.
    """
    shown = sorted({int(e) for e in np.ravel(best)})
    tints = [palette.get(e, "white") for e in shown]
    x, y = _edges(budgets), _edges(volumes)
    places = np.searchsorted(shown, best)
    ax.pcolormesh(
        x, y, places.T, cmap=ListedColormap(tints), vmin=-0.5, vmax=len(shown) - 0.5, edgecolors="white", linewidth=0.4
    )
    limit = np.inf if most_budget is None else most_budget
    for i, budget in enumerate(budgets):
        for j, volume in enumerate(volumes):
            if x[i] <= asked[0] < x[i + 1] and y[j] <= asked[1] < y[j + 1]:
                continue
            e = int(best[i, j])
            told, ink = ("–", INK) if e < 0 else (str(e), INK if budget > limit else _ink_on(palette[e]))
            ax.text(budget, volume, told, ha="center", va="center", fontsize=6, color=ink, zorder=4)
    if limit < x[-1]:
        pale: dict[str, Any] = {"facecolor": (1, 1, 1, 0.5), "edgecolor": (1, 1, 1, 0.8), "hatch": "////", "lw": 0}
        ax.axvspan(max(limit, x[0]), x[-1], **pale, zorder=3)
    ax.plot(*asked, marker="*", ms=11, color=ACCENT, mec="white", mew=0.8, zorder=5, ls="")
    ax.set(
        xscale="log", yscale="log", xlabel="training budget, FLOP", ylabel="tokens served over its life",
        xlim=(x[0], x[-1]), ylim=(y[0], y[-1]),
    )  # fmt: skip
    ticks(ax.xaxis, [x[0], x[-1]], most=4, studied=False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: powers(value, 2).removeprefix("1×")))
    ticks(ax.yaxis, [y[0], y[-1]], most=5, studied=False)
    ax.grid(visible=False)
    return ax


def _edges(centres: Array) -> Array:
    """Ends of cells around centres that are evenly spaced in logarithms."""
    step = np.sqrt(centres[1] / centres[0])
    return np.append(centres / step, centres[-1] * step)


def _ink_on(tint: str) -> str:
    """Dark letters on light cells, white ones on dark."""
    luminance = float(np.dot(mpl.colors.to_rgb(tint), (0.2126, 0.7152, 0.0722)))
    return INK if luminance > 0.5 else "white"


def cost_against_load(
    prices: pd.DataFrame, overtakings: pd.DataFrame, palette: Palette, ax: Axes, *, asked: float | None = None
) -> Axes:
    """USD per million generated tokens against requests a month, one line for each E; teeth are whole replicas.

    `prices` has the columns `n_experts`, `requests_per_month`, `usd_per_million`; `overtakings` the last two: rings,
    where another E becomes the cheapest. `asked` is the load of the question, a dashed line.
    """
    for e, rows in prices.groupby("n_experts"):
        ax.plot(rows["requests_per_month"], rows["usd_per_million"], color=palette[int(str(e))], lw=1.2)
    ax.plot(
        overtakings["requests_per_month"], overtakings["usd_per_million"],
        "o", ms=4.5, mfc="none", mec=INK, mew=0.8, zorder=5,
    )  # fmt: skip
    if asked is not None:
        ax.axvline(asked, color=ACCENT, lw=0.9, ls=(0, (4, 3)))
        ax.annotate(
            "as asked", (asked, 0.98), xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
            va="top", color=ACCENT, fontsize=7,
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="requests a month", ylabel="USD per million generated tokens")
    ticks(ax.xaxis, [prices["requests_per_month"].min(), prices["requests_per_month"].max()], studied=False)
    ticks(ax.yaxis, [prices["usd_per_million"].min(), prices["usd_per_million"].max()], digits=2, studied=False)
    return ax


def regret_bars(
    regrets: Mapping[int, float | None], chances: Mapping[int, float], palette: Palette, ax: Axes, *, limit: float
) -> Axes:
    """Expected regret of choosing each E, percent of the cost, with the share of draws in which it is best written over
    it.

    Linear up to `limit` (a share, dashed: at most that much counts as decided), logarithmic beyond. None: an E that can
    answer in no draw.
    """
    allowed = 100 * limit
    heights = [0.0 if value is None else 100 * value for value in regrets.values()]
    ax.bar(range(len(heights)), heights, color=[palette[e] for e in regrets], width=0.66)
    ax.axhline(allowed, color=ACCENT, lw=0.9, ls=(0, (4, 3)), zorder=1)
    top = max(*heights, allowed)
    for place, (e, value) in enumerate(regrets.items()):
        told = "no answer" if value is None else f"{_percent(100 * value)}\nbest in {100 * chances.get(e, 0.0):.0f}%"
        ax.annotate(
            told,
            (place, heights[place]),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=6.5,
            zorder=5,
        )
    ax.set_yscale("symlog", linthresh=allowed)
    ax.set_xticks(range(len(regrets)), ["dense" if e == 1 else str(e) for e in regrets])
    ax.set(
        xlabel="experts per layer E", ylabel="regret, % of the cost", xlim=(-0.6, len(regrets) - 0.4),
        ylim=(0, 6 * top),  # room for two lines of text over the highest bar
    )  # fmt: skip
    ax.yaxis.set_major_locator(FixedLocator([tick for tick in _REGRET_TICKS if tick <= 3 * top]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(visible=False, axis="x")
    return ax


def _percent(value: float) -> str:
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.2g}%"


def what_if_cases(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Lifetime cost of the best model if one thing were otherwise, times that of the answer, with the E it would have.

    Columns `told` (what is changed, and to what), `n_experts` and `times` (NaN where no E can answer), `changes`:
    whether the best E is another than the answer's; such cases are red.
    """
    times = rows["times"].to_numpy(float)
    known = np.isfinite(times)
    ends = np.where(known, times, 1.0)
    tints = np.where(rows["changes"], ACCENT, MUTED)
    ax.barh(range(len(rows)), ends - 1, left=1.0, color=tints, height=0.6)
    ax.axvline(1.0, color=INK, lw=0.8)
    for place, (e, end, tint) in enumerate(zip(rows["n_experts"], ends, tints, strict=True)):
        side = -1 if end < 1 else 1
        told = "no E can answer" if not known[place] else "dense" if e == 1 else f"E = {int(e)}"
        ax.annotate(
            told, (end, place), xytext=(3 * side, 0), textcoords="offset points", ha="left" if side > 0 else "right",
            va="center", fontsize=6.5, color=tint if tint == ACCENT else INK,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [str(told) for told in rows["told"]], fontsize=6.5)
    ax.invert_yaxis()
    low, high = min(ends.min(), 0.8), max(ends.max(), 1.25)
    spare = (high / low) ** 0.3  # for the text beside the bars
    ax.set(xscale="log", xlabel="lifetime cost, times the answer's", xlim=(low / spare, high * spare))
    ticks(ax.xaxis, [low, high], most=5, studied=False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{si(value)}"))
    ax.grid(visible=False, axis="y")
    return ax
