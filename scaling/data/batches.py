"""Which tokens a step trains on, and which windows an evaluation reads: pure functions of corpus, seed and step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.data.corpus import HeldOutText
from scaling.data.packing import PackedBlocks
from scaling.errors import InputError


class StreamBlocks:
    """The documents one behind the other, cut into blocks that overlap by the one symbol that is only a target.

    `blocks(index)` is [blocks, seq_len + 1] symbols of the blocks with these numbers, as of PackedBlocks.
    """

    def __init__(self, tokens: NDArray[np.uint16], seq_len: int) -> None:
        self._tokens, self._seq_len = tokens, seq_len

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self._seq_len

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int32]:
        return self._tokens[index[:, None] * self._seq_len + np.arange(self._seq_len + 1)].astype(np.int32)


class TrainBatches:
    """Batches of `sequences` blocks of `seq_len + 1` symbols; any step can be asked for, in any order, by any thread.

    The blocks are stretches of the stream or, where `separator` is given, packed documents (scaling/data/packing.py).
    Each epoch visits all blocks in an order drawn from (seed, epoch), so step s is a function of (tokens, seed, s): the
    same whatever the token budget, wherever a run resumes and however many workers read. Raises InputError when one
    batch is not filled.
    """

    def __init__(
        self, tokens: NDArray[np.uint16], seq_len: int, sequences: int, seed: int, separator: int | None = None
    ) -> None:
        self._sequences, self._seed = sequences, seed
        self._blocks = StreamBlocks(tokens, seq_len) if separator is None else PackedBlocks(tokens, separator, seq_len)
        self.n_blocks = len(self._blocks)
        if self.n_blocks < sequences:
            raise InputError(
                f"data: {len(tokens)} training tokens do not fill one batch of {sequences} x {seq_len} tokens"
            )
        self._latest = (-1, np.empty(0, np.int64))  # epoch and its order, replaced as one: threads may share this

    def __call__(self, step: int) -> NDArray[np.int32]:
        """[sequences, seq_len + 1] symbols of one step."""
        places = np.arange(step * self._sequences, (step + 1) * self._sequences)
        epochs, within = np.divmod(places, self.n_blocks)
        blocks = np.empty(self._sequences, np.int64)
        for epoch in np.unique(epochs):
            blocks[epochs == epoch] = self._order(int(epoch))[within[epochs == epoch]]
        return self._blocks(blocks)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        latest, order = self._latest
        if latest != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self.n_blocks)
            self._latest = (epoch, order)
        return order


@dataclass(frozen=True)
class EvalWindows:
    """A fixed sample of windows of the held-out documents. Padding has weight 0.

    tokens [windows, seq_len + 1], weight [windows, seq_len] of each target, n_bytes [windows, seq_len] of its text,
    document [windows] index into names.
    """

    tokens: NDArray[np.int32]
    weight: NDArray[np.float32]
    n_bytes: NDArray[np.int64]
    document: NDArray[np.int64]
    names: tuple[str, ...]


def eval_windows(heldout: list[HeldOutText], seq_len: int, per_document: int) -> EvalWindows:
    """At most `per_document` windows of each document, spread evenly from its first symbol to its last.

    The estimand is the mean loss per token over these windows: long documents count up to a cap, so no document
    dominates, and windows of one document never overlap in their targets.
    """
    tokens, weight, n_bytes, document = [], [], [], []
    for number, part in enumerate(heldout):
        targets = len(part.tokens) - 1
        cells = max(1, -(-targets // seq_len))
        picked = np.unique(np.linspace(0, cells - 1, min(per_document, cells)).round().astype(int))
        for cell in picked:
            start = cell * seq_len
            window = part.tokens[start : start + seq_len + 1]
            length = len(window) - 1
            tokens.append(np.pad(window.astype(np.int32), (0, seq_len - length)))
            weight.append(np.r_[np.ones(length), np.zeros(seq_len - length)])
            n_bytes.append(np.pad(part.n_bytes[start + 1 : start + 1 + length], (0, seq_len - length)))
            document.append(number)
    return EvalWindows(
        np.stack(tokens),
        np.stack(weight).astype(np.float32),
        np.stack(n_bytes),
        np.asarray(document),
        tuple(part.name for part in heldout),
    )
