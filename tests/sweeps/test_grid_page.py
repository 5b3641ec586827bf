"""docs/grid.md: every grid in it is read, has the cells that it says, and is written and planned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sweeps import grid
from sweeps.labels import cell_labels
from sweeps.lint import unread

PAGE = Path(__file__).parents[2] / "docs" / "grid.md"
GRIDS = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize("text", GRIDS, ids=[re.findall("study: (.*?)[ \n]", text)[0] for text in GRIDS])
def test_a_grid_of_the_page_has_the_cells_it_says(text: str) -> None:
    said = re.match(r"# (\d+) cells(?:, (\d+) left out)?\n", text)
    assert said
    read = grid.parse(text, PAGE)
    assert len(read.cells) == int(said[1])
    assert sum(left.count for left in read.left_out) == int(said[2] or 0)
    assert grid.parse(grid.resolved(read), PAGE).cells == read.cells
    assert len({*cell_labels(read).values()}) == len(read.cells)
    assert unread(read) == []


def test_the_page_shows_every_shorthand_and_keyword() -> None:
    for word in (*grid.FIXES, "where", "zip", "resources"):
        assert f"`{word}`" in PAGE.read_text()
        assert any(re.search(rf"\b{word}:", text) for text in GRIDS)
