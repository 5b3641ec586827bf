"""Checkpoints of a training: what is written comes back, or nothing does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.tasks.rl.policy.checkpoint import Checkpoint, Saved


def learner(number: float, width: int = 3) -> dict[str, Any]:
    return {
        "params": jnp.full((2, width), float(number)),
        "key": jax.random.key(int(number)),
        "seen": jnp.array([True, False]),
    }


def saved(number: float, rounds: int = 7) -> Saved:
    return Saved(learner(number), rounds, np.full((7, 4), number), [{"breakout": number}], seconds=number)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    """Random keys too; the last one counts."""
    checkpoint = Checkpoint(tmp_path / "folder", minutes=5)
    assert not checkpoint.due
    checkpoint.save(saved(1.5))
    checkpoint.save(saved(2.5))
    asked = []
    found = checkpoint.load(lambda rounds: asked.append(rounds) or learner(0), 7)
    assert found is not None
    assert (asked, found.rounds, found.after, found.seconds) == ([7], 7, [{"breakout": 2.5}], 2.5)
    np.testing.assert_array_equal(found.curve, 2.5)
    np.testing.assert_array_equal(found.learner["params"], 2.5)
    assert found.learner["seen"].tolist() == [True, False]
    assert jax.random.uniform(found.learner["key"]) == jax.random.uniform(jax.random.key(2))
    assert checkpoint.load(lambda _: learner(0), 6) is None  # trained beyond what is asked for
    checkpoint.remove()
    assert not (tmp_path / "folder").exists()
    assert checkpoint.load(lambda _: learner(0), 7) is None


def test_one_that_is_damaged_or_of_another_network_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path, minutes=5)
    checkpoint.save(saved(1.0))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(lambda _: learner(0, width=4), 7) is None
        for damaged in (whole[: len(whole) // 2], b"", whole.replace(whole[-300:-250], bytes(50))):
            file.write_bytes(damaged)
            assert checkpoint.load(lambda _: learner(0), 7) is None
    assert len(caplog.records) == 4
    assert all("damaged" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("folder", "minutes"), [(None, 5), ("folder", 0)])
def test_without_a_folder_or_an_interval_there_is_none(tmp_path: Path, folder: str | None, minutes: float) -> None:
    checkpoint = Checkpoint(tmp_path / folder if folder else None, minutes)
    checkpoint.save(saved(1.0))
    assert not checkpoint.due
    assert checkpoint.load(lambda _: learner(0), 7) is None
    assert not list(tmp_path.iterdir())
