"""The figure of what experts are worth: speedup over compute by E, in compute and in time; or a method's runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.style import Palette, Panel, colours, figure, titled
from analysis.worth.gate import Gate
from analysis.worth.pairs import Pair
from analysis.worth.speedup import Speedup
from analysis.worth.worth import Worth
from scaling.arrays import Array

_COMPUTE, _TIME = "compute", "time"
_MOST = 30.0  # times the largest speedup shown, beyond which an interval is cut
_NO_EXPERTS = 0  # the colour of a law that counts no experts


def worth_figure(found: Worth) -> Figure:
    """Compute and time side by side, where both are known."""
    palette = palette_of(found)
    legend = {e: colour for e, colour in palette.items() if e != _NO_EXPERTS and e in _shown(found)}
    return figure(*worth_panels(found, palette), height=2.6, legend=legend)


def worth_panels(found: Worth, palette: Palette) -> list[Panel]:
    """The panels of `worth_figure`, in a palette of the study's."""
    titles = {_COMPUTE: "Speedup in compute", _TIME: "Speedup in device time"}
    if found.gate is not None:
        return [titled(partial(candidate_runs, found.gate, palette, kind), title) for kind, title in titles.items()]
    if found.curve:
        kinds = [kind for kind in titles if any(getattr(one, f"{kind}_speedup") for one in found.curve)]
        limit = found.largest_train_flops
        return [
            titled(partial(speedups, found.curve, found.worth, kind, palette, limit=limit), titles[kind])
            for kind in kinds
        ]
    kinds = [kind for kind in titles if any(getattr(one, f"{kind}_speedup") for one in found.pairs)]
    return [titled(partial(paired, found.pairs, kind, palette), titles[kind]) for kind in kinds or [_COMPUTE]]


def palette_of(found: Worth) -> Palette:
    """One colour for each E."""
    return {**colours(_shown(found)), _NO_EXPERTS: style.INK}


def _shown(found: Worth) -> set[int]:
    experts = {one.n_experts for one in found.curve} | {pair.n_experts for pair in found.pairs}
    if found.gate is not None:
        experts |= {run.n_experts for run in found.gate.runs}
    return {e for e in experts if e is not None}


def speedups(
    curve: Sequence[Speedup],
    asked: Sequence[Speedup],
    kind: str,
    palette: Palette,
    ax: Axes,
    *,
    limit: float | None = None,
) -> Axes:
    """Speedup against training FLOPs, a line and 95 % band for each E; points are the budgets asked for, the dashed
    line is the compute of the largest run."""
    highest = 1.0
    for e in dict.fromkeys(one.n_experts for one in curve):
        colour = palette[e or _NO_EXPERTS]
        points = [one for one in curve if one.n_experts == e and getattr(one, f"{kind}_speedup") is not None]
        x, y = _column(points, "train_flops"), _column(points, f"{kind}_speedup")
        highest = max(highest, float(np.max(y, initial=1.0)))
        low, high = _ends(points, kind)
        style.band(style.Curve(e or _NO_EXPERTS, x, y, low, high), colour, ax, alpha=0.12)
        if low is not None and high is not None:  # bands of several E overlap: their ends stay visible
            ax.plot(x, low, x, high, color=colour, lw=0.5, alpha=0.7)
        marked = [one for one in asked if one.n_experts == e and getattr(one, f"{kind}_speedup") is not None]
        ax.plot(
            _column(marked, "train_flops"), _column(marked, f"{kind}_speedup"), "o", color=colour, mec="white", mew=0.6
        )
    spent = [one.train_flops for one in curve]
    if limit is not None and min(spent) < limit < max(spent):
        ax.axvline(limit, **style.LIMIT)
        style.beside("largest run", (limit, ax.get_ylim()[1]), (3, -7), ax, color=style.ACCENT)
    return _axes(ax, spent, highest)


