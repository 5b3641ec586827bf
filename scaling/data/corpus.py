"""A prepared corpus: training tokens in memory-mapped files, separate held-out documents, and a content hash."""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.config.data import BYTE_PAIRS, DataConfig
from scaling.config.token_files import NAME as TOKENS_JSON
from scaling.data import sources, token_corpus, tokenizer
from scaling.data.cache import REMEDY, cache_folder, entry_name, writable
from scaling.data.encoders import encoded
from scaling.data.shards import Shard, Tokens, TokenStream
from scaling.data.tokenizer import Symbols, symbol_type
from scaling.errors import InputError, WorkError
from scaling.files import why_not_written

_FORMAT = 1  # of the content; part of its hash, so increase it when the same text gives other tokens
_ENTRY = 3  # of the cache entry; increase when an older one must not be used (1 replaced what was not UTF-8)
_META, _TRAIN, _HELDOUT, _BYTES = "meta.json", "train.bin", "heldout.bin", "heldout_bytes.npy"


@dataclass(frozen=True)
class HeldOutText:
    """A held-out document: its name, its symbols after a leading separator, and the bytes of text of each symbol."""

    name: str
    tokens: Symbols
    n_bytes: NDArray[Any]


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus on disk. `hash` covers text, tokeniser and split; it is part of every row and run_id.

    separator: the symbol that stands before each document.   dtype: of a symbol.
    shards: path, first byte and number of tokens of each training file; a path without a folder is in `folder`.
    """

    name: str
    hash: str
    folder: Path
    train_tokens: int
    train_documents: int
    heldout_documents: int
    vocab_size: int
    separator: int
    dtype: str
    shards: tuple[tuple[str, int, int], ...]

    def tokens(self) -> Tokens:
        """The training documents in order, each after a separator; memory-mapped."""
        shards = [Shard(self.folder / path, start, tokens) for path, start, tokens in self.shards]
        dtype = np.dtype(self.dtype)
        return shards[0].opened(dtype) if len(shards) == 1 else TokenStream(shards, dtype)

    def heldout(self) -> list[HeldOutText]:
        """The complete held-out documents, those of a text in name order."""
        index = json.loads((self.folder / "heldout.json").read_text())
        tokens, n_bytes = np.fromfile(self.folder / _HELDOUT, self.dtype), np.load(self.folder / _BYTES)
        edges = zip([0, *index["ends"]], index["ends"], strict=False)
        return [
            HeldOutText(name, tokens[a:b], n_bytes[a:b]) for name, (a, b) in zip(index["names"], edges, strict=True)
        ]

    @property
    def is_whole(self) -> bool:
        """Whether the files are there with all that they should hold."""
        item = np.dtype(self.dtype).itemsize
        there = all((self.folder / path).stat().st_size >= start + n * item for path, start, n in self.shards)
        return there and all((self.folder / name).stat().st_size for name in (_HELDOUT, _BYTES, "heldout.json"))


def prepare(config: DataConfig) -> Corpus:
    """Tokenise a corpus into the cache, or open it there. Several processes may do so at once.

    The held-out documents are the `heldout_docs` with the smallest SHA-256 of their text. This choice does not depend
    on where files are stored, and keeps exact copies of held-out texts out of training. A training document that
    occurs several times is trained on each time. Tokens that somebody else made stay where they are
    (`token_corpus.py`). Raises InputError if there are too few documents.

    The folder of a text's entry holds a `tokens.json`, so a copy of it can be trained on elsewhere (`corpus: tokens`).
    """
    folder = _entry(config)
    if corpus := _opened(folder):
        return corpus
    working = Path(tempfile.mkdtemp(prefix=".making-", dir=writable("corpora")))
    try:
        (_of_tokens if config.corpus == "tokens" else _of_text)(config, working)
        if _opened(folder) is None:  # else another process was faster
            shutil.rmtree(folder, ignore_errors=True)  # half of one, as after a power cut
            with suppress(FileExistsError):
                working.rename(folder)
    except OSError as error:
        raise WorkError(f"{working}: the tokens of the text {why_not_written(error)}, or {REMEDY}") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
    made = _opened(folder)
    if made is None:
        raise WorkError(f"{folder}: the tokens of the text cannot be read back; remove it, or {REMEDY}")
    return made


def prepared(config: DataConfig) -> Corpus | None:
    """The corpus where the cache has it, else None: nothing is read, fetched or made. Raises InputError as `prepare`
    where files are missing."""
    return _opened(_entry(config))


def _entry(config: DataConfig) -> Path:
    """The folder of the cache for a corpus.

    The content hash depends on the text; the name of the entry on files or source and settings.
    """
    settings = config.model_dump(mode="json", exclude={"eval_windows", "packing"}) | {
        "tokenizer_content": config.vocabulary.content
    }
    files = token_corpus.all_files(config) if config.corpus == "tokens" else sources.files_of(config)
    return cache_folder() / "corpora" / entry_name(_ENTRY, settings, files)


def _opened(folder: Path) -> Corpus | None:
    """The corpus in a folder of the cache, or None if there is none or it is not whole."""
    try:
        meta = json.loads((folder / _META).read_text())
        corpus = Corpus(folder=folder, **{**meta, "shards": tuple(map(tuple, meta["shards"]))})
        return corpus if corpus.is_whole else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _of_text(config: DataConfig, folder: Path) -> None:
    """Write the corpus of a text into an empty folder, `meta.json` last."""
    text = _choose_heldout(config)
    vocabulary, dtype = config.vocabulary, symbol_type(config.vocab_size)
    symbols = tokenizer.made(config, _sample(config, text), folder)
    separator = np.array([vocabulary.separator], dtype)
    n_tokens = n_documents = 0
    with (folder / _TRAIN).open("wb") as stream:
        training = _training_texts(config, text.heldout)
        for row in encoded(training, symbols, vocabulary.size, text.n_bytes):
            stream.write(separator.tobytes())
            stream.write(row.astype(dtype, copy=False).tobytes())
            n_tokens += 1 + len(row)
            n_documents += 1
    if len(text.heldout) < config.heldout_docs or n_documents < config.heldout_docs:
        raise InputError(
            f"data: corpus={config.corpus} has {len(text.heldout) + n_documents} different documents; "
            f"heldout_docs={config.heldout_docs} needs at least {2 * config.heldout_docs}, so that as many remain for "
            "training"
        )
    documents = []
    for name, document in sorted(text.heldout.values()):
        (row,) = symbols.encode([document])
        n_bytes = symbols.n_bytes(document, row)
        documents.append((name, np.r_[separator, row].astype(dtype), np.r_[0, n_bytes].astype(np.int64)))
    about = {
        "dtype": np.dtype(dtype).name,
        "vocab_size": vocabulary.size,
        "separator": vocabulary.separator,
        "train": [_TRAIN],
        "heldout": [_HELDOUT],
        "heldout_bytes": _BYTES,
    }
    (folder / TOKENS_JSON).write_text(json.dumps(about, indent=1))
    _finish(config, folder, text.hash, documents, n_documents, [(_TRAIN, 0, n_tokens)])


def _of_tokens(config: DataConfig, folder: Path) -> None:
    """Write what is kept of tokens that somebody else made: their held-out documents, and where the others are."""
    made = token_corpus.read(config)
    shards = [(str(shard.path.resolve()), shard.start, shard.tokens) for shard in made.train]
    _finish(config, folder, made.hash, made.heldout, made.train_documents, shards)


def _finish(
    config: DataConfig,
    folder: Path,
    content: str,
    documents: Sequence[tuple[str, Symbols, NDArray[Any]]],
    n_documents: int,
    shards: list[tuple[str, int, int]],
) -> None:
    """Write the held-out documents, then `meta.json`."""
    np.concatenate([tokens for _, tokens, _ in documents]).tofile(folder / _HELDOUT)
    np.save(folder / _BYTES, np.concatenate([n_bytes for _, _, n_bytes in documents]))
    ends = np.cumsum([len(tokens) for _, tokens, _ in documents]).tolist()
    (folder / "heldout.json").write_text(json.dumps({"names": [name for name, _, _ in documents], "ends": ends}))
    meta = {
        "name": config.corpus,
        "hash": content,
        "train_tokens": sum(tokens for _, _, tokens in shards),
        "train_documents": n_documents,
        "heldout_documents": len(documents),
        "vocab_size": config.vocab_size,
        "separator": config.vocabulary.separator,
        "dtype": documents[0][1].dtype.name,
        "shards": shards,
    }
    (folder / _META).write_text(json.dumps(meta))


@dataclass(frozen=True)
class _Text:
    """The held-out documents of a text by digest, the hash of the corpus, and the bytes of the text."""

    heldout: dict[bytes, sources.Document]
    hash: str
    n_bytes: int


def _choose_heldout(config: DataConfig) -> _Text:
    """The documents with the smallest digests, and the hash of the corpus.

    Training reads the texts a second time, so that they need not be kept in memory.
    """
    vocabulary = config.vocabulary
    how = [_FORMAT, config.tokenizer, vocabulary.size, config.heldout_docs]
    if config.tokenizer_file:
        how = [_FORMAT, vocabulary.content, vocabulary.separator, config.heldout_docs]
    content = hashlib.sha256(json.dumps(how).encode())
    chosen: dict[bytes, sources.Document] = {}
    heap: list[tuple[int, bytes]] = []  # the chosen documents, the largest digest first
    n_bytes = 0
    for name, text in sources.documents(config):
        digest, size = _digest(text)
        n_bytes += size
        content.update(digest)
        if not text.strip() or digest in chosen:
            continue
        order = -int.from_bytes(digest, "big")
        if len(heap) < config.heldout_docs:
            heapq.heappush(heap, (order, digest))
        elif order > heap[0][0]:
            del chosen[heapq.heapreplace(heap, (order, digest))[1]]
        else:
            continue
        chosen[digest] = (name, text)
    if config.tokenizer == BYTE_PAIRS and n_bytes > config.bpe_sample:
        content.update(json.dumps(["bpe_sample", config.bpe_sample]).encode())
    return _Text(chosen, content.hexdigest()[:16], n_bytes)


def _sample(config: DataConfig, text: _Text) -> Iterable[str]:
    """The training texts that BPE is trained on: all, or those with the smallest digests, about `bpe_sample` bytes.

    The choice depends on the text alone, not on the order or place of files.
    """
    if text.n_bytes <= config.bpe_sample:
        return _training_texts(config, text.heldout)
    below = int(2.0**64 * config.bpe_sample / text.n_bytes)
    return (
        document
        for document in _training_texts(config, text.heldout)
        if int.from_bytes(_digest(document)[0][8:16], "big") < below
    )


def _training_texts(config: DataConfig, heldout: Container[bytes]) -> Iterator[str]:
    """The non-blank texts that are not held out."""
    for _, text in sources.documents(config):
        if text.strip() and _digest(text)[0] not in heldout:
            yield text


def _digest(text: str) -> tuple[bytes, int]:
    """SHA-256 of a text, and its bytes."""
    raw = text.encode("utf-8", errors="replace")
    return hashlib.sha256(raw).digest(), len(raw)
