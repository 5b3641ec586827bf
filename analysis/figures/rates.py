"""The figure of rates: averages with intervals against the axis, the line of each arm, and theory's slope beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.style import Panel, pages, titled
from analysis.rates.arms import Setting, arm_name
from analysis.rates.rates import Point, Rate, Rates
from scaling.arrays import Array
from scaling.formatting import listed

_ACROSS = 3  # panels in a row
_HEIGHT, _ALONE = 2.4, 4.6  # inches: of a row, and the width of a panel that stands alone
_CHARACTERS = 24  # of a title's line above one of three panels
_LINE = 8.0  # points, of a slope in its corner
_THEORY: Any = {"color": style.MUTED, "lw": 0.8, "ls": (0, (1, 1.5)), "zorder": 1}


def rates_figure(found: Rates) -> Figure:
    """One panel for each family of arms; the last column of `by`, in which its arms differ, has the colours."""
    by = found.question.by or ()
    palette = palette_of([rate.arm[by[-1]] for rate in found.rates]) if by else {}
    panels: list[Panel] = []
    for values, rates in found.families.items():
        shades = [palette[rate.arm[by[-1]]] if by else style.INK for rate in rates]
        panel = partial(slopes, rates, shades, x_label=found.question.axis, y_label=_quantity(found))
        name = arm_name(dict(zip(by[:-1], values, strict=True)))
        panels.append(titled(panel, textwrap.fill(name, _CHARACTERS)) if values else panel)
    rows = [panels[first : first + _ACROSS] for first in range(0, len(panels), _ACROSS)]
    legend = {f"{by[-1]} {listed([value])}": shade for value, shade in palette.items()}
    width = style.WIDTH if len(panels) > 1 else _ALONE
    return pages(*rows, heights=[_HEIGHT] * len(rows), legend=legend, width=width)


def palette_of(values: Sequence[Setting]) -> dict[Setting, str]:
    """One colour for each value, in the order of the arms, along viridis."""
    distinct = [*dict.fromkeys(values)]
    places = np.linspace(0.08, 0.82, len(distinct)) if len(distinct) > 1 else [0.45]
    return {
        value: mpl.colors.to_hex(mpl.colormaps["viridis"](place)) for value, place in zip(distinct, places, strict=True)
    }


def slopes(rates: Sequence[Rate], shades: Sequence[str], ax: Axes, *, x_label: str, y_label: str) -> Axes:
    """Averages against the axis with 95 % intervals, the line of each arm over its stated window, and a dotted line of
    theory's slope through the middle of that window.

    Hollow points are in no stated slope: they lie outside the window, or the best value is at an end of what was run.
    """
    for rate, shade in zip(rates, shades, strict=True):
        for point in rate.points:
            used = point.inside and not point.edge
            if point.interval is not None:
                ax.vlines(point.x, *point.interval, colors=shade, lw=1.0, zorder=2)
            ax.plot(point.x, point.value, "o", color=shade if used else "white", mec=shade, mew=0.7, ms=3.6, zorder=3)
        ends = np.array(sorted([rate.stated.first, rate.stated.last]))
        line = _line(rate, ends)
        ax.plot(ends, line, color=shade, lw=1.2, zorder=2)
        if rate.theory is not None:
            centre = float(np.exp(np.log(ends).mean()))
            ax.plot(ends, _line(rate, np.array([centre])) * (ends / centre) ** rate.theory, **_THEORY)
    shown = [point for rate in rates for point in rate.points]
    ax.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    x, values = np.array([point.x for point in shown]), _ends(shown)
    low, high = x.min(), x.max()
    ax.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** 0.4)  # room for the slopes
    ax.set_ylim(0.8 * values.min(), 1.25 * values.max())
    style.ticks(ax.xaxis, x, most=5, digits=2)
    style.ticks(ax.yaxis, [values.min(), values.max()], most=6, digits=2, studied=False)
    _say_slopes(rates, shades, ax)
    return ax


def _say_slopes(rates: Sequence[Rate], shades: Sequence[str], ax: Axes) -> None:
    """The slopes one below the other, to the right of the lines, which may end too close together for labels."""
    falling = sum(rate.slope for rate in rates) < 0
    corner, first = ((1, 1), -2.0) if falling else ((1, 0), 2 + _LINE * (len(rates) - 1))
    for number, (rate, shade) in enumerate(zip(rates, shades, strict=True)):
        text, place = style.signed(round(rate.slope, 3), "+.3g"), (-2, first - number * _LINE)
        look = {"ha": "right", "va": "top" if falling else "bottom", "color": shade, "bbox": style.PLATE}
        style.beside(text, corner, place, ax, xycoords="axes fraction", zorder=4, **look)


def _line(rate: Rate, x: Array) -> Array:
    """The fitted power law."""
    return np.asarray(np.exp(rate.log_coefficient) * x**rate.slope)


def _ends(points: Sequence[Point]) -> Array:
    """The values, and the ends of their intervals that are within a factor of ten of them: longer ones are cut."""
    values = [point.value for point in points]
    ends = [end for point in points for end in point.interval or () if point.value / 10 < end < point.value * 10]
    return np.array([*values, *ends])


def _quantity(found: Rates) -> str:
    return f"{found.question.quantity}, {found.unit}" if found.unit else found.question.quantity
