"""The figures of a study's stored rates: one for each file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from analysis.figures import Figure
from analysis.rates.rates import Rates
from analysis.report.sections.rates import figure_name


def drawn(found: Mapping[str, Rates]) -> list[Callable[[Any], Figure]]:
    """A function that draws the figure of each file of rates, called as the section calls the figure."""
    return [_draw(name, rates) for name, rates in found.items()]


def _draw(name: str, rates: Rates) -> Callable[[Any], Figure]:
    def draw(subject: Any) -> Figure:
        return rates.plot()

    draw.__name__ = figure_name(name)
    return draw
