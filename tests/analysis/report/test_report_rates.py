"""Stored rates in a report: a section with a figure and tables for each file, sentences for the first page."""

from __future__ import annotations

import pytest
from planted_rates import LEVELS, replicates

import scaling
from analysis.report.plots.rates import drawn
from analysis.report.sections import rates as pages


@pytest.fixture(scope="module")
def found():
    frame = replicates(
        [{"order": order, "samples": n} for order in (0, 1) for n in LEVELS], lambda cell: 1 / cell["samples"], count=6
    )
    asked = {"metric": "risk", "axis": "samples", "bootstrap": 100}
    of_arms = scaling.rates(frame, by="order", theory=-1, **asked)
    return {"1-of-all-arms": of_arms, "2-first": scaling.rates(frame, where="order == 0", **asked)}


def test_each_file_has_its_finding_figure_and_slopes(found):
    blocks = pages.section(found)
    assert [block["text"] for block in blocks if block["kind"] == "heading"] == ["Of all arms", "First"]
    pictures = [block["path"] for block in blocks if block["kind"] == "figure"]
    assert (
        pictures
        == [f"{draw.__name__}.svg" for draw in drawn(found)]
        == ["rates_1-of-all-arms.svg", "rates_2-first.svg"]
    )
    slopes, local, *_ = (block for block in blocks if block["kind"] == "table")
    assert [row[0] for row in slopes["rows"]] == ["0", "1"]
    assert slopes["columns"][0] == "order"
    assert len(local["rows"]) == 2 * (len(LEVELS) - 1)
    doubts = [item for block in blocks if block["kind"] == "list" for item in block["items"]]
    assert any("ewer than 10 replicates" in item for item in doubts)
    assert pages.in_short(found) == [rates.headline for rates in found.values()]


def test_the_figures_are_those_of_the_files(found):
    of_arms, first = (draw(None) for draw in drawn(found))
    assert len(of_arms.axes) == 1
    points = [line for line in first.axes[0].lines if line.get_marker() == "o"]
    assert [float(line.get_ydata()[0]) for line in points] == [
        point.value for point in found["2-first"].rates[0].points
    ]
