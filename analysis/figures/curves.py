"""The figure of training curves: loss, learning rate, gradient norm and expert loads against tokens."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.methods import method_colours
from scaling.errors import InputError
from scaling.formatting import listed, si

_NAMES = {"n_experts": "E", "d_model": "d", "top_k": "k", "run_tokens": "D", "run_lr": "peak rate"}
_BY = ("n_experts", "router", "experts", "d_model", "top_k", "n_layers", "d_expert", "run_lr", "seed", "run_tokens")
_MOST_COLOURS = 12
_QUANTITIES = {
    "loss": ("Training loss", "nats per token", "log"),
    "lr": ("Learning rate", "", "linear"),
    "grad_norm": ("Gradient norm, before clipping", "", "log"),
    "max_load": ("Expert load (dashed: random choice)", "largest over mean", "log"),
}


def curves_figure(curves: pd.DataFrame, by: str | None = None) -> Figure:
    """The curves of runs in a panel for each quantity that they have, in the colours of a column of the runs.

    Columns of `analysis.tables.curves.training_curves`. Without `by`, the colour is that of the first column in which
    the runs differ: expert count, router, width, ... A curve that goes on ends in a ring. Raises InputError where there
    is no such column.
    """
    runs = curves.drop_duplicates("run_id")
    column = _colour_column(runs, by)
    values = [*map(_plain, runs[column])] if column else ["all"] * len(runs)
    palette = _palette(column, values)
    colour = dict(zip(runs["run_id"], map(palette.__getitem__, values), strict=True))
    panels = [
        style.titled(partial(curve_panel, curves, name, colour), title)
        for name, (title, _, _) in _QUANTITIES.items()
        if name in curves and np.isfinite(curves[name].astype(float)).any()
    ]
    rows = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    legend: dict[Any, str] = {_legend_name(column, value): shade for value, shade in palette.items()}
    return style.pages(*rows, heights=[2.4] * len(rows), legend=legend if len(legend) <= _MOST_COLOURS else {})


def curve_panel(curves: pd.DataFrame, name: str, colour: Mapping[str, str], ax: Axes) -> Axes:
    """One quantity of the curves against tokens. Columns `run_id`, `tokens`, `running` and the quantity.

    A mean over steps stands at their middle, the learning rate at the last of them. For the expert load, the dashed
    line is that of uniform random choices of as many experts.
    """
    _, label, scale = _QUANTITIES[name]
    known = curves[np.isfinite(curves[name].astype(float)) & (curves["tokens"] > 0)]
    if scale == "log":
        known = known[known[name] > 0]
    lines, shades = [], []
    for run_id, curve in known.groupby("run_id", sort=False):
        x, y = curve["tokens"].to_numpy(float), curve[name].to_numpy(float)
        if name != "lr":
            x = (x + np.concatenate([[0.0], x[:-1]])) / 2
        lines.append(np.column_stack([x, y]))
        shades.append(colour[str(run_id)])
        if curve["running"].iloc[-1]:
            ax.plot(x[-1], y[-1], "o", ms=4.2, mfc="white", mec=colour[str(run_id)], mew=1.1, zorder=4)
    many = min(1.0, max(0.35, 12 / max(len(lines), 1)))
    ax.add_collection(LineCollection(lines, colors=shades, linewidths=1.1, alpha=many))
    if name == "max_load" and "max_load_chance" in known:
        levels = known.groupby("run_id")["max_load_chance"].last().dropna()
        for run_id in levels.round(2).drop_duplicates().index[:_MOST_COLOURS]:
            ax.axhline(levels[run_id], color=colour[str(run_id)], lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.set(xscale="log", yscale=scale, xlabel="training tokens", ylabel=label)
    ax.autoscale_view()
    style.ticks(ax.xaxis, known["tokens"], digits=2, studied=False)
    if scale == "log":
        style.ticks(ax.yaxis, known[name], digits=3, studied=False)
    else:
        ax.set_ylim(bottom=0)
    return ax


def _colour_column(runs: pd.DataFrame, by: str | None) -> str | None:
    """The column that colours tell apart."""
    if by is not None:
        for name in (f"run_{by}", by):  # `tokens` and `lr` are those of the run, not of a row of its curve
            if name in runs:
                return name
        raise InputError(f"`by` {by!r}: the runs have no such column; they differ in {listed(_varying(runs))}")
    return next(iter(_varying(runs)), None)


def _varying(runs: pd.DataFrame) -> list[str]:
    return [name for name in _BY if name in runs and len({*map(_plain, runs[name])}) > 1]


def _plain(value: Any) -> Hashable:
    """A value that equals itself, whatever type it was read as."""
    return None if value is None or value != value else value.item() if isinstance(value, np.generic) else value


def _palette(column: str | None, values: Sequence[Hashable]) -> dict[Any, str]:
    """A colour for each value: that of its E, a scale for other numbers, distinct ones for names."""
    distinct = [value for value in dict.fromkeys(values) if value is not None]
    return _shades(column, distinct) | ({None: style.MUTED} if None in values else {})


def _shades(column: str | None, distinct: list[Any]) -> dict[Any, str]:
    if column == "n_experts":
        shades = style.colours(int(value) for value in distinct)
        return {value: shades[int(value)] for value in sorted(distinct)}
    if all(isinstance(value, int | float) for value in distinct):
        places = np.linspace(0.15, 0.85, len(distinct)) if len(distinct) > 1 else [0.45]
        scale = mpl.colormaps["viridis"]
        return {
            value: mpl.colors.to_hex(scale(1 - place)) for value, place in zip(sorted(distinct), places, strict=True)
        }
    names = method_colours([str(value) for value in distinct])
    return {value: names[str(value)] for value in distinct}


def _legend_name(column: str | None, value: Any) -> str:
    """`E = 8`, `dense`, `d = 64`, `switch`."""
    if column == "n_experts" and value == 1:
        return "dense"
    if isinstance(value, str | None) or column is None:
        return str(value or "unknown")
    shown = si(value) if isinstance(value, int | float) and abs(value) >= 10_000 else f"{value:g}"
    return f"{_NAMES.get(column, column.removeprefix('run_'))} = {shown}"
