"""Whole documents packed into blocks by best-fit decreasing.

"Fewer truncations improve language modeling" (arXiv 2404.10830): only documents longer than a block are cut, and pieces
are packed so that few places stay empty. A block has `seq_len` inputs.

A document consists of its separator and its symbols. Up to seq_len of them form one piece. A longer document is cut at
the same places as evaluation windows: into pieces of seq_len inputs, which fill a block each, and a remainder, which
gets its own separator because it may share a block. Every piece therefore begins with a separator or begins its block,
so the number of separators so far identifies the piece.

The rest of a block is filled with separators. A place is padding exactly if both input and target are separators,
because no document is empty. The target of a document's last input in a block is the separator that ends the document,
or its next symbol where it was cut. Each symbol is thus an input once per epoch and a target once, or twice if it is
the first after a remainder's separator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.arrays import Booleans, Integers
from scaling.data.shards import Tokens, places_of


@dataclass(frozen=True, eq=False)
class Pieces:
    """Intervals [start, start + length) of the stream; `fronted` ones get their own separator in front."""

    start: Integers
    length: Integers
    fronted: Booleans

    @property
    def size(self) -> Integers:
        """Inputs that each piece takes."""
        return self.length + self.fronted


def cut(tokens: Tokens, separator: int, seq_len: int) -> Pieces:
    """The pieces of all documents in the order of the stream; what stands before the first separator is left out."""
    first = places_of(tokens, separator)
    length = np.diff(np.r_[first, len(tokens)])
    n_pieces = -(-length // seq_len)
    document = np.repeat(np.arange(len(first)), n_pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    size = np.minimum(length[document] - number * seq_len, seq_len)
    return Pieces(first[document] + number * seq_len, size, (number > 0) & (size < seq_len))


def best_fit_decreasing(sizes: Integers, capacity: int) -> Integers:
    """The block of each piece: largest pieces first, each into the fullest block with enough room, else a new block.

    Ties are broken deterministically: equal pieces keep their order, and of equally full blocks the last one filled is
    used. The rooms in use are bits of one integer, so the smallest sufficient room is found without a search.
    """
    assert sizes.ndim == 1
    assert ((sizes > 0) & (sizes <= capacity)).all()
    block_of = np.empty(len(sizes), np.int64)
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = n_blocks = 0
    listed = sizes.tolist()
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = listed[piece]
        if enough := rooms >> size:
            room = size + (enough & -enough).bit_length() - 1
            block = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, block = capacity, n_blocks
            n_blocks += 1
        block_of[piece] = block
        if left := room - size:
            by_room[left].append(block)
            rooms |= 1 << left
    return block_of


class PackedBlocks:
    """Blocks [seq_len + 1] of whole documents."""

    def __init__(self, tokens: Tokens, separator: int, seq_len: int) -> None:
        self._tokens, self._separator, self._seq_len = tokens, separator, seq_len
        self._pieces = cut(tokens, separator, seq_len)
        block_of = best_fit_decreasing(self._pieces.size, seq_len)
        self._order = np.lexsort((-self._pieces.size, block_of))  # by block, then in packing order
        n_blocks = int(block_of.max()) + 1 if len(block_of) else 0
        self._ends = np.searchsorted(block_of[self._order], np.arange(n_blocks), side="right")

    def __len__(self) -> int:
        return len(self._ends)

    def __call__(self, index: Integers) -> NDArray[np.int32]:
        """The symbols [blocks, seq_len + 1] of the given blocks."""
        blocks = np.full((len(index), self._seq_len + 1), self._separator, np.int32)
        for row, block in zip(blocks, index.tolist(), strict=True):
            place = 0
            for piece in self._order[self._ends[block - 1] if block else 0 : self._ends[block]].tolist():
                start, length = int(self._pieces.start[piece]), int(self._pieces.length[piece])
                place += int(self._pieces.fronted[piece])
                row[place : place + length] = self._tokens[start : start + length]
                place += length
            end = start + length
            if place == self._seq_len and end < len(self._tokens):
                row[place] = self._tokens[end : end + 1][
                    0
                ]  # separator of the next document, or next symbol of a cut document
        return blocks
