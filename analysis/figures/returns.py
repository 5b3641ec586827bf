"""Figures of returns: interquartile means, probabilities of improvement, profiles, learning curves, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.methods import method_colours
from analysis.figures.style import Panel, pages, titled
from analysis.returns.bootstrap import Band, Interval
from analysis.returns.comparison import ArmResult, ReturnsComparison
from analysis.returns.contrasts import ContrastResult
from scaling.arrays import Array
from scaling.formatting import si

_MOST_BANDS = 6  # arms in one panel of bands
_LINES, _ROW, _PANEL = 0.75, 0.17, 2.6  # inches: around rows, of a row, and of another panel
_NAME, _NAME_HIGH = 0.28, 0.065  # what a name takes of the width and the height of a panel
_MOST_COSTS = 2


def returns_figure(found: ReturnsComparison) -> Figure:
    """Everything that a comparison has on one page: the rows of `rows_figure`, the panels of `panels_figure`."""
    return _page(found, [*_rows(found), *_panels(found)])


def rows_figure(found: ReturnsComparison) -> Figure:
    """Arms in rows, and the pairs that were asked for."""
    return _page(found, _rows(found), legend=False)


def panels_figure(found: ReturnsComparison) -> Figure:
    """Profiles, learning curves and costs, as far as a comparison has them."""
    return _page(found, _panels(found))


def overview(found: ReturnsComparison) -> Figure:
    """The arms in rows alone: what a first page shows."""
    return style.figure(*_by_arm(found), height=_LINES + _ROW * len(found.arms), ratios=[1.2, 1.0])


def palette_of(found: ReturnsComparison) -> dict[str, str]:
    """One colour for each arm, in the order of names, which is that of every figure; the baseline in grey."""
    names = sorted(arm.name for arm in found.arms)
    return {**method_colours(names), found.question.baseline: style.DENSE}


def bands_of(found: ReturnsComparison) -> list[str]:
    """The arms whose bands are drawn: the baseline and those of the pairs that were asked for, else the best ones."""
    asked = [name for one in found.contrasts for name in (one.ours, one.theirs)]
    best = [arm.name for arm in found.arms]
    return [*dict.fromkeys([found.question.baseline, *asked, *best])][:_MOST_BANDS]


def score_rows(arms: Sequence[ArmResult], baseline: str, label: str, ax: Axes) -> Axes:
    """The interquartile mean of each arm with its interval, the best on top; the line is the baseline's. Arms that
    differ from the baseline by more than chance are in the accent colour."""
    for place, arm in enumerate(reversed(arms)):
        apart = arm.difference is not None and arm.difference.excludes(0.0)
        _interval_row(arm.iqm, place, ax, colour=style.ACCENT if apart else style.INK, hollow=arm.name == baseline)
    for arm in arms:
        if arm.name == baseline:
            ax.axvline(arm.iqm.estimate, color=style.MUTED, lw=0.9, zorder=0)
    style.named_rows([arm.name for arm in reversed(arms)], ax)
    ax.set(ylim=(-0.6, len(arms) - 0.4), xlabel=label)
    return ax


def improvement_rows(arms: Sequence[ArmResult], baseline: str, ax: Axes) -> Axes:
    """The probability that a run of each arm scores more than one of the baseline, in the order of `score_rows`."""
    for place, arm in enumerate(reversed(arms)):
        if arm.improvement is not None:
            _interval_row(arm.improvement, place, ax, accent=arm.improvement.excludes(0.5))
    ax.axvline(0.5, color=style.MUTED, lw=0.9, zorder=0)
    style.named_rows([""] * len(arms), ax)
    ax.set(ylim=(-0.6, len(arms) - 0.4), xlim=(-0.02, 1.02), xlabel=f"P(better than {baseline})")
    return ax


def contrast_rows(contrasts: Sequence[ContrastResult], ax: Axes) -> Axes:
    """The difference of each pair of arms with its interval, the first on top; the shaded strip of a row is its
    margin."""
    for place, one in enumerate(reversed(contrasts)):
        if one.margin is not None:
            ax.fill_between([-one.margin, one.margin], place - 0.4, place + 0.4, color=style.GRID, lw=0, zorder=0)
        _interval_row(one.difference, place, ax, accent=one.difference.excludes(0.0))
    ax.axvline(0.0, color=style.MUTED, lw=0.9, zorder=0.5)
    style.named_rows([f"{one.name}: {one.ours} − {one.theirs}" for one in reversed(contrasts)], ax)
    ax.set(ylim=(-0.6, len(contrasts) - 0.4), xlabel="difference of interquartile means")
    return ax


def bands(by_arm: Mapping[str, Band], palette: Mapping[str, str], x_label: str, y_label: str, ax: Axes) -> Axes:
    """Lines with their pointwise 95 % bands."""
    for name, one in by_arm.items():
        ax.plot(one.x, one.estimate, color=palette[name], lw=1.2)
        ax.fill_between(one.x, one.low, one.high, color=palette[name], alpha=0.16, lw=0)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.xaxis.set_major_formatter(lambda value, _: si(value))
    return ax


def score_against_cost(
    arms: Sequence[ArmResult], measure: str, palette: Mapping[str, str], x_label: str, y_label: str, ax: Axes
) -> Axes:
    """The interquartile mean of each arm with its interval against what it costs, by name."""
    shown = [arm for arm in arms if arm.measures.get(measure, 0.0) > 0]
    x = np.array([arm.measures[measure] for arm in shown])
    for arm, place in zip(shown, x, strict=True):
        if arm.iqm.low is not None and arm.iqm.high is not None:
            ax.vlines(place, arm.iqm.low, arm.iqm.high, colors=palette[arm.name], lw=1.0, zorder=2)
        ax.plot(place, arm.iqm.estimate, "o", color=palette[arm.name], mec="white", mew=0.5, zorder=3)
    ax.set(xscale="log", xlabel=x_label, ylabel=y_label)
    span = max(x.max() / x.min(), 2.0)
    ax.set_xlim(x.min() / span**0.1, x.max() * span ** (1.2 * _NAME / (1 - _NAME)))
    _names([arm.name for arm in shown], x, [arm.iqm.estimate for arm in shown], [palette[a.name] for a in shown], ax)
    style.ticks(ax.xaxis, x, most=4, digits=2, studied=False)
    return ax


def _names(names: Sequence[str], x: Array, y: Sequence[float], shades: Sequence[str], ax: Axes) -> None:
    """Names to the right of their points, those that would cover each other moved up or down, all inside the panel."""
    low, high = ax.get_xlim()
    lowest, highest = ax.get_ylim()
    width, height = _NAME * np.log(high / low), _NAME_HIGH * (highest - lowest)
    order = np.argsort(x)
    begins = np.flatnonzero(np.diff(np.log(x[order])) > width) + 1
    for group in np.split(order, begins):
        apart = style.kept_apart([y[one] for one in group], height)
        for one, label in zip(group, apart, strict=True):
            look = {"fontsize": 5.5, "va": "center", "color": shades[one]}
            style.beside(names[one], (x[one], label), (4, 0), ax, **look)
            lowest, highest = min(lowest, label - height / 2), max(highest, label + height / 2)
    ax.set_ylim(lowest, highest)


def _interval_row(
    found: Interval, place: int, ax: Axes, *, colour: str = style.INK, accent: bool = False, hollow: bool = False
) -> None:
    """A bar from end to end of the interval, where it has ends, with the estimate on it."""
    shade = style.ACCENT if accent else colour
    if found.low is not None and found.high is not None:
        ends = [found.low, found.high]
        ax.plot(ends, [place, place], color=shade, lw=2.2, solid_capstyle="butt", alpha=0.55, zorder=2)
    face: Any = "white" if hollow else shade
    ax.plot(found.estimate, place, "o", color=face, mec=shade, mew=0.8, ms=4.2, zorder=3)


def _page(found: ReturnsComparison, rows: Sequence[tuple[list[Panel], float]], *, legend: bool = True) -> Figure:
    """Rows of panels with their heights, under a legend of the arms whose bands are drawn."""
    palette = palette_of(found)
    return pages(
        *(panels for panels, _ in rows),
        heights=[height for _, height in rows],
        legend={name: palette[name] for name in bands_of(found)} if legend else {},
    )


def _rows(found: ReturnsComparison) -> list[tuple[list[Panel], float]]:
    rows = [(_by_arm(found), _LINES + _ROW * len(found.arms))]
    if found.contrasts:
        pairs: Panel = titled(partial(contrast_rows, found.contrasts), "Pairs of arms")
        rows.append(([pairs], _LINES + _ROW * len(found.contrasts)))
    return rows


def _panels(found: ReturnsComparison) -> list[tuple[list[Panel], float]]:
    palette = palette_of(found)
    return [(panels, _PANEL) for panels in (_bands(found, palette), _costs(found, palette)) if panels]


def _by_arm(found: ReturnsComparison) -> list[Panel]:
    baseline = found.question.baseline
    scores: Panel = titled(partial(score_rows, found.arms, baseline, found.score), "Interquartile mean")
    return [scores, titled(partial(improvement_rows, found.arms, baseline), "Probability of improvement")]


def _bands(found: ReturnsComparison, palette: Mapping[str, str]) -> list[Panel]:
    named = bands_of(found)
    profiles = {arm.name: arm.profile for name in named for arm in [found[name]]}
    label = "score" if found.random else found.score
    panels: list[Panel] = [
        titled(partial(bands, profiles, palette, label, "share of runs above"), "Performance profiles")
    ]
    if found.curves is not None:
        own = {name: found.curves.by_arm[name] for name in named if name in found.curves.by_arm}
        y_label = f"{found.curves.column}, IQM" + (" of scores" if found.random else "")
        panels.append(titled(partial(bands, own, palette, found.curves.axis, y_label), "While it learns"))
    return panels


def _costs(found: ReturnsComparison, palette: Mapping[str, str]) -> list[Panel]:
    """Panels of the costs that are known and differ between arms."""
    return [
        titled(partial(score_against_cost, found.arms, name, palette, label, "IQM"), f"Against {label}")
        for name, label in [*found.costs.items()][:_MOST_COSTS]
    ]
