"""Byte-level BPE piece by piece: text is cut into words as GPT-2 does, and the symbols of each word are kept.

The `tokenizers` package cuts and encodes every word each time it comes, at 2 MB of text a second and core. Text repeats
its words, so here each is encoded once by the package and then looked up: four times as fast, with equal symbols.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_WORDS = 1_000_000  # kept at once, about 150 MB; then they are learnt anew

_WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)| ?[{letters}]+| ?[{digits}]+| ?[^{spaces}{letters}{digits}]+"
    r"|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
)
"""GPT-2's words (github.com/openai/gpt-2, src/encoder.py): \\p{L} letters, \\p{N} digits, \\s spaces."""
_ASCII = {"letters": "A-Za-z", "digits": "0-9", "spaces": r"\t-\r "}


def is_byte_level(raw: bytes) -> bool:
    """Whether a tokenizer.json is byte-level BPE over GPT-2's words and nothing else, as ours and GPT-2's are."""
    document = json.loads(raw)
    cut, model = document.get("pre_tokenizer") or {}, document["model"]
    plain = not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    return (
        plain
        and model.get("type") == "BPE"
        and not document.get("normalizer")
        and cut.get("type") == "ByteLevel"
        and not cut.get("add_prefix_space")
        and cut.get("use_regex", True)
        and all(token["special"] for token in document.get("added_tokens") or ())
    )


class WordEncoder:
    """The symbols of texts, of `dtype`, by a model of the `tokenizers` package for which `is_byte_level` holds."""

    def __init__(self, model: Any, dtype: type[np.unsignedinteger[Any]]) -> None:
        self._model, self._dtype = model, dtype
        self._ascii = re.compile(_WORDS.format(**_ASCII))
        self._classes: dict[str, list[str]] = {name: [] for name in _ASCII}  # characters beyond ASCII that were seen
        self._seen: set[str] = {chr(code) for code in range(128)}
        self._words = self._ascii
        self._symbols: dict[str, bytes] = {}

    def __call__(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        words_of = [(self._ascii if text.isascii() else self._all_of(text)).findall(text) for text in texts]
        if len(self._symbols) > _MOST_WORDS:
            self._symbols.clear()
        new = list(set().union(*words_of).difference(self._symbols))
        for word, encoding in zip(new, self._model.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._symbols[word] = np.asarray(encoding.ids, self._dtype).tobytes()
        symbols = self._symbols.__getitem__
        return [np.frombuffer(b"".join(map(symbols, words)), self._dtype) for words in words_of]

    def _all_of(self, text: str) -> re.Pattern[str]:
        """The words of text that is not all ASCII. What its characters are, the package says: Python's tables of
        Unicode may be older or newer."""
        if new := set(text) - self._seen:
            self._seen |= new
            for character in new:
                if (kind := self._class(character)) in self._classes:
                    self._classes[kind].append(character)
            classes = {name: "".join(_ranges(characters)) for name, characters in self._classes.items()}
            self._words = re.compile(_WORDS.format(**{name: _ASCII[name] + classes[name] for name in _ASCII}))
        return self._words

    def _class(self, character: str) -> str:
        """Which class of `_ASCII` a character belongs to, "" for none: it joins a word of such characters."""
        joins = {"letters": "a", "digits": "1", "": "!"}
        for name, before in joins.items():
            if len(self._model.pre_tokenizer.pre_tokenize_str(before + character)) == 1:
                return name
        return "spaces"


def _ranges(characters: list[str]) -> list[str]:
    """Characters beyond ASCII as the inside of a character class, neighbours together."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return [f"{chr(first)}-{chr(last)}" for first, last in ranges]
