"""Panels of an engine's speed: measured against modelled times per token, by model or engine."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import style

_MARKS = "osD^vPX*"
_FACTOR = 2.0  # of the band about equality


def by_group(rows: pd.DataFrame, column: str, ax: Axes) -> Axes:
    """Measured against modelled time per token, ms, in the colour and mark of each value of `column`, with the line of
    equality and a band of twice and half.

    Columns `modelled_ms`, `tpot_ms` and `column`.
    """
    times = rows[["modelled_ms", "tpot_ms"]]
    reach = np.array([times.min().min(), times.max().max()])
    ax.fill_between(reach, reach / _FACTOR, reach * _FACTOR, color=style.MUTED, alpha=0.12, lw=0, zorder=1)
    ax.plot(reach, reach, color=style.MUTED, lw=0.9, zorder=2)
    for place, name in enumerate(dict.fromkeys(rows[column])):
        some = rows[rows[column] == name]
        ax.scatter(
            some["modelled_ms"], some["tpot_ms"], s=9, alpha=0.55, linewidths=0, marker=_MARKS[place % len(_MARKS)],
            color=f"C{place % 10}", label=str(name).rpartition("/")[2] or "not named", zorder=3,
        )  # fmt: skip
    ax.legend(fontsize=6, frameon=False, loc="upper left")
    ax.set(xscale="log", yscale="log", xlabel="modelled time per token, ms", ylabel="measured time per token, ms")
    style.ticks(ax.xaxis, reach, digits=2, studied=False)
    style.ticks(ax.yaxis, reach, digits=2, studied=False)
    return ax
