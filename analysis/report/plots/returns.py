"""The figures of a study's comparisons of returns: for each those of its section, and that of the first page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from analysis.figures import Figure
from analysis.figures.returns import overview, panels_figure, rows_figure
from analysis.report.sections.returns import figure_name, overview_name, panels_name
from analysis.returns.comparison import ReturnsComparison


def drawn(found: Mapping[str, ReturnsComparison]) -> list[Callable[[Any], Figure]]:
    """A function that draws each figure, called as the pages call it; that of the first page first."""
    fronts = [_draw(overview_name(name), overview, returns) for name, returns in [*found.items()][:1]]
    of_files = [
        _draw(name_of(name), figure, returns)
        for name, returns in found.items()
        for name_of, figure in ((figure_name, rows_figure), (panels_name, panels_figure))
    ]
    return [*fronts, *of_files]


def _draw(
    name: str, figure: Callable[[ReturnsComparison], Figure], returns: ReturnsComparison
) -> Callable[[Any], Figure]:
    def draw(subject: Any) -> Figure:
        return figure(returns)

    draw.__name__ = name
    return draw
