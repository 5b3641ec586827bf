"""Summaries keep names whole, wherever a line ends."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from scaling.summary import Summarised, summarised
from scaling.table import Table


@dataclass(repr=False)
class Named(Summarised):
    """A value whose title and note put a name with hyphens after so many letters."""

    letters: int

    def summary(self) -> Table:
        text = f"{'x' * self.letters} soft-one-wide 4"
        return summarised(Table("", (), ()), text, [text])


@pytest.mark.parametrize("letters", [80, 85, 90, 95, 99])
def test_a_name_with_hyphens_is_not_broken(letters: int) -> None:
    value = Named(letters)
    for shown in (value.summary().title, *value.summary().notes, repr(value)):
        assert "soft-one-wide" in shown
