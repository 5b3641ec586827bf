"""Tokens in raw files, mapped into memory and never read whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.unsignedinteger[Any]]
_CHUNK = 1 << 24  # tokens that are looked at together


@dataclass(frozen=True)
class Shard:
    """A stretch of `tokens` tokens of a file, from byte `start` on."""

    path: Path
    start: int
    tokens: int

    def opened(self, dtype: np.dtype[Any]) -> Symbols:
        if not self.tokens:  # a map of nothing cannot be made
            return np.empty(0, dtype)
        return np.memmap(self.path, dtype, "r", self.start, (self.tokens,))


class TokenStream:
    """The tokens of several files one after the other, as if they were one array of tokens.

    Indexed by a slice without a step or by an array of integers, it returns copies of what was asked for.
    """

    def __init__(self, shards: Sequence[Shard], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._parts = [shard.opened(dtype) for shard in shards]
        self._ends = np.cumsum([shard.tokens for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: slice | NDArray[np.integer[Any]]) -> Symbols:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return self._stretch(start, stop)
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][index])
        found = np.empty(index.shape, self.dtype)
        part_of = np.searchsorted(self._ends, index, side="right")
        for part in np.unique(part_of).tolist():
            mine = part_of == part
            found[mine] = self._parts[part][index[mine] - self._before(part)]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Symbols:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _before(self, part: int) -> int:
        return int(self._ends[part - 1]) if part else 0

    def _stretch(self, start: int, stop: int) -> Symbols:
        pieces = []
        for part in range(int(np.searchsorted(self._ends, start, side="right")), len(self._parts)):
            before = self._before(part)
            if before >= stop:
                break
            pieces.append(self._parts[part][max(0, start - before) : stop - before])
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)


Tokens = Symbols | TokenStream


def places_of(tokens: Tokens, symbol: int) -> NDArray[np.int64]:
    """Where a symbol stands, in order."""
    places = [
        start + np.flatnonzero(tokens[start : start + _CHUNK] == symbol) for start in range(0, len(tokens), _CHUNK)
    ]
    return np.concatenate(places) if places else np.empty(0, np.int64)


def documents_of(tokens: Tokens, separator: int) -> Iterator[tuple[int, Symbols]]:
    """Documents that hold a symbol, each with the separator before it, and where that stands."""
    edges = [*places_of(tokens, separator).tolist(), len(tokens)]
    for start, stop in itertools.pairwise(edges):
        if stop - start > 1:
            yield start, tokens[start:stop]
