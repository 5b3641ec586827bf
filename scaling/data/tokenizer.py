"""Tokenisers: bytes, symbols of a known source, byte-level BPE of our own, and files that somebody else trained.

One symbol separates documents. Text never becomes it, nor any other special token: where their names stand in a text,
they are text. Nothing is put before or after a document but the separator.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scaling.config.data import BYTE_PAIRS, BYTES, DataConfig
from scaling.config.vocabulary import JSON, SENTENCEPIECE, sentencepiece_model
from scaling.data import markov
from scaling.data.byte_pairs import WordEncoder, is_byte_level
from scaling.errors import InputError

_FILE = "tokenizer"
Symbols = NDArray[np.unsignedinteger[Any]]


def symbol_type(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """The type of a symbol on disk: uint16 up to 65,536 symbols, else uint32."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


class Tokenizer(Protocol):
    """Texts to symbols, and the bytes of text that each symbol of a text stands for.

    file: what it was read from, None where it needs no file.
    """

    @property
    def file(self) -> Path | None: ...

    def encode(self, texts: Sequence[str]) -> list[Symbols]: ...

    def n_bytes(self, text: str, symbols: Symbols) -> NDArray[np.int64]: ...


class Bytes:
    """Byte values from `first` on, numbered from 0: all 256, or those of a known source."""

    file = None

    def __init__(self, first: int = 0) -> None:
        self._first = first

    def encode(self, texts: Sequence[str]) -> list[Symbols]:
        utf8 = [np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8) for text in texts]
        return [values.astype(np.uint16) - np.uint16(self._first) for values in utf8]

    def n_bytes(self, text: str, symbols: Symbols) -> NDArray[np.int64]:
        return np.ones(len(symbols), np.int64)


class LibraryFile:
    """A `tokenizer.json` of the `tokenizers` package, of our own training or of others'."""

    def __init__(self, file: Path, dtype: type[np.unsignedinteger[Any]]) -> None:
        self.file, self._dtype = file, dtype
        try:
            self._model = _tokenizers().Tokenizer.from_file(str(file))
        except InputError:
            raise
        except Exception as error:  # the package raises Exception itself
            raise InputError(f"data.tokenizer: {file} cannot be read by `tokenizers` ({error})") from error
        self._model.no_truncation()  # which a file may ask for
        self._model.no_padding()
        self._model.encode_special_tokens = True
        self._byte_level = is_byte_level(file.read_bytes())
        self._words = WordEncoder(self._model, dtype) if self._byte_level else None

    def encode(self, texts: Sequence[str]) -> list[Symbols]:
        if self._words:
            return self._words(texts)
        encodings = self._model.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, self._dtype) for encoding in encodings]

    def n_bytes(self, text: str, symbols: Symbols) -> NDArray[np.int64]:
        if self._byte_level:  # every byte is one printable character
            lengths = np.array([*map(len, self.pieces())])
            return lengths[symbols]
        starts = [start for start, _ in self._model.encode(text, add_special_tokens=False).offsets]
        sizes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        before = np.r_[0, np.cumsum(1 + (sizes > 0x7F) + (sizes > 0x7FF) + (sizes > 0xFFFF))]
        return _between(before[np.asarray(starts, np.int64)], int(before[-1]))

    def pieces(self) -> list[str]:
        """The text of each symbol in printable characters; "" for numbers that no symbol has."""
        vocabulary: dict[str, int] = self._model.get_vocab()
        pieces = [""] * (max(vocabulary.values()) + 1)
        for piece, number in vocabulary.items():
            pieces[number] = piece
        return pieces


class SentencePieces:
    """A SentencePiece `.model`."""

    def __init__(self, file: Path, dtype: type[np.unsignedinteger[Any]]) -> None:
        self.file, self._dtype = file, dtype
        self._model = sentencepiece_model(str(file), file.read_bytes())

    def encode(self, texts: Sequence[str]) -> list[Symbols]:
        numbers = self._model.encode(list(texts), add_bos=False, add_eos=False, num_threads=1)
        return [np.asarray(row, self._dtype) for row in numbers]

    def n_bytes(self, text: str, symbols: Symbols) -> NDArray[np.int64]:
        pieces = self._model.encode(text, add_bos=False, add_eos=False, return_type="proto").pieces
        return _between(np.array([piece.begin for piece in pieces], np.int64), len(text.encode()))

    def pieces(self) -> list[str]:
        """The text of each symbol, a space as U+2581."""
        return [self._model.id_to_piece(number) for number in range(self._model.vocab_size())]


