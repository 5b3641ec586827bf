"""The figure of rates: a panel a family, points where they were measured, lines of the slope and of theory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from planted_rates import LEVELS, replicates

import scaling
from analysis.figures.style import save

SLOPES = {"sigmoid": -0.5, "softmax": -0.25}
CELLS = [{"order": order, "gate": gate, "samples": n} for order, gate, n in itertools.product((1, 2), SLOPES, LEVELS)]


@pytest.fixture(scope="module")
def found():
    frame = replicates(CELLS, lambda cell: cell["samples"] ** SLOPES[cell["gate"]], count=5)
    asked = {"metric": "risk", "axis": "samples", "by": ("order", "gate"), "theory": "-0.5", "bootstrap": 100}
    return scaling.rates(frame, window="samples >= 300", **asked)


def test_a_panel_shows_the_arms_that_differ_in_the_last_column(found):
    page = found.plot()
    assert [ax.get_title(loc="left") for ax in page.axes] == ["order 1", "order 2"]
    assert [text.get_text() for text in page.legends[0].get_texts()] == ["gate sigmoid", "gate softmax"]
    for ax, order in zip(page.axes, (1, 2), strict=True):
        rates = [rate for rate in found.rates if rate.arm["order"] == order]
        points = [line for line in ax.lines if line.get_marker() == "o"]
        shown = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in points)
        assert shown == sorted((point.x, point.value) for rate in rates for point in rate.points)
        hollow = {line.get_xdata()[0] for line in points if line.get_markerfacecolor() == "white"}
        assert hollow == {LEVELS[0]}
        lines = [line for line in ax.lines if line.get_marker() == "None"]
        slopes = [float(np.diff(np.log(line.get_ydata()))[0] / np.diff(np.log(line.get_xdata()))[0]) for line in lines]
        assert slopes == pytest.approx([rates[0].slope, -0.5, rates[1].slope, -0.5], abs=1e-9)  # rounding
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("samples", "risk")


def test_a_single_arm_needs_no_legend(tmp_path):
    frame = replicates([{"samples": n} for n in LEVELS], lambda cell: cell["samples"] ** -1.0, count=1, noise=0.0)
    page = scaling.rates(frame, metric="risk", axis="samples").plot()
    assert len(page.axes) == 1
    assert page.legends == []
    assert save(page, tmp_path / "rates.svg").stat().st_size > 1000
