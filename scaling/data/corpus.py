"""A prepared corpus: training tokens in a memory-mapped file, separate held-out documents, and a content hash."""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
import tempfile
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scaling.config.data import DataConfig
from scaling.data import sources, tokenizer
from scaling.data.cache import REMEDY, cache_folder, entry_name, writable
from scaling.errors import InputError, WorkError
from scaling.files import why_not_written

_FORMAT = 1  # of the content; part of its hash, so increase it when the same text gives other tokens
_ENTRY = 2  # of the cache entry; increase when an older one must not be used (1 replaced what was not UTF-8)
_META = "meta.json"


@dataclass(frozen=True)
class HeldOutText:
    """A held-out document: its name, its symbols after a leading separator, and the bytes of text of each symbol."""

    name: str
    tokens: NDArray[np.uint16]
    n_bytes: NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus on disk. `hash` covers text, tokeniser and split; it is part of every row and run_id."""

    name: str
    hash: str
    folder: Path
    train_tokens: int
    train_documents: int
    heldout_documents: int
    vocab_size: int

    def tokens(self) -> NDArray[np.uint16]:
        """The training documents in order, each after a separator; memory-mapped."""
        return np.memmap(self.folder / "train.bin", dtype=np.uint16, mode="r")

    def heldout(self) -> list[HeldOutText]:
        """The complete held-out documents in name order."""
        with np.load(self.folder / "heldout.npz") as parts:
            names = json.loads(parts["names"].tobytes())
            ends, tokens, lengths = parts["ends"], parts["tokens"], parts["byte_lengths"]
        starts = np.r_[0, ends[:-1]]
        cut = [tokens[a:b] for a, b in zip(starts, ends, strict=True)]
        return [HeldOutText(name, part, lengths[part]) for name, part in zip(names, cut, strict=True)]


def prepare(config: DataConfig) -> Corpus:
    """Tokenise a corpus into the cache, or open it there. Several processes may do so at once.

    The held-out documents are the `heldout_docs` with the smallest SHA-256 of their text. This choice does not depend
    on where files are stored, and keeps exact copies of held-out texts out of training. A training document that
    occurs several times is trained on each time. Raises InputError if there are too few documents.
    """
    # The content hash depends on the text; the name of the entry on files or source and settings.
    settings = config.model_dump(mode="json", exclude={"eval_windows", "packing"})
    folder = cache_folder() / "corpora" / entry_name(_ENTRY, settings, sources.files_of(config))
    if corpus := _opened(folder):
        return corpus
    working = Path(tempfile.mkdtemp(prefix=".making-", dir=writable("corpora")))
    try:
        _build(config, working)
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


def _opened(folder: Path) -> Corpus | None:
    """The corpus in a folder of the cache, or None if there is none or it is not whole."""
    try:
        corpus = Corpus(folder=folder, **json.loads((folder / _META).read_text()))
        whole = (folder / "train.bin").stat().st_size == 2 * corpus.train_tokens
        return corpus if whole and (folder / "heldout.npz").stat().st_size else None
    except (OSError, ValueError, TypeError):
        return None


def _build(config: DataConfig, folder: Path) -> None:
    """Write the corpus into an empty folder, `meta.json` last."""
    heldout, content = _choose_heldout(config)
    symbols = tokenizer.train(config, _training_texts(config, heldout), folder)
    n_tokens = n_documents = 0
    with (folder / "train.bin").open("wb") as stream:
        for text in _training_texts(config, heldout):
            tokens = _tokenised(text, symbols)
            stream.write(tokens.tobytes())
            n_tokens += len(tokens)
            n_documents += 1
    if len(heldout) < config.heldout_docs or n_documents < config.heldout_docs:
        raise InputError(
            f"data: corpus={config.corpus} has {len(heldout) + n_documents} different documents; "
            f"heldout_docs={config.heldout_docs} needs at least {2 * config.heldout_docs}, so that as many remain for "
            "training"
        )
    documents = sorted(heldout.values())
    parts = [_tokenised(text, symbols) for _, text in documents]
    np.savez(
        folder / "heldout.npz",
        names=np.frombuffer(json.dumps([name for name, _ in documents]).encode(), np.uint8),
        ends=np.cumsum([len(part) for part in parts]),
        tokens=np.concatenate(parts),
        byte_lengths=symbols.byte_lengths(),
    )
    meta = {
        "name": config.corpus,
        "hash": content,
        "train_tokens": n_tokens,
        "train_documents": n_documents,
        "heldout_documents": len(documents),
        "vocab_size": config.vocab_size,
    }
    (folder / _META).write_text(json.dumps(meta))


def _choose_heldout(config: DataConfig) -> tuple[dict[bytes, sources.Document], str]:
    """The documents with the smallest digests, by digest, and the hash of the corpus.

    Training reads the texts a second time, so that they need not be kept in memory.
    """
    content = hashlib.sha256(json.dumps([_FORMAT, config.tokenizer, config.vocab_size, config.heldout_docs]).encode())
    chosen: dict[bytes, sources.Document] = {}
    heap: list[tuple[int, bytes]] = []  # the chosen documents, the largest digest first
    for name, text in sources.documents(config):
        digest = _digest(text)
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
    return chosen, content.hexdigest()[:16]


def _training_texts(config: DataConfig, heldout: Container[bytes]) -> Iterator[str]:
    """The non-blank texts that are not held out."""
    for _, text in sources.documents(config):
        if text.strip() and _digest(text) not in heldout:
            yield text


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", errors="replace")).digest()


def _tokenised(text: str, symbols: tokenizer.Tokenizer) -> NDArray[np.uint16]:
    """The symbols of a document after a separator."""
    return np.r_[np.uint16(symbols.separator), symbols.encode(text)].astype(np.uint16)
