"""Tokenisers: bytes, symbols of a known source, or byte-level BPE. The last symbol separates documents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scaling.config.data import DataConfig
from scaling.data import markov
from scaling.errors import InputError

_FILE = "tokenizer.json"


class Bytes:
    """Byte values from `first` on, numbered from 0, and a separator: all 256, or those of a known source."""

    def __init__(self, count: int = 256, first: int = 0) -> None:
        self.separator, self._first = count, first

    def encode(self, text: str) -> NDArray[np.uint16]:
        utf8 = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
        return utf8.astype(np.uint16) - np.uint16(self._first)

    def byte_lengths(self) -> NDArray[np.int64]:
        """Bytes of text of each symbol; 0 for the separator."""
        return np.r_[np.ones(self.separator, np.int64), 0]


class BytePairs:
    """Byte-level BPE of the `tokenizers` package, trained on the training documents of the corpus."""

    def __init__(self, folder: Path) -> None:
        self._model = _tokenizers().Tokenizer.from_file(str(folder / _FILE))
        self.separator: int = self._model.get_vocab_size()

    def encode(self, text: str) -> NDArray[np.uint16]:
        return np.asarray(self._model.encode(text, add_special_tokens=False).ids, np.uint16)

    def byte_lengths(self) -> NDArray[np.int64]:
        # Byte-level BPE represents every byte by one printable character.
        return np.array([*map(len, self.pieces()), 0], np.int64)

    def pieces(self) -> list[str]:
        """The text of each symbol in printable characters."""
        vocabulary: dict[str, int] = self._model.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)


Tokenizer = Bytes | BytePairs


def train(config: DataConfig, texts: Iterable[str], folder: Path) -> Tokenizer:
    """The tokeniser of a corpus; BPE is trained on `texts` and saved in `folder`.

    Raises InputError if the texts yield fewer symbols than requested.
    """
    if config.corpus == "markov":
        return Bytes(config.markov_symbols, markov.FIRST)
    if config.tokenizer == "bytes":
        return Bytes()
    library = _tokenizers()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=config.bpe_vocab,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    size = model.get_vocab_size()
    if size != config.bpe_vocab:
        raise InputError(f"data.bpe_vocab={config.bpe_vocab}: the corpus yields only {size} symbols; lower it")
    model.save(str(folder / _FILE))
    return BytePairs(folder)


def _tokenizers():  # type: ignore[no-untyped-def]
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise InputError("data.tokenizer=bpe needs `tokenizers`: pip install 'moe-scaling[train]'") from error
    return tokenizers


CLASSES = ("lower case", "upper case", "digit", "white space", "punctuation", "other", "separator")


def classes(config: DataConfig, folder: Path) -> NDArray[np.int64]:
    """Class of each symbol, an index into CLASSES: that of its first byte, leading white space ignored in BPE.

    In text of known entropy every symbol is its own class.
    """
    if config.corpus == "markov":
        return np.arange(config.vocab_size)
    if config.tokenizer == "bytes":
        first = [chr(byte) for byte in range(256)]
    else:
        first = [(piece.lstrip("ĠĊĉ") or " ")[0] for piece in BytePairs(folder).pieces()]
    return np.array([*map(_class, first), CLASSES.index("separator")])


def _class(character: str) -> int:
    if not character.isascii():
        return CLASSES.index("other")
    tests = (str.islower, str.isupper, str.isdigit, str.isspace, str.isprintable)
    return next((number for number, test in enumerate(tests) if test(character)), CLASSES.index("other"))
