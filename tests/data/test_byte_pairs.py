"""Byte-level BPE piece by piece, and by processes: the symbols are those of the `tokenizers` package."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data import encoders
from scaling.data.byte_pairs import WordEncoder, is_byte_level
from scaling.data.tokenizer import LibraryFile, _train

WORDS = [
    "don't we'll", "naïve café", "日本語のテキスト", "x = 1\n\n\n    return y", "١٢٣ ½ Ⅷ 四",
    "a\u0301 \u200b\u00a0\u3000\u2028z",
    "\x1c\x1d \x0b\x0c\r\n\t", "🙂🙃", "ΑΒΓ ǅ ªº", "'s 'T ''re  end  ", "<|endoftext|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    _train(320, [" ".join(WORDS)] * 20 + ["the quick brown fox jumps over the lazy dog. "] * 20, path)
    return path


@pytest.fixture(scope="module")
def ours(file):
    return LibraryFile(file, np.uint16)


@pytest.fixture(scope="module")
def theirs(file):
    return tokenizers.Tokenizer.from_file(str(file))


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=12)), max_size=6).map("".join))
def test_words_give_the_symbols_of_the_whole_text(ours, theirs, text):
    """For any characters, of whatever version of Unicode: letters, digits, spaces, half of what looks like them."""
    text = text.encode("utf-8", errors="replace").decode()  # no halves of surrogate pairs
    (found,) = ours.encode([text])
    assert found.tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_every_character_has_the_class_that_the_package_gives_it(ours, theirs):
    """All of the first plane, in words that its class decides."""
    codes = [code for code in range(0x20, 0xFFFF) if not 0xD800 <= code < 0xE000]
    text = "".join(f" {chr(code)}a{chr(code)}1 !{chr(code)}" for code in codes[::7])
    assert ours.encode([text])[0].tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_words_that_were_forgotten_are_learnt_anew(file, theirs, monkeypatch):
    monkeypatch.setattr("scaling.data.byte_pairs._MOST_WORDS", 3)
    encode = WordEncoder(tokenizers.Tokenizer.from_file(str(file)), np.uint32)
    for text in WORDS * 2:
        assert encode([text])[0].tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_symbols_have_the_bytes_of_their_text(ours):
    for text in WORDS:
        (symbols,) = ours.encode([text])
        assert ours.n_bytes(text, symbols).sum() == len(text.encode())


def test_only_gpt2s_words_are_cut_by_us(file, theirs):
    assert is_byte_level(file.read_bytes())
    others = tokenizers.Tokenizer.from_str(theirs.to_str())
    others.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    assert not is_byte_level(others.to_str().encode())
    others = tokenizers.Tokenizer.from_str(theirs.to_str())
    others.normalizer = tokenizers.normalizers.Lowercase()
    assert not is_byte_level(others.to_str().encode())
    others = tokenizers.Tokenizer.from_str(theirs.to_str())
    others.add_tokens(["brown fox"])
    assert not is_byte_level(others.to_str().encode())


@pytest.mark.parametrize("vocab_size", [321, 100_000], ids=["uint16", "uint32"])
def test_processes_return_what_one_would_in_order(file, ours, monkeypatch, vocab_size):
    monkeypatch.setattr(encoders, "WORTH_IT", 0)
    monkeypatch.setattr(encoders, "_CHUNK", 50)
    monkeypatch.setattr(encoders, "cores", lambda: 2)
    texts = [*WORDS, "", *reversed(WORDS)]
    rows = list(encoders.encoded(iter(texts), ours, vocab_size, 10))
    assert [row.tolist() for row in rows] == [row.tolist() for row in ours.encode(texts)]
    assert {row.dtype.itemsize for row in rows} == {2 if vocab_size < 65_536 else 4}
