"""A tiny corpus of files and a folder to run sweeps in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 documents of a few dozen bytes."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(250):
        (folder / f"{i:03}.txt").write_text(f"document {i} counts to {i + 1}, then to {i * i}, and rests.\n" * 2)
    return folder


@pytest.fixture
def place(tmp_path: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder to work in. The environment is restored, because a sweep in this process sets its threads there."""
    before = dict(os.environ)
    (tmp_path / "docs").symlink_to(texts)
    place = Place(tmp_path, tmp_path / "out", tmp_path / "log", tmp_path / "mercy")
    os.environ["SCALING_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    os.environ["FAKE_LOG"] = str(place.log)
    os.environ["FAKE_MERCY"] = str(place.mercy)
    yield place
    os.environ.clear()
    os.environ.update(before)
