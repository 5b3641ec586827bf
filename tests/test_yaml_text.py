"""YAML read with care: plain words are decimal numbers or text, and a file that would fill the memory is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.errors import InputError
from scaling.yaml_text import YamlSource, parse_tree, plain, yaml_text

WORDS = {
    "010": 10, "+07": 7, "-3": -3, "1_000": 1000, "0100000": 100_000, "1.50": 1.5, "-.5": -0.5, "1.0e+3": 1000.0,
    "true": True, "False": False, "null": None, "~": None, "": None,
    "0o10": "0o10", "0x1F": "0x1F", "0b1": "0b1", "1:30": "1:30", "190:20:30.15": "190:20:30.15", "1e9": "1e9",
    ".inf": ".inf", "-.Inf": "-.Inf", ".NaN": ".NaN", "no": "no", "on": "on", "Y": "Y", "2026-10-01": "2026-10-01",
    "2026-10-01 10:00:00": "2026-10-01 10:00:00", "'010'": "010", '"true"': "true", "1__0": "1__0", "_1": "_1",
}  # fmt: skip


def read(text: str) -> object:
    source = YamlSource(Path("x.yaml"))
    value = plain(parse_tree(text, source, "give something"))
    source.stop_if_wrong()
    return value


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_a_decimal_number_or_the_text_that_stands_there(word: str) -> None:
    (value,) = read(f"a: {word}\n").values()
    assert value == WORDS[word]
    assert type(value) is type(WORDS[word])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufeff\ufffe\uffff"), max_size=12)
    | st.sampled_from([word for word in WORDS if "'" not in word and '"' not in word]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(value=JSON)
def test_what_pyyaml_writes_is_read_as_it_was(value: object) -> None:
    """Its writer quotes every text that YAML 1.1 reads as something else."""
    assert read(yaml.safe_dump({"a": value}, allow_unicode=True)) == {"a": value}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: 1\na: 2", "x.yaml:2:1: a: given twice, first in line 1"),
        ("a: 1\n'a': 2", "x.yaml:2:1: a: given twice"),
        ("a: !!int 3", "x.yaml:1:4: the tag"),
        ("a: !!python/object/apply:os.system ['x']", "x.yaml:1:4: the tag"),
        ("!!binary a: 1", "x.yaml:1:1: a key must be"),
        ("b: &b {c: 1}\na: {<<: *b}", "x.yaml:2:5: <<"),
        ("? [a]\n: 1", "x.yaml:1:3: a key must be"),
        ("a: &a [*a]", "x.yaml:1:"),
        ("a: *b", "x.yaml:1:4: not YAML"),
        ("a:\n\tb: 1", "spaces, not tabs"),
        ("a: \x07", "x.yaml:1:4: not YAML"),
        ('a: "\\uD800\\UFFFFFFFF"', "x.yaml:1:"),
        ('a: "\\ud800"', "x.yaml:1:4: half of a character"),
        ("%YAML 3.0\n---\na: 1", "x.yaml:1:"),
        ("[" * 50 + "]" * 50, "deep"),
        ("[" * 5000, "x.yaml:1:"),
        ("# nothing", "x.yaml:1:1: the file is empty; give something"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: not YAML"),
    ],
)
def test_what_is_refused_has_its_line_and_column(text: str, named: str) -> None:
    with pytest.raises(InputError) as refused:
        read(text)
    assert named in str(refused.value)


def test_an_alias_is_read_and_a_bomb_of_them_is_not() -> None:
    assert read("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    start = time.process_time()
    with pytest.raises(InputError, match="more than 100,000 values"):
        read(f"l0: &l0 [x, x]\n{levels}")
    assert time.process_time() - start < 2


def test_a_file_larger_than_anybody_writes_is_refused_unread(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    with big.open("wb") as handle:
        handle.truncate(5_000_000_000)  # takes no room
    with pytest.raises(InputError, match=r"big\.yaml: more than 400,000 bytes"):
        yaml_text(big)
    with pytest.raises(InputError, match="device or pipe"):
        yaml_text(Path("/dev/zero"))
