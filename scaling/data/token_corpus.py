"""A corpus of tokens that somebody else made: checked once against what `tokens.json` says of them, then mapped.

Training reads the files where they are. The held-out documents are the `heldout_docs` with the smallest SHA-256 of
their tokens among those of the held-out files, or of the end of the training tokens, and are copied. Copies of them in
the training files are not looked for.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.config.data import DataConfig
from scaling.config.token_files import TokenFiles, files_of, token_files
from scaling.data.shards import Shard, TokenStream, documents_of, places_of
from scaling.errors import InputError

_FORMAT = 1  # of the content, as in corpus.py
_CHUNK = 1 << 24  # tokens
_LLM_C = 20240520  # the first number of the header of llm.c's files


@dataclass(frozen=True)
class TokenCorpus:
    """Training shards, held-out documents by name with the bytes of each token, and the hash of all of it."""

    train: list[Shard]
    train_documents: int
    heldout: list[tuple[str, NDArray[Any], NDArray[np.float64]]]
    hash: str


def all_files(config: DataConfig) -> list[tuple[str, Path]]:
    """The files of such a corpus, by name, with `tokens.json` itself. Raises InputError."""
    path = config.paths[0]
    made = token_files(path)
    files = [Path(path), *files_of(path, made.train), *files_of(path, made.heldout)]
    files += [Path(path).parent / made.heldout_bytes] if made.heldout_bytes else []
    return [(str(file), file) for file in files]


def read(config: DataConfig) -> TokenCorpus:
    """Check the files and choose the held-out documents.

    Raises InputError naming file and place: a file that is no whole number of tokens, a token beyond the vocabulary, no
    separator, too few held-out documents, bytes that do not match the held-out tokens.
    """
    path = config.paths[0]
    made = token_files(path)
    content = hashlib.sha256(
        json.dumps(
            [_FORMAT, made.model_dump(exclude={"train", "heldout", "heldout_bytes"}), config.heldout_docs]
        ).encode()
    )
    train = [_checked(file, made, content) for file in files_of(path, made.train)]
    content.update(b"held out")
    heldout = [_checked(file, made, content) for file in files_of(path, made.heldout)]
    if not heldout:
        train, heldout = _split(path, train, made)
    stream = TokenStream(heldout, np.dtype(made.dtype))
    n_bytes = _bytes_of(path, made, len(stream), content)
    chosen = _chosen(path, stream, made.separator, config.heldout_docs)
    documents = []
    for start, tokens in chosen:
        if n_bytes is None:
            sizes = np.where(np.arange(len(tokens)) > 0, made.bytes_per_token or 0.0, 0.0)
        else:
            sizes = n_bytes[start : start + len(tokens)].astype(np.float64)
        documents.append((f"token {start}", tokens, sizes))
    n_documents = len(places_of(TokenStream(train, np.dtype(made.dtype)), made.separator))
    return TokenCorpus(train, n_documents, documents, content.hexdigest()[:16])


def _checked(file: Path, made: TokenFiles, content: Any) -> Shard:
    """A file as a shard; its tokens are added to the hash. Raises InputError."""
    size, item = file.stat().st_size - made.header_bytes, np.dtype(made.dtype).itemsize
    if size < item:
        raise InputError(f"{file}: has {file.stat().st_size} bytes: no token after header_bytes={made.header_bytes}")
    if size % item:
        raise InputError(
            f"{file}: {size:,} bytes after header_bytes={made.header_bytes} are no whole number of {made.dtype} "
            f"tokens: {size % item} are left over at byte {made.header_bytes + size - size % item:,}; correct "
            "`dtype` or `header_bytes`, or copy the file again"
        )
    shard = Shard(file, made.header_bytes, size // item)
    tokens = shard.opened(np.dtype(made.dtype))
    for start in range(0, len(tokens), _CHUNK):
        part = np.asarray(tokens[start : start + _CHUNK])
        if int(part.max()) >= made.vocab_size:
            _beyond(file, made, start + int(np.argmax(part >= made.vocab_size)), tokens)
        content.update(part)
    return shard


def _beyond(file: Path, made: TokenFiles, place: int, tokens: Any) -> None:
    item = np.dtype(made.dtype).itemsize
    hint = f"correct `dtype` (now {made.dtype}), `vocab_size` or `header_bytes`"
    with file.open("rb") as stream:
        if not made.header_bytes and int.from_bytes(stream.read(4), "little") == _LLM_C:
            hint = "the file begins like those of llm.c: set `header_bytes` to 1024"
    raise InputError(
        f"{file}: token {place:,} (byte {made.header_bytes + place * item:,}) is {int(tokens[place])}, beyond "
        f"vocab_size={made.vocab_size}; {hint}"
    )


def _split(path: str, train: list[Shard], made: TokenFiles) -> tuple[list[Shard], list[Shard]]:
    """Training shards cut at the first separator of the last `heldout_share` of their tokens."""
    assert made.heldout_share is not None
    dtype = np.dtype(made.dtype)
    stream = TokenStream(train, dtype)
    place = int(len(stream) * (1 - made.heldout_share))
    while place < len(stream):
        found = np.flatnonzero(stream[place : place + _CHUNK] == made.separator)
        if len(found):
            place += int(found[0])
            break
        place += _CHUNK
    if place >= len(stream):
        raise InputError(
            f"{path}: the last heldout_share={made.heldout_share:g} of `train` has no separator={made.separator}, so "
            "no document begins there; correct `separator`, or raise `heldout_share`"
        )
    before, after, done = [], [], 0
    for shard in train:
        here = min(max(place - done, 0), shard.tokens)
        if here:
            before.append(Shard(shard.path, shard.start, here))
        if here < shard.tokens:
            after.append(Shard(shard.path, shard.start + here * dtype.itemsize, shard.tokens - here))
        done += shard.tokens
    return before, after


def _bytes_of(path: str, made: TokenFiles, n_tokens: int, content: Any) -> NDArray[Any] | None:
    """Bytes of each held-out token, None where only their mean is known."""
    if made.heldout_bytes is None:
        return None
    file = Path(path).parent / made.heldout_bytes
    try:
        sizes = np.load(file, mmap_mode="r")  # which unpickles nothing
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: `heldout_bytes` of {path} is no .npy file of numbers ({error})") from error
    if sizes.shape != (n_tokens,) or sizes.dtype.kind not in "ui":
        raise InputError(
            f"{file}: holds {sizes.dtype} of shape {sizes.shape}, but `heldout` has {n_tokens:,} tokens: one whole "
            "number a token is needed"
        )
    content.update(np.ascontiguousarray(sizes))
    return sizes


def _chosen(path: str, stream: TokenStream, separator: int, count: int) -> Sequence[tuple[int, NDArray[Any]]]:
    """The documents with the smallest digests of their tokens, in their order, copies left out."""
    kept: dict[bytes, tuple[int, NDArray[Any]]] = {}
    heap: list[tuple[int, bytes]] = []
    for start, tokens in documents_of(stream, separator):
        digest = hashlib.sha256(tokens[1:].astype(np.uint32).tobytes()).digest()
        order = -int.from_bytes(digest, "big")
        if digest in kept or (len(heap) == count and order <= heap[0][0]):
            continue
        if len(heap) == count:
            del kept[heapq.heapreplace(heap, (order, digest))[1]]
        else:
            heapq.heappush(heap, (order, digest))
        kept[digest] = (start, tokens)
    if len(kept) < count:
        raise InputError(
            f"{path}: the held-out tokens hold {len(kept)} different documents that follow separator={separator}; "
            f"heldout_docs={count} are needed: correct `separator`, or give more held-out tokens"
        )
    return sorted(kept.values(), key=lambda document: document[0])
