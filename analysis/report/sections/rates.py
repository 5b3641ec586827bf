"""How fast a metric is learnt: the slopes of a study's stored rates, against theory where it was named."""

from __future__ import annotations

import re
from collections.abc import Mapping

from analysis.rates.rates import Rates
from analysis.rates.tables import local_table, slopes_table
from analysis.report import blocks
from analysis.report.blocks import Block, bullets, heading, picture, text
from scaling.formatting import sentence

TITLE = "How fast it is learnt"
_ALONE = 0.7  # of the width of a page: a figure with one panel
_MOST_LOCAL = 60  # rows of local slopes: of more, the tables are in the files
_CAPTION = (
    "Averages over replicates with 95% intervals, and the least-squares line of each arm over its stated window with "
    "its slope; dotted: the slope that theory gives, through the middle of that window. Hollow points are in no slope."
)


def section(found: Mapping[str, Rates]) -> list[Block]:
    """The finding, the figure, the slopes, the local slopes and the doubts of each file of rates, by name.

    A number before the name, which orders the files, is not shown.
    """
    return [block for name, rates in found.items() for block in _of_file(name, rates)]


def in_short(found: Mapping[str, Rates]) -> list[str]:
    """What each file of rates found, in a sentence for the first page."""
    return [rates.headline for rates in found.values()]


def figure_name(name: str) -> str:
    """What the figure of a file of rates is called in a report."""
    return f"rates_{name}"


def _of_file(name: str, rates: Rates) -> list[Block]:
    table, local = slopes_table(rates), local_table(rates)
    shown = [blocks.values(local, local.title)] if len(local.rows) <= _MOST_LOCAL else []
    doubts = [*rates.warnings, *rates.notes]
    return [
        heading(re.sub(r"^\d+-", "", name).replace("-", " ").capitalize()),
        text(sentence(rates.headline)),
        picture(figure_name(name), _CAPTION, 1.0 if len(rates.families) > 1 else _ALONE),
        blocks.values(table, table.title),
        *shown,
        *([bullets(doubts)] if doubts else []),
    ]
