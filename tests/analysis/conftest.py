"""Public tables for the tests of the analysis."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import EPOCH_MAP, public_data
from theirs import content

from analysis import laws
from analysis.tables import runs
from analysis.tables.runs import RunTable


@pytest.fixture(scope="session")
def epoch_path() -> Path:
    return public_data("epoch_chinchilla.csv")


@pytest.fixture(scope="session")
def epoch(epoch_path: Path) -> RunTable:
    """Epoch's digitised Chinchilla runs by its own rule: D = C/6N, the five highest losses dropped, n = 240."""
    return runs.read_runs(epoch_path, EPOCH_MAP, law=laws.HOFFMANN, drop_highest_loss=5)


@pytest.fixture
def written(tmp_path):
    """Writes a table, or bytes, under a name and gives its path."""

    def write(what, name="theirs.csv"):
        path = tmp_path / name
        path.write_bytes(what if isinstance(what, bytes) else content(what, name[name.index(".") :]))
        return path

    return write
