"""Panels of a prediction held against its check: losses at more compute, and what each E costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Curve, Palette
from scaling.columns import COMPUTE, EXPERTS


def losses(runs: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """The loss predicted of each trunk by compute, with the 95 % interval of a run, and every run measured.

    `runs` has `n_experts`, `train_flops`, `predicted`, `low`, `high`, `measured`.
    """
    for experts in sorted({int(e) for e in runs[EXPERTS]}):
        trunk = runs[runs[EXPERTS] == experts].sort_values(COMPUTE)
        x, y, low, high = (trunk[name].to_numpy() for name in (COMPUTE, "predicted", "low", "high"))
        style.band(Curve(experts, x, y, low, high), palette[experts], ax, alpha=0.12)
    style.dots(runs[COMPUTE], runs["measured"], runs[EXPERTS], palette, ax)
    ax.set(xscale="log", xlabel="training FLOPs, 6 N D", ylabel="loss, nats per token")
    style.ticks(ax.xaxis, runs[COMPUTE].to_numpy())
    return ax


def costs(models: pd.DataFrame, palette: Palette, ax: Axes) -> Axes:
    """What each E costs at one loss: predicted with its 95 % interval (open), and measured where it was trained.

    `models` has `n_experts`, `predicted`, `low`, `high`, and `measured`, NaN where nothing was.
    """
    place = np.arange(len(models))
    shades = [palette[int(e)] for e in models[EXPERTS]]
    ax.vlines(place - 0.12, models["low"], models["high"], color=shades, lw=1.3)
    ax.scatter(place - 0.12, models["predicted"], s=22, marker="D", facecolors="white", edgecolors=shades, zorder=3)
    ax.scatter(place + 0.12, models["measured"], s=24, color=shades, zorder=3)
    ax.set(yscale="log", xlabel="experts per layer E", ylabel="lifetime cost, USD")
    ax.set_xticks(place, [str(int(e)) for e in models[EXPERTS]])
    shown = models[["predicted", "low", "high", "measured"]].to_numpy()
    style.ticks(ax.yaxis, shown[np.isfinite(shown)])
    return ax