def paired(pairs: Sequence[Pair], kind: str, palette: Palette, ax: Axes) -> Axes:
    """Speedup of cells against their compute: full against cells of all shapes, hollow against those of their own."""
    known = [pair for pair in pairs if getattr(pair, f"{kind}_speedup") is not None]
    spent = _column(known, "train_flops")
    shown = {pair.n_experts: palette[pair.n_experts] for pair in known}
    apart = spent * np.exp(style.side_by_side([pair.n_experts for pair in known], shown, spent)) if known else spent
    for pair, place in zip(known, apart, strict=True):
        colour, full = palette[pair.n_experts], pair.curve == "all shapes"
        value, interval = getattr(pair, f"{kind}_speedup"), getattr(pair, f"{kind}_interval")
        if interval is not None:
            ax.vlines(place, max(interval[0], 1e-2), min(interval[1], 1e3), colors=colour, lw=0.7, alpha=0.6)
        ax.plot(place, value, "o", color=colour if full else "white", mec=colour, mew=0.9, zorder=3)
    values = [getattr(pair, f"{kind}_speedup") for pair in known]
    faces = (("baseline cells of any width", style.MUTED), ("of its own width", "white"))
    keys = [
        Line2D([], [], marker="o", ls="", color=style.MUTED, markerfacecolor=face, label=label) for label, face in faces
    ]
    ax.legend(handles=keys, loc="lower left", handletextpad=0.1)
    return _axes(ax, spent.tolist() or [1.0, 10.0], max(values, default=1.0), least=min(values, default=1.0))


def candidate_runs(gate: Gate, palette: Palette, kind: str, ax: Axes) -> Axes:
    """What runs of a method are worth against their compute, the mean of all and, where they have one, the line at the
    budgets asked for."""
    values: list[float] = []
    own = gate.against == "own shape"
    if kind == _COMPUTE:
        for run in gate.runs:
            value, interval = run.own_shape if own else run.frontier, run.interval
            if value is None:
                continue
            colour = palette[run.n_experts]
            if interval is not None:
                ax.vlines(run.train_flops, max(interval[0], 1e-2), min(interval[1], 1e3), colors=colour, lw=0.8)
            ax.plot(run.train_flops, value, "o", color=colour, mec="white", mew=0.6, zorder=3)
            values.append(value)
    together = [one for one in (gate.alone, *gate.at) if getattr(one, f"{kind}_speedup") is not None]
    together.sort(key=lambda one: one.train_flops)
    x, y = _column(together, "train_flops"), _column(together, f"{kind}_speedup")
    low, high = _ends(together, kind)
    if low is not None and high is not None:
        ax.vlines(x, low, high, colors=style.ACCENT, lw=1.4, zorder=4)
    ax.plot(x, y, color=style.ACCENT, lw=0.9, ls=":" if any(one.extrapolated for one in together) else "-", zorder=2)
    ax.plot(x, y, "*", ms=9, color=style.ACCENT, mec="white", mew=0.6, zorder=5)
    values += y.tolist()
    spent = [*(run.train_flops for run in gate.runs), *x.tolist()]
    return _axes(ax, spent, max(values, default=1.0), least=min(values, default=1.0))


def _column(points: Sequence[Any], name: str) -> Array:
    return np.array([getattr(one, name) for one in points], dtype=float)


def _ends(points: Sequence[Speedup], kind: str) -> tuple[Array | None, Array | None]:
    """The ends of the intervals; None where a point has none. An end without bound is drawn far away."""
    intervals = [getattr(one, f"{kind}_interval") for one in points]
    if not points or any(interval is None for interval in intervals):
        return None, None
    ends = np.array(intervals, dtype=float)
    return ends[:, 0], np.where(np.isfinite(ends[:, 1]), ends[:, 1], _MOST * np.nanmax(ends[:, 0]))


def _axes(ax: Axes, spent: Sequence[float], highest: float, *, least: float = 1.0) -> Axes:
    """Logarithmic axes with a line at 1, as high as the speedups and a little of their intervals."""
    ax.axhline(1.0, color=style.MUTED, lw=0.8, zorder=1)
    ax.set(xscale="log", yscale="log", xlabel="training FLOPs C", ylabel="speedup at equal loss")
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(min(bottom, 0.9), 0.5 * min(least, 1.0)), min(top, 2.0 * highest))
    style.ticks(ax.yaxis, [max(0.8 * min(least, 1.0), ax.get_ylim()[0]), ax.get_ylim()[1]], studied=False, digits=2)
    low, high = min(spent), max(spent)
    spare = max((high / low) ** 0.05, 1.05)
    ax.set_xlim(low / spare, high * spare)
    decades = 10.0 ** np.arange(np.ceil(np.log10(low) - 0.01), np.floor(np.log10(high) + 0.01) + 1)
    if len(decades) >= 2:
        style.ticks(ax.xaxis, decades[:: int(np.ceil(len(decades) / 6))], write=style.bare_power)
    else:
        style.ticks(ax.xaxis, [low, high], studied=False, write=style.bare_power)
    return ax
