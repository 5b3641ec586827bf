"""Training batches and evaluation windows: pure functions of corpus, seed and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.data.corpus import HeldOutText
from scaling.data.packing import PackedBlocks
from scaling.data.shards import Tokens
from scaling.errors import InputError


class StreamBlocks:
    """The concatenated documents cut into blocks, which overlap by the last symbol because it is only a target.

    `blocks(index)` is [blocks, seq_len + 1] symbols of the given blocks, as in PackedBlocks.
    """

    def __init__(self, tokens: Tokens, seq_len: int) -> None:
        self._tokens, self._seq_len = tokens, seq_len

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self._seq_len

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int32]:
        return self._tokens[index[:, None] * self._seq_len + np.arange(self._seq_len + 1)].astype(np.int32)


class TrainBatches:
    """Batches of `sequences` blocks of `seq_len + 1` symbols, for any step in any order from any thread.

    Blocks are cut from the stream or, if `separator` is given, are packed documents (scaling/data/packing.py). Each
    epoch visits all blocks in an order drawn from (seed, epoch), so step s depends only on (tokens, seed, s), not on
    the token budget, the step at which a run resumes or the number of workers. Raises InputError if the tokens do not
    fill a batch.
    """

    def __init__(self, tokens: Tokens, seq_len: int, sequences: int, seed: int, separator: int | None = None) -> None:
        self._sequences, self._seed = sequences, seed
        self._blocks = StreamBlocks(tokens, seq_len) if separator is None else PackedBlocks(tokens, separator, seq_len)
        self.n_blocks = len(self._blocks)
        if self.n_blocks < sequences:
            raise InputError(
                f"data: {len(tokens)} training tokens do not fill one batch of {sequences} x {seq_len} tokens; use a "
                "larger corpus or a smaller batch_tokens"
            )
        self._latest = (-1, np.empty(0, np.int64))  # epoch and its order, replaced together: threads may share them

    def __call__(self, step: int) -> NDArray[np.int32]:
        """The symbols [sequences, seq_len + 1] of one step."""
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
    """A fixed sample of windows from the held-out documents. Padding has weight 0.

    tokens [windows, seq_len + 1]; weight and n_bytes [windows, seq_len] of each target; document [windows], an index
    into names.
    """

    tokens: NDArray[np.int32]
    weight: NDArray[np.float32]
    n_bytes: NDArray[Any]
    document: NDArray[np.int64]
    names: tuple[str, ...]


def eval_windows(heldout: list[HeldOutText], seq_len: int, per_document: int) -> EvalWindows:
    """At most `per_document` windows of each document, evenly spaced from its first symbol to its last.

    The estimand is the mean loss per token over these windows. The cap keeps long documents from dominating, and the
    targets of a document's windows never overlap.
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
