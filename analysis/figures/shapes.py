"""Panels of the shapes of experts: the front of cost against loss over all, and what each (E, k) offers."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.decision.answer import Answer
from analysis.decision.shape_comparison import Shapes
from analysis.figures import style
from analysis.figures.style import Palette, Panel, figure, titled
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import percent

_DARK = 0.55  # of the colour map, above which letters are white


def shapes_figure(answer: Answer) -> Figure:
    """The panels of the shapes side by side. Raises InputError where one shape alone was asked about."""
    if answer.shapes is None:
        raise InputError("no shapes of experts were compared in this answer")
    palette = style.colours(row.n_experts for row in answer.shapes.rows)
    return figure(*shapes_panels(answer.shapes, palette), height=2.9, legend=palette, ratios=[1.0, 1.2])


def shapes_panels(shapes: Shapes, palette: Palette) -> list[Panel]:
    """Cost against loss of every shape, and a tile for each (E, k)."""
    panels = [titled(partial(shape_tiles, shapes), "Beyond the best shape")]
    if len(shapes.front):
        panels.insert(0, titled(partial(shape_front, shapes, palette), "Cost of a loss"))
    return panels


def shape_front(shapes: Shapes, palette: Palette, ax: Axes) -> Axes:
    """Lifetime cost against loss: a line for every shape in the colour of its E; black, the least of all."""
    for number, line in shapes.front.groupby("shape"):
        e = shapes.rows[int(str(number))].n_experts
        line = line.sort_values("loss")
        ax.plot(line["cost"], line["loss"], color=palette[e], lw=0.7, alpha=0.6)
    front = shapes.front[shapes.front["on_front"] == 1].sort_values("loss")
    ax.plot(front["cost"], front["loss"], color=style.INK, lw=1.8)
    best = shapes.rows[0]
    at_best = front.iloc[int(np.abs(front["loss"] - best.loss).argmin())]
    style.star((float(at_best["cost"]), float(at_best["loss"])), ax)
    ax.set(xscale="log", xlabel=f"lifetime cost, {shapes.unit}", ylabel="loss, nats per token")
    style.ticks(ax.xaxis, [float(shapes.front["cost"].min()), float(shapes.front["cost"].max())], studied=False)
    return ax


def shape_tiles(shapes: Shapes, ax: Axes) -> Axes:
    """Of every E and k the best of its shapes: expected regret or, without draws, how far its loss or cost lies above
    the best. The best is framed."""
    routed = [row for row in shapes.rows if row.n_experts > 1 and row.top_k is not None]
    experts, counts = sorted({row.n_experts for row in routed}), sorted({int(row.top_k or 0) for row in routed})
    least = shapes.rows[0].value
    regret = shapes.rows[0].regret is not None
    grid: Array = np.full((len(counts), len(experts)), np.nan)
    for row in reversed(routed):  # the best last
        beyond = row.regret if regret else row.value / least - 1.0
        grid[counts.index(int(row.top_k or 0)), experts.index(row.n_experts)] = np.nan if beyond is None else beyond
    scale = np.log10(np.clip(grid, 1e-3, 1.0)) / 3.0 + 1.0
    ax.imshow(scale, cmap="Blues", vmin=0, vmax=1.25, aspect="auto", origin="lower")
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if scale[i, j] > _DARK * 1.25 else style.INK
            ax.text(j, i, percent(float(value)), ha="center", va="center", fontsize=6.5, color=colour)
    best = shapes.rows[0]
    if best.n_experts > 1 and best.top_k is not None:
        place = experts.index(best.n_experts) - 0.5, counts.index(best.top_k) - 0.5
        ax.add_patch(Rectangle(place, 1, 1, fill=False, ec=style.ACCENT, lw=1.8))
    ax.set_xticks(range(len(experts)), [str(e) for e in experts])
    ax.set_yticks(range(len(counts)), [str(k) for k in counts])
    ax.grid(visible=False)
    of = "expected regret over all shapes" if regret else "above the best shape"
    ax.set(xlabel=f"experts, E   (tiles: {of})", ylabel="experts of a token, k")
    return ax
