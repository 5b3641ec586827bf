"""Panels of one fit: the law along each axis, profiles of parameters, clouds of bootstrap draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from analysis.figures import style
from analysis.figures.style import Curve, Palette
from scaling.arrays import Array
from scaling.formatting import si

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile
    from analysis.tables.runs import RunTable


_LABELS = {"tokens": "training tokens D", "n_experts": "experts per layer E", "train_flops": "training FLOPs C"}
_POINTS = 120


def along(column: str, fit: Fit, table: RunTable, palette: Palette, ax: Axes) -> Axes:
    """The law along one of its columns with all others at their medians, and every run moved there.

    A run's point is the law's value there times the run's measured over predicted loss, so the scatter is the residual
    alone (component plus residual). The band is the law's 95 % interval.
    """
    columns = table.columns(fit.definition.columns)
    middle = {name: float(np.median(values)) for name, values in columns.items()}
    middle |= {"n_experts": float(_nearest(columns["n_experts"]))} if "n_experts" in columns else {}
    x = columns[column]
    logarithmic = x.min() > 0
    grid = (np.geomspace if logarithmic else np.linspace)(x.min(), x.max(), _POINTS)
    line = {name: np.full(_POINTS, value) for name, value in middle.items()} | {column: grid}
    low, high = fit.loss_interval(line) or (None, None)
    style.band(Curve(1, grid, fit.loss(line), low, high), style.INK, ax, lw=1.2, alpha=0.14)
    there = {name: np.full(len(x), value) for name, value in middle.items()} | {column: x}
    residual = table.column(fit.definition.target) / fit.loss(columns)
    style.dots(x, fit.loss(there) * residual, table.experts, palette, ax)
    ax.set(xlabel=_LABELS.get(column, column), ylabel="loss, others at their median")
    if logarithmic:
        ax.set_xscale("log")
        style.ticks(ax.xaxis, x, digits=2)
    return ax


def profile_curve(profile: Profile, estimate: float, ax: Axes) -> Axes:
    """The rise of the objective as a parameter is held, over the threshold of the 95 % interval, which is shaded."""
    low, high = profile.interval
    first, last = profile.values[0], profile.values[-1]
    ax.axvspan(first if low is None else low, last if high is None else high, color=style.MUTED, alpha=0.13, lw=0)
    ax.axhline(1.0, **style.LIMIT)
    ax.plot(profile.values, np.array(profile.rise) / profile.threshold, color=style.INK, lw=1.2, marker="o", ms=2.2)
    ax.axvline(estimate, color=style.MUTED, lw=0.8)
    ax.set(xlabel=profile.name, ylabel="rise / 95% threshold", ylim=(0, 2.3))
    ax.locator_params(axis="x", nbins=5)
    return ax


def cloud(x: Array, y: Array, estimate: tuple[float, float], labels: tuple[str, str], ax: Axes) -> Axes:
    """Two quantities, one point per bootstrap draw, the estimate as a cross. A thin cloud is a flat valley."""
    inside = np.ones(len(x), dtype=bool)
    for values in (x, y):  # a few far draws must not hide the shape of the rest
        low, high = np.quantile(values, [0.005, 0.995])
        inside &= (values >= low - 0.2 * (high - low)) & (values <= high + 0.2 * (high - low))
    ax.scatter(x[inside], y[inside], s=5, color=style.INK, alpha=0.22, linewidths=0)
    ax.plot(*estimate, "+", color=style.ACCENT, ms=9, mew=1.6)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.locator_params(nbins=5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: si(value).replace("-", "−"))
    return ax


def _nearest(values: Array) -> float:
    """The studied value nearest to the median."""
    return float(values[np.argmin(np.abs(np.log(values) - np.median(np.log(values))))])
