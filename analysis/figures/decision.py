"""Panels of a decision: measured times, lifetime cost, expected loss, probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from analysis.figures import style
from analysis.figures.style import Curve, Palette
from scaling.arrays import Array
from scaling.formatting import powers, si

_CORNER: Any = {"xycoords": "axes fraction", "ha": "right", "va": "top", "fontsize": 7, "color": style.ACCENT}


def step_times(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Measured time of one phase against batch size: median and quartiles by E; dashed, the roofline where known.

    Rows with a `doubt` (a text, empty where there is none) are hollow.
    """
    for e, times in rows.sort_values("batch").groupby("n_experts"):
        colour = palette[int(str(e))]
        ax.fill_between(times["batch"], times["time_q25_ms"], times["time_q75_ms"], color=colour, alpha=0.22, lw=0)
        ax.plot(times["batch"], times["time_ms"], "o-", color=colour, ms=3.4)
        doubted = times[times["doubt"] != ""] if "doubt" in times else times.iloc[:0]
        if len(doubted):
            ax.plot(doubted["batch"], doubted["time_ms"], "o", mfc="white", mec=colour, ms=3.4)
        floor = times.dropna(subset="roofline_ms")
        if len(floor):
            ax.plot(floor["batch"], floor["roofline_ms"], "--", marker=".", ms=2.5, color=colour, lw=0.9)
    ax.set(xscale="log", yscale="log", xlabel="batch size", ylabel="time, ms")
    style.ticks(ax.xaxis, rows["batch"])
    reach = [*rows[["time_ms", "roofline_ms"]].min(), rows["time_q75_ms"].max()]
    style.ticks(ax.yaxis, [value for value in reach if np.isfinite(value)], studied=False)
    return ax


