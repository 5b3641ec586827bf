"""Grids from their text, and what is wrong with them, for the tests of reading grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from scaling.errors import InputError
from sweeps import grid


def parse(text: str) -> grid.Grid:
    """The grid of a file that is not there."""
    return grid.parse(text, Path("folder/g.yaml"))


def require_refused(text: str, parts: Sequence[str]) -> None:
    """The text is refused, and the message has all parts."""
    with pytest.raises(InputError) as caught:
        parse(text)
    for part in parts:
        assert part in str(caught.value)
