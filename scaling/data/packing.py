"""Documents packed whole into blocks: which piece lands in which block, by best-fit decreasing.

"Fewer truncations improve language modeling" (arXiv 2404.10830): a document is cut only when it is longer than a block,
and pieces are packed so that few places stay empty. A block has `seq_len` inputs.

A document is its separator and its symbols. Up to seq_len of them are one piece. A longer one is cut where the windows
of the evaluation are: pieces of seq_len inputs, which fill a block each, and the rest, which gets a separator in front
where others may share its block. So a piece begins with a separator or begins its block, and what belongs together can
be read from the tokens alone: the number of separators so far.

Behind the pieces of a block come separators. A place whose input and target both are separators is padding, and nothing
else is, for no document is empty. The target of the last input is what follows it in its document: the separator where
the document ends, its next symbol where it was cut. So each symbol is an input once an epoch, and a target once but for
the first of a rest behind a separator, which is one twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.arrays import Booleans, Integers


@dataclass(frozen=True, eq=False)
class Pieces:
    """Stretches [start, start + length) of the stream; `fronted` ones get a separator of their own in front."""

    start: Integers
    length: Integers
    fronted: Booleans

    @property
    def size(self) -> Integers:
        """Inputs that each takes."""
        return self.length + self.fronted


def cut(tokens: NDArray[np.uint16], separator: int, seq_len: int) -> Pieces:
    """The pieces of all documents, in the order of the stream, which begins with a separator."""
    first = np.flatnonzero(tokens == separator)
    length = np.diff(np.r_[first, len(tokens)])
    n_pieces = -(-length // seq_len)
    document = np.repeat(np.arange(len(first)), n_pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    size = np.minimum(length[document] - number * seq_len, seq_len)
    return Pieces(first[document] + number * seq_len, size, (number > 0) & (size < seq_len))


def best_fit_decreasing(sizes: Integers, capacity: int) -> Integers:
    """The block of each piece: largest first, each into the fullest block that has room, else into a new one.

    Equal sizes go in their order, equal rooms to the block that was filled last: nothing is left to chance. Rooms are
    the bits of one number, so the least sufficient one takes no search.
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

    def __init__(self, tokens: NDArray[np.uint16], separator: int, seq_len: int) -> None:
        self._tokens, self._separator, self._seq_len = tokens, separator, seq_len
        self._pieces = cut(tokens, separator, seq_len)
        block_of = best_fit_decreasing(self._pieces.size, seq_len)
        self._order = np.lexsort((-self._pieces.size, block_of))  # by block, and in it as they were packed
        n_blocks = int(block_of.max()) + 1 if len(block_of) else 0
        self._ends = np.searchsorted(block_of[self._order], np.arange(n_blocks), side="right")

    def __len__(self) -> int:
        return len(self._ends)

    def __call__(self, index: Integers) -> NDArray[np.int32]:
        """[blocks, seq_len + 1] symbols of the blocks with these numbers."""
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
                row[place] = self._tokens[end]  # the next document's separator, or the next symbol of a cut document
        return blocks
