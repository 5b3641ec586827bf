"""Values on disk: every kind of file survives, is versioned, and one message says what is wrong with another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pandas as pd
import pytest

from scaling.arrays import Array, AsColumns, Booleans, Integers
from scaling.errors import InputError
from scaling.values import ANSWER, FIT, LATENCY_LAW, FileKind, digest, plain, typed


@dataclass(frozen=True)
class Part:
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"`share` must be above 0 and at most 1, found {self.share}")


@dataclass(frozen=True)
class Whole:
    part: Part
    draws: Array
    best: Integers
    kept: Booleans
    frame: Annotated[pd.DataFrame, AsColumns()]
    chances: Mapping[int, float] = field(default_factory=dict)
    pairs: tuple[tuple[int, float], ...] = ()
    limit: float | None = None


WHOLE = Whole(
    Part(0.1 + 0.2),
    np.array([[1.0, np.nan], [1e-300, 0.1]]),
    np.array([-1, 8]),
    np.array([True, False]),
    pd.DataFrame({"e": [1, 2], "usd": [0.1, np.nan]}),
    {8: 0.75},
    ((1, 2.5),),
    float("inf"),
)
KIND = FileKind("whole", 2, ("part", "draws"), "scaling make")


def test_what_is_written_is_read_to_the_last_digit():
    text = json.dumps(plain(WHOLE), allow_nan=False)
    read = typed(Whole, json.loads(text), "x")
    for name in ("draws", "best", "kept"):
        np.testing.assert_array_equal(getattr(read, name), getattr(WHOLE, name))
        assert getattr(read, name).dtype == getattr(WHOLE, name).dtype
    pd.testing.assert_frame_equal(read.frame, WHOLE.frame)
    assert (read.part, read.chances, read.pairs) == (WHOLE.part, {8: 0.75}, ((1, 2.5),))
    assert read.limit is None  # infinity is no number of JSON's


def test_the_wrong_field_is_named_by_its_place():
    document = plain(WHOLE)
    for change, named in [
        ({"part": {"share": "much"}}, "part.share: "),
        ({"part": {"share": "0.5"}}, "part.share: "),
        ({"part": {"share": True}}, "part.share: "),
        ({"part": {"share": 2.0}}, "`share` must be above 0"),
        ({"draws": [[1.0], [2.0, 3.0]]}, "draws: at [1]: "),
        ({"draws": [[1.0, 2.0], [2.0, "3"]]}, "draws: at [1][1]: "),
        ({"draws": {"a": 1}}, "draws: "),
        ({"best": [1, 2.5]}, "best: at [1]: "),
        ({"best": [1, None]}, "best: at [1]: "),
        ({"kept": [True, 1]}, "kept: at [1]: "),
        ({"frame": {"e": [1], "usd": [0.1, 0.2]}}, "frame: columns of unequal lengths"),
        ({"frame": {"e": [1], "usd": [[1]]}}, "frame: at usd[0]: "),
        ({"chances": {"x": 0.5}}, "chances.x"),
        ({"pairs": [[1]]}, "pairs[0][1]: "),
        ({"limit": float("nan")}, "NaN"),
    ]:
        with pytest.raises(InputError) as refused:
            typed(Whole, document | change, "here")
        assert str(refused.value).startswith("here: ")
        assert named in str(refused.value)


def test_a_file_has_its_version_and_older_ones_are_read(tmp_path):
    document = KIND.document(WHOLE)
    assert document["schema_version"] == 2
    path = tmp_path / "whole.json"
    for version in (0, 1, 2):
        path.write_text(json.dumps(document | {"schema_version": version}))
        assert KIND.value(Whole, KIND.read(path), str(path)).part == WHOLE.part
    del document["schema_version"]
    path.write_text(json.dumps(document))
    assert KIND.value(Whole, KIND.read(path), str(path)).part == WHOLE.part


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", ["not a whole", "JSON"]),
        ("3", ["not a whole", '"part", "draws"']),
        ('{"law": "hoffmann", "params": {}}', ["not a whole", "but a fit"]),
        ('{"part": {}, "draws": [], "schema_version": 3}', ['"schema_version" is 3', "up to 2"]),
        ('{"part": {}, "draws": [], "schema_version": true}', ['"schema_version" is True']),
        ('{"part": {}, "draws": []}', ["whole, schema_version 0", "part.share: ", "and 1 more"]),
    ],
)
def test_one_message_names_file_field_version_and_remedy(tmp_path, text, named):
    path = tmp_path / "whole.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        KIND.value(Whole, KIND.read(path), str(path))
    for words in (str(path), "`scaling make`", *named):
        assert words in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="scaling make"):
        KIND.read(tmp_path / "none.json")


def test_a_digest_is_of_what_differs_from_the_defaults():
    assert digest(Part(0.5)) == digest(Part(0.5))
    assert digest(Part(0.5)) != digest(Part(0.25))
    assert digest(Part(0.5), Part(0.25)) != digest(Part(0.25), Part(0.5))
    assert len(digest(Part(0.5))) == 12


def test_kinds_are_told_apart_by_their_keys():
    for kind in (FIT, LATENCY_LAW, ANSWER):
        keys = dict.fromkeys(kind.keys)
        assert [other for other in (FIT, LATENCY_LAW, ANSWER) if other.is_kind_of(keys)] == [kind]