def _between(starts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Bytes from the start of each symbol to the next. What a tokeniser drops counts with the symbol before it, so that
    the sum is that of the text."""
    if not len(starts):
        return starts
    edges = np.r_[0, np.maximum.accumulate(starts)[1:], total]
    return np.diff(edges)


def open_file(file: Path, vocab_size: int) -> LibraryFile | SentencePieces:
    """The tokeniser of a file; its symbols have the type of a vocabulary of this size. Raises InputError."""
    kind = LibraryFile if file.suffix == JSON else SentencePieces
    return kind(file, symbol_type(vocab_size))


def made(config: DataConfig, sample: Iterable[str], folder: Path) -> Tokenizer:
    """The tokeniser of a text; BPE is trained on `sample`. Its file, if any, is written into `folder`.

    Raises InputError if the sample yields fewer symbols than requested, or the file of a tokeniser cannot be read.
    """
    if config.corpus == "markov":
        return Bytes(markov.FIRST)
    if config.tokenizer == BYTES:
        return Bytes()
    vocab_size = config.vocab_size  # raises if there is no such file
    if config.tokenizer_file:
        file = folder / f"{_FILE}{Path(config.tokenizer_file).suffix}"
        shutil.copyfile(config.tokenizer_file, file)
    else:
        file = folder / f"{_FILE}{JSON}"
        _train(config.bpe_vocab, sample, file)
    return open_file(file, vocab_size)


def _train(symbols: int, texts: Iterable[str], file: Path) -> None:
    """Train byte-level BPE with GPT-2's words on texts and write its file. The package uses all cores."""
    library = _tokenizers()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=symbols,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    size = model.get_vocab_size()
    if size != symbols:
        raise InputError(f"data.bpe_vocab={symbols}: the corpus yields only {size} symbols; lower it")
    model.save(str(file))


def _tokenizers():  # type: ignore[no-untyped-def]
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise InputError("data.tokenizer needs `tokenizers`: pip install 'moe-scaling[train]'") from error
    return tokenizers


CLASSES = ("lower case", "upper case", "digit", "white space", "punctuation", "other", "separator")


def classes(config: DataConfig, folder: Path) -> NDArray[np.int64]:
    """Class of each symbol, an index into CLASSES: that of its first byte, leading white space ignored in pieces.

    In text of known entropy every symbol is its own class. Of tokens that somebody else made the symbols are unknown.
    """
    if config.corpus == "markov":
        return np.arange(config.vocab_size)
    vocabulary = config.vocabulary
    found = np.full(vocabulary.size, CLASSES.index("other"))
    if config.corpus != "tokens":
        first = _first_characters(config, folder, vocabulary.size)
        found[: len(first)] = [*map(_class, first)]
    found[vocabulary.separator] = CLASSES.index("separator")
    return found


def _first_characters(config: DataConfig, folder: Path, vocab_size: int) -> list[str]:
    if config.tokenizer == BYTES:
        return [chr(byte) for byte in range(256)]
    suffix = JSON if config.tokenizer == BYTE_PAIRS else Path(config.tokenizer).suffix
    assert suffix in (JSON, SENTENCEPIECE)
    pieces = open_file(folder / f"{_FILE}{suffix}", vocab_size).pieces()
    return [(piece.lstrip("ĠĊĉ▁ ").removeprefix("##") or " ")[0] for piece in pieces]


def _class(character: str) -> int:
    if not character.isascii():
        return CLASSES.index("other")
    tests = (str.islower, str.isupper, str.isdigit, str.isspace, str.isprintable)
    return next((number for number, test in enumerate(tests) if test(character)), CLASSES.index("other"))
