"""The vocabulary of a tokenizer file: how many symbols it has, and which one separates documents."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.errors import InputError

JSON, SENTENCEPIECE = ".json", ".model"
SUFFIXES = (JSON, SENTENCEPIECE)
MOST_SYMBOLS = 2**24


@dataclass(frozen=True)
class Vocabulary:
    """The number of symbols with the separator, the number of the separator, and a hash of the file's content.

    A separator of our own stands after the last symbol of the file.
    """

    size: int
    separator: int
    content: str


def vocabulary_of(path: str, separator: str | None) -> Vocabulary:
    """The vocabulary of a `tokenizer.json` (Hugging Face tokenizers) or of a SentencePiece `.model`.

    `separator` is one of its symbols, such as `<|endoftext|>`; None: one of our own, numbered after its last. Raises
    InputError if the file cannot be read, is something else, or lacks the separator.
    """
    try:
        about = Path(path).stat()
    except OSError as error:
        raise InputError(f"data.tokenizer: {path} cannot be read: {error.strerror}") from error
    return _read(path, separator, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=16)
def _read(path: str, separator: str | None, time_ns: int, size: int) -> Vocabulary:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"data.tokenizer: {path} cannot be read: {error.strerror}") from error
    number = _of_json(path, raw) if path.endswith(JSON) else _of_sentencepiece(path, raw)
    last = max(number.values())
    if last >= MOST_SYMBOLS:
        raise InputError(f"data.tokenizer: {path} numbers a symbol {last:,}; at most {MOST_SYMBOLS:,} symbols are read")
    content = hashlib.sha256(raw).hexdigest()[:16]
    if separator is None:
        return Vocabulary(last + 2, last + 1, content)
    if separator not in number:
        ends = [name for name in number if re.match(r"[<\[].*(end|eo[sdt]|/s)", name)][:8]
        hint = f"; it has {', '.join(ends)}" if ends else ""
        raise InputError(
            f"data.separator: {path} has no symbol {separator!r}{hint}; leave `separator` out for a symbol of our own"
        )
    return Vocabulary(last + 1, number[separator], content)


def _of_json(path: str, raw: bytes) -> dict[str, int]:
    """Numbers of the symbols, those added to the vocabulary too."""
    remedy = "give the `tokenizer.json` that `Tokenizer.save` writes (not `vocab.json` or `tokenizer_config.json`)"
    try:
        document: Any = json.loads(raw)
        vocabulary = document["model"]["vocab"]
        numbers = dict(vocabulary) if isinstance(vocabulary, dict) else {row[0]: n for n, row in enumerate(vocabulary)}
        numbers |= {token["content"]: token["id"] for token in document.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise InputError(f"data.tokenizer: {path} is no file of Hugging Face tokenizers; {remedy}") from error
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise InputError(f"data.tokenizer: {path} has no vocabulary of numbered symbols; {remedy}")
    return numbers


def _of_sentencepiece(path: str, raw: bytes) -> dict[str, int]:
    model = sentencepiece_model(path, raw)
    return {model.id_to_piece(number): number for number in range(model.vocab_size())}


def sentencepiece_model(path: str, raw: bytes) -> Any:
    """A model of the `sentencepiece` package. Raises InputError if there is no such package or the file is no model."""
    try:
        import sentencepiece
    except ImportError as error:
        raise InputError(f"data.tokenizer={path} needs `sentencepiece`: pip install 'moe-scaling[data]'") from error
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=raw)
        if model.vocab_size() < 1:
            raise RuntimeError("no pieces")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"data.tokenizer: {path} is no SentencePiece model ({error})") from error
    return model
