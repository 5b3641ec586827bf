"""What tests of validation share."""

from __future__ import annotations

import pytest
from planted import moe_grid, table_of

from analysis.tables.runs import RunTable


@pytest.fixture(scope="session")
def moe() -> RunTable:
    """100 runs of five expert counts, with .3 % of noise."""
    return table_of(moe_grid(experts=(1, 2, 4, 8, 16), noise=0.003))
