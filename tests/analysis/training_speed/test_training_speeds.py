"""Training speeds by name, by file, and with a given share of the peak."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.training_speed.speeds import training_speed
from scaling.errors import InputError
from scaling.files import write_json
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.training_speed import MfuByExperts, TrainingLaw
from scaling.serving.training_work import LEAST
from scaling.values import TRAINING_LAW

LAW = TrainingLaw(
    name="mine",
    coefficients=tuple((2 * LEAST).tolist()),
    drawn=(tuple((3 * LEAST).tolist()),),
    scatter=0.1,
    source="planted",
    batch_tokens=2048.0,
    seq_len=128.0,
    domain=MeasuredRange("a law", n_experts=(1, 8)),
)


def test_a_law_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_json(path, TRAINING_LAW.document(LAW))
    assert training_speed(str(path)) == training_speed(path) == training_speed(LAW) == LAW


def test_a_given_share_holds_at_one_expert_whatever_was_measured() -> None:
    speed = training_speed("published:maxtext-1256", mfu=0.45)
    assert isinstance(speed, MfuByExperts)
    assert speed.mfu_at(1) == 0.45
    assert speed.mfu_at(56) / speed.mfu_at(8) == pytest.approx(28 / 50.4)


def test_names_alone() -> None:
    assert training_speed() == training_speed("assumed")
    assert training_speed("constant", 0.3).mfu_at(64) == 0.3  # type: ignore[union-attr]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="published:marin-7201"):
        training_speed("slow")
    with pytest.raises(InputError, match="exclude each other"):
        training_speed(LAW, mfu=0.4)
    with pytest.raises(InputError, match=r"nothing\.json"):
        training_speed(tmp_path / "nothing.json")
    path = tmp_path / "law.json"
    write_json(path, TRAINING_LAW.document(LAW) | {"batch_tokens": 0.0})
    with pytest.raises(InputError, match="batch_tokens"):
        training_speed(path)