def decode_times(rows: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """Measured decode time per token by E: medians with quartile bars, and the ratio to the dense model.

    One row per E with `n_experts`, `batch`, `time_ms`, `time_q25_ms`, `time_q75_ms`. Where it has a `doubt` (a text,
    empty where there is none) the bar is hatched, and ratios that rest on it carry a question mark.
    """
    rows = rows.sort_values("n_experts")
    experts = rows["n_experts"].astype(int).tolist()
    columns = ("time_ms", "time_q25_ms", "time_q75_ms")
    time, low, high = (1e3 * (rows[name] / rows["batch"]).to_numpy(copy=True) for name in columns)
    tops = np.fmax(time, high)  # a single repeat has no quartiles
    doubted = (rows["doubt"] != "").tolist() if "doubt" in rows else [False] * len(rows)
    hatches: Any = ["////" if doubt else "" for doubt in doubted]
    ax.bar(range(len(rows)), time, color=[palette[e] for e in experts], width=0.66, hatch=hatches, edgecolor="white")
    ax.vlines(range(len(rows)), low, high, colors=style.INK, lw=1.1)
    for place, e in enumerate(experts):
        if e > 1 and 1 in experts:
            dense = experts.index(1)
            mark = " ?" if doubted[place] or doubted[dense] else ""
            style.beside(
                f"{time[place] / time[dense]:.2g}×{mark}", (place, tops[place]), (0, 2), ax, ha="center", fontsize=7
            )
    style.expert_columns(experts, ax)
    ax.set(ylabel="decode time, µs per token", ylim=(0, 1.14 * tops.max()))
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
    """Loss against lifetime cost: the least cost of each loss by E; the star is the recommendation.

    `note` labels the star; `bound` is a loss that must be reached.
    """
    for curve in curves:
        style.band(curve, palette[curve.n_experts], ax, lw=1.5, alpha=0.12)
    if bound is not None:
        ax.axhline(bound, color=style.MUTED, lw=0.9, ls=":")
    style.star(chosen, ax)
    # Curves fall to the right, so the upper right corner is free.
    ax.annotate(f"★ {note}", (0.99, 0.98), **_CORNER)
    ax.set(xscale="log", xlabel=f"lifetime cost, {unit}", ylabel="expected loss, nats per token")
    style.ticks(ax.xaxis, np.concatenate([curve.x for curve in curves]), studied=False, write=_cost_writer(unit))
    return ax


def _cost_writer(unit: str) -> Callable[[float, int], str]:
    return powers if unit == "FLOP" else si


def losses_of_choices(
    losses: Mapping[int, float], intervals: Mapping[int, Sequence[float]], chosen: int, palette: Palette, ax: Axes
) -> Axes:
    """Expected loss of the best model of every E with its 95 % interval; the star is the recommendation."""
    for place, (e, loss) in enumerate(losses.items()):
        if e in intervals:
            low, high = intervals[e]
            ax.vlines(place, low, high, colors=palette[e], lw=2.2)
        if e == chosen:
            style.star((place, loss), ax)
        else:
            ax.plot(place, loss, marker="o", ms=5, color=palette[e], mec="white", mew=0.8, zorder=5)
    style.expert_columns(losses, ax)
    ax.set(ylabel="expected loss, nats per token", xlim=(-0.5, len(losses) - 0.5))
    return ax


def probability_best(shares: Mapping[int, float], palette: Palette, ax: Axes) -> Axes:
    """Share of the draws in which each E is best."""
    percents = [100 * share for share in shares.values()]
    bars = ax.bar(range(len(shares)), percents, color=[palette[e] for e in shares], width=0.66)
    ax.bar_label(bars, [f"{percent:.0f}%" for percent in percents], fontsize=7, padding=2)
    style.expert_columns(shares, ax)
    ax.set(ylabel="best in, % of draws", ylim=(0, 112))
    ax.set_yticks([0, 25, 50, 75, 100])
    return ax


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

    `front` has the columns `n_experts`, `loss`, `cost`, `on_front`. `chosen` is the cost and loss of the star, with
    lines for its 95 % intervals, which may continue beyond the axes; `note` and `bound` as in `tradeoff`.
    """
    curves = [
        Curve(int(str(e)), rows["cost"].to_numpy(copy=True), rows["loss"].to_numpy(copy=True))
        for e, rows in front.sort_values("loss").groupby("n_experts")
    ]
    tradeoff(curves, chosen, palette, ax, unit=unit, note=note, bound=bound)
    best = front[front["on_front"]]
    style.dots(best["cost"], best["loss"], best["n_experts"], palette, ax)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    cost, loss = chosen
    write, intervals = _cost_writer(unit), []
    if cost_interval is not None:  # beyond half a panel's width, an interval would flatten the curves
        ax.hlines(loss, cost_interval[0], cost_interval[1], colors=style.ACCENT, lw=1.1, zorder=4)
        intervals.append(f"cost {write(cost_interval[0], 2)} to {write(cost_interval[1], 2)}")
        spare = np.sqrt(right / left)
        low, high = max(left / spare, min(left, cost_interval[0])), min(right * spare, max(right, cost_interval[1]))
        style.ticks(ax.xaxis, [low, high], most=5, studied=False, write=write)
        ax.set_xlim(low, high)
    if loss_interval is not None:
        ax.vlines(cost, loss_interval[0], loss_interval[1], colors=style.ACCENT, lw=1.1, zorder=4)
        intervals.append(f"loss {loss_interval[0]:.2f} to {loss_interval[1]:.2f}")
        spare = 0.5 * (top - bottom)
        ax.set_ylim(max(bottom - spare, min(bottom, loss_interval[0])), min(top + spare, max(top, loss_interval[1])))
    if intervals:
        ax.annotate("\n".join(["95% intervals (lines):", *intervals]), (0.99, 0.91), **_CORNER)
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
    unit: str = "FLOP",
) -> Axes:
    """The best E by training budget (rows of `best`) and tokens served (columns), -1 where no E meets the limits.

    The star is the question; budgets, in `unit`, beyond `most_budget` are hatched.
    """
    shown = sorted({int(e) for e in np.ravel(best)})
    tints = ListedColormap([palette.get(e, "white") for e in shown])
    x, y = _edges(budgets), _edges(volumes)
    places = np.searchsorted(shown, best).T
    ax.pcolormesh(x, y, places, cmap=tints, vmin=-0.5, vmax=len(shown) - 0.5, edgecolors="white", linewidth=0.4)
    limit = np.inf if most_budget is None else most_budget
    for (i, j), value in np.ndenumerate(best):
        if x[i] <= asked[0] < x[i + 1] and y[j] <= asked[1] < y[j + 1]:
            continue
        e, budget, volume = int(value), float(budgets[i]), float(volumes[j])
        ink = style.INK if e < 0 or budget > limit else _ink_on(palette[e])
        ax.text(budget, volume, "–" if e < 0 else str(e), ha="center", va="center", fontsize=6, color=ink, zorder=4)
    if limit < x[-1]:
        pale: dict[str, Any] = {"facecolor": (1, 1, 1, 0.5), "edgecolor": (1, 1, 1, 0.8), "hatch": "////", "lw": 0}
        ax.axvspan(max(limit, x[0]), x[-1], **pale, zorder=3)
    style.star(asked, ax, ms=11)
    ax.set(xscale="log", xlabel=f"training budget, {unit}", xlim=(x[0], x[-1]))
    ax.set(yscale="log", ylabel="tokens served in total", ylim=(y[0], y[-1]))
    style.ticks(ax.xaxis, [x[0], x[-1]], most=4, digits=2, studied=False, write=style.bare_power)
    style.ticks(ax.yaxis, [y[0], y[-1]], most=5, studied=False)
    ax.grid(visible=False)
    return ax


def _edges(centres: Array) -> Array:
    """Edges of cells around centres that are evenly spaced in logarithms."""
    step = np.sqrt(centres[1] / centres[0])
    return np.append(centres / step, centres[-1] * step)


def _ink_on(tint: str) -> str:
    """Dark text on light cells, white text on dark ones."""
    luminance = float(np.dot(mpl.colors.to_rgb(tint), (0.2126, 0.7152, 0.0722)))
    return style.INK if luminance > 0.5 else "white"


def cost_against_load(
    prices: pd.DataFrame, overtakings: pd.DataFrame, palette: Palette, ax: Axes, *, asked: float | None = None
) -> Axes:
    """USD per million output tokens against requests per month, one line per E, stepped by whole replicas.

    `prices` has the columns `n_experts`, `requests_per_month`, `usd_per_million`; `overtakings` the last two: rings
    where another E becomes the cheapest. `asked` is the load of the question, a dashed line.
    """
    load, price = "requests_per_month", "usd_per_million"
    for e, rows in prices.groupby("n_experts"):
        ax.plot(rows[load], rows[price], color=palette[int(str(e))], lw=1.2)
    ax.plot(overtakings[load], overtakings[price], "o", ms=4.5, mfc="none", mec=style.INK, mew=0.8, zorder=5)
    if asked is not None:
        ax.axvline(asked, **style.LIMIT)
        top: Any = ("data", "axes fraction")
        style.beside("as asked", (asked, 0.98), (3, 0), ax, xycoords=top, va="top", color=style.ACCENT, fontsize=7)
    ax.set(xscale="log", yscale="log", xlabel="requests per month", ylabel="USD per million output tokens")
    style.ticks(ax.xaxis, [prices[load].min(), prices[load].max()], studied=False)
    style.ticks(ax.yaxis, [prices[price].min(), prices[price].max()], digits=2, studied=False)
    return ax


def what_if_cases(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Lifetime cost of the best model after one change, relative to the answer, labelled with its E.

    Columns `case` (the change), `n_experts`, `times` (NaN where no E meets the limits) and `changes`: whether the best
    E differs from that of the answer, which is drawn in red.
    """
    times = rows["times"].to_numpy(float)
    ends = np.where(np.isfinite(times), times, 1.0)
    tints = np.where(rows["changes"], style.ACCENT, style.MUTED)
    ax.barh(range(len(rows)), ends - 1, left=1.0, color=tints, height=0.6)
    ax.axvline(1.0, color=style.INK, lw=0.8)
    for place, (e, ratio, end) in enumerate(zip(rows["n_experts"], times, ends, strict=True)):
        text = "infeasible" if np.isnan(ratio) else "dense" if e == 1 else f"E = {int(e)}"
        ink = style.ACCENT if rows["changes"].iloc[place] else style.INK
        style.beside_bar(text, end, place, ax, left=end < 1, color=ink)
    style.named_rows(rows["case"], ax, fontsize=6.5)
    ax.invert_yaxis()
    low, high = min(ends.min(), 0.8), max(ends.max(), 1.25)
    spare = (high / low) ** 0.3  # for the text beside the bars
    ax.set(xscale="log", xlabel="lifetime cost relative to the answer", xlim=(low / spare, high * spare))
    style.ticks(ax.xaxis, [low, high], most=5, studied=False, write=lambda value, digits: f"×{si(value, digits)}")
    return ax
