"""JSON read with care: what is refused is named, what is read is what was written, and nothing takes long."""

from __future__ import annotations

import json
import os
import time

import pytest

from scaling.errors import InputError
from scaling.json_text import JsonLimits, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "x.json:1:2: not JSON"),
        ('{"a": 1,\n "b" 2}', "x.json:2:6: not JSON"),
        ("", "x.json:1:1"),
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "'1e999' is too large"),
        (f"[{'9' * 400}]", "too large"),
        (f"[{'9' * 5000}]", "too large"),
        ('{"law": 1, "law": 2}', "'law' stands twice"),
        ("[" * 30 + "]" * 30, "deep"),
        ("[" * 100_000, "deep"),
        ('{"a":' * 100_000, "deep"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"a": "\\ud800', "not JSON"),
        ('{"a": ["\\ud800"]}', "half of a character"),
    ],
)
def test_what_is_no_plain_json_is_refused_with_its_place(text, named):
    with pytest.raises(InputError) as refused:
        parse_json(text, "x.json")
    assert str(refused.value).startswith("x.json")
    assert named in str(refused.value)


def test_a_number_is_the_same_however_it_is_written():
    read = parse_json("[8, 8.0, 8e0, 0.1, 1e21, -0.0, 0.0, 123456789012345678901]", "x")
    assert read == [8, 8, 8, 0.1, 1e21, 0.0, 0, 123456789012345678901]
    assert [type(value) for value in read] == [int, int, int, float, float, float, int, int]
    assert str(read[5]) == "-0.0"


def test_what_json_writes_is_read():
    document = {"a": [1, -2.5e-300, None, True, "ü\u2028"], "b": {"": {}}, "c": []}
    assert parse_json(json.dumps(document), "x") == document
    assert parse_json('"\\ud83d\\ude00"', "x") == "\U0001f600"
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(document).encode(), "x") == document


@pytest.mark.parametrize("text", ["[" + "[]," * 30 + "[]]", "[" + "1," * 50 + "1]"])
def test_the_number_of_values_is_bounded(text):
    assert parse_json(text, "x")
    with pytest.raises(InputError, match="more than"):
        parse_json(text, "x", JsonLimits(containers=20, values=20))


def test_a_large_file_a_folder_and_a_device_are_refused_at_once(tmp_path):
    big = tmp_path / "big.json"
    with big.open("wb") as handle:
        os.truncate(handle.fileno(), 10_000_000_000)  # takes no room
    start = time.monotonic()
    with pytest.raises(InputError, match=r"big\.json: more than 64 MB"):
        read_json(big)
    for place in (tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="not a JSON file"):
            read_json(place)
    assert time.monotonic() - start < 1
