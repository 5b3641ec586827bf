"""The speed of an engine comes back from its file, and what cannot be is named."""

from __future__ import annotations

import json

import pytest
from seeds import latency_document

from analysis.latency.speed_file import load_speed, speed_document
from scaling.errors import InputError
from scaling.serving.published_speeds import published_speed

SPEED = published_speed("published:vllm-h100")


def test_a_speed_comes_back_from_its_file(tmp_path):
    (tmp_path / "speed.json").write_text(json.dumps(speed_document(SPEED)))
    assert load_speed(tmp_path / "speed.json") == SPEED


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"coefficients": [1.0]}, "coefficients"),
        ({"coefficients": [-1.0] * 10}, "`coefficients`"),
        ({"without": [[None] * 10]}, "without[0][0]"),
        ({"scatter": "x"}, "scatter"),
        ({"schema_version": 9}, "schema_version"),
    ],
)
def test_what_cannot_be_is_named(tmp_path, change, named):
    (tmp_path / "speed.json").write_text(json.dumps(speed_document(SPEED) | change))
    with pytest.raises(InputError) as refused:
        load_speed(tmp_path / "speed.json")
    assert named in str(refused.value)
    assert str(tmp_path / "speed.json") in str(refused.value)


def test_another_kind_of_file_is_called_by_its_name(tmp_path):
    (tmp_path / "law.json").write_text(json.dumps(latency_document()))
    with pytest.raises(InputError, match="a latency law"):
        load_speed(tmp_path / "law.json")
