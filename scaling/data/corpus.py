"""A corpus made ready: training tokens in a memory-mapped shard, held-out documents apart, and the hash of it all."""

from __future__ import annotations

import hashlib
import heapq
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scaling.config.data import DataConfig
from scaling.data import sources, tokenizer
from scaling.data.cache import cache_folder
from scaling.errors import InputError

_FORMAT = 1  # raise it when the meaning of the files below changes
_META = "meta.json"


@dataclass(frozen=True)
class HeldOutText:
    """A held-out document: its name, its symbols with the separator in front, and the bytes each symbol stands for."""

    name: str
    tokens: NDArray[np.uint16]
    n_bytes: NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus on disk. `hash` covers text, tokeniser and split, and goes into every row and run_id."""

    name: str
    hash: str
    folder: Path
    train_tokens: int
    train_documents: int
    heldout_documents: int
    vocab_size: int

    def tokens(self) -> NDArray[np.uint16]:
        """The training documents, each behind a separator, in their order; memory-mapped."""
        return np.memmap(self.folder / "train.bin", dtype=np.uint16, mode="r")

    def heldout(self) -> list[HeldOutText]:
        """The held-out documents, whole, in name order."""
        with np.load(self.folder / "heldout.npz") as parts:
            names = json.loads(parts["names"].tobytes())
            ends, tokens, lengths = parts["ends"], parts["tokens"], parts["byte_lengths"]
        starts = np.r_[0, ends[:-1]]
        cut = [tokens[a:b] for a, b in zip(starts, ends, strict=True)]
        return [HeldOutText(name, part, lengths[part]) for name, part in zip(names, cut, strict=True)]


def prepare(config: DataConfig) -> Corpus:
    """Tokenise a corpus into the cache, or find it there. Safe when several processes do it at once.

    The held-out documents are the `heldout_docs` with the smallest SHA-256 of their text: a choice that needs no pass
    of its own, does not depend on where files lie, and keeps exact copies of a held-out text out of training. A
    document that occurs several times is trained on as often as it occurs. Raises InputError when there are too few
    documents.
    """
    folder = cache_folder() / "corpora" / _fingerprint(config)
    if not (folder / _META).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            _build(config, working)
            try:
                working.rename(folder)
            except OSError:
                if not (folder / _META).is_file():
                    raise
        finally:
            shutil.rmtree(working, ignore_errors=True)
    meta = json.loads((folder / _META).read_text())
    return Corpus(folder=folder, **meta)


def _fingerprint(config: DataConfig) -> str:
    """Names the cache entry: which files, how large and how old, or which commit or source, and how they are cut.

    The content hash is made from content.
    """
    stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in sources.files_of(config)]
    settings = config.model_dump(mode="json", exclude={"eval_windows", "packing"})
    return hashlib.sha256(json.dumps([_FORMAT, settings, stats]).encode()).hexdigest()[:24]


def _build(config: DataConfig, folder: Path) -> None:
    chosen: dict[bytes, sources.Document] = {}
    content = hashlib.sha256(json.dumps([_FORMAT, config.tokenizer, config.vocab_size, config.heldout_docs]).encode())

    # The first pass finds the held-out documents; texts are read twice rather than kept.
    heap: list[tuple[int, bytes]] = []
    for name, text in sources.documents(config):
        digest = hashlib.sha256(text.encode("utf-8", errors="replace")).digest()
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

    def training() -> Iterator[str]:
        for _, text in sources.documents(config):
            if text.strip() and hashlib.sha256(text.encode("utf-8", errors="replace")).digest() not in chosen:
                yield text

    symbols = tokenizer.train(config, training(), folder)
    n_tokens = n_documents = 0
    with (folder / "train.bin").open("wb") as stream:
        for text in training():
            part = np.r_[np.uint16(symbols.separator), symbols.encode(text)].astype(np.uint16)
            stream.write(part.tobytes())
            n_tokens += len(part)
            n_documents += 1
    if len(chosen) < config.heldout_docs or n_documents < config.heldout_docs:
        raise InputError(
            f"data: corpus={config.corpus} has {len(chosen) + n_documents} different documents; with "
            f"heldout_docs={config.heldout_docs} at least {2 * config.heldout_docs} are needed, so that as many remain "
            "to train on"
        )
    heldout = sorted(chosen.values())
    tokens = [np.r_[np.uint16(symbols.separator), symbols.encode(text)].astype(np.uint16) for _, text in heldout]
    np.savez(
        folder / "heldout.npz",
        names=np.frombuffer(json.dumps([name for name, _ in heldout]).encode(), np.uint8),
        ends=np.cumsum([len(part) for part in tokens]),
        tokens=np.concatenate(tokens),
        byte_lengths=symbols.byte_lengths(),
    )
    meta = {
        "name": config.corpus,
        "hash": content.hexdigest()[:16],
        "train_tokens": n_tokens,
        "train_documents": n_documents,
        "heldout_documents": len(heldout),
        "vocab_size": config.vocab_size,
    }
    (folder / _META).write_text(json.dumps(meta))
