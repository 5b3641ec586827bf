"""Packed documents, checked by brute force and by invariants of every packing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.batches import TrainBatches
from scaling.data.packing import PackedBlocks, best_fit_decreasing, cut
from scaling.errors import InputError
from scaling.training import language_model

SEPARATOR = 60_000
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=25)


def stream(lengths):
    """Documents of these lengths, each after a separator; all symbols are distinct and count upwards."""
    first = np.cumsum([0, *lengths])
    documents = [np.arange(a, a + n) for a, n in zip(first, lengths, strict=False)]
    return np.concatenate([np.r_[SEPARATOR, part] for part in documents]).astype(np.uint16), documents


def packed(lengths, seq_len):
    tokens, documents = stream(lengths)
    blocks = PackedBlocks(tokens, SEPARATOR, seq_len)
    return blocks(np.arange(len(blocks))), documents


def naive(sizes, capacity):
    """Best-fit decreasing by searching through the rooms of all blocks."""
    rooms, block_of = [], {}
    for piece in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        fitting = [(room, block) for block, room in enumerate(rooms) if room >= sizes[piece]]
        if not fitting:
            rooms.append(capacity)
            fitting = [(capacity, len(rooms) - 1)]
        least = min(room for room, _ in fitting)
        block_of[piece] = [block for room, block in fitting if room == least]
        rooms[block_of[piece][0]] -= sizes[piece]
    return rooms


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_it_is_best_fit_decreasing(sizes):
    """The choice between equally full blocks changes no room, so the sorted rooms match the naive search."""
    block_of = best_fit_decreasing(np.array(sizes), 20)
    rooms = 20 - np.bincount(block_of, sizes)
    assert sorted(rooms) == sorted(naive(sizes, 20))
    # No two blocks could be merged.
    assert len(rooms) < 2 or np.sort(20 - rooms)[:2].sum() > 20


def fewest_blocks(sizes, capacity, rooms=()):
    """The optimum over all assignments; empty blocks are interchangeable."""
    if not sizes:
        return len(rooms)
    first, *rest = sizes
    fitting = [i for i, room in enumerate(rooms) if room >= first]
    filled = [(*rooms[:i], rooms[i] - first, *rooms[i + 1 :]) for i in fitting]
    return min(fewest_blocks(rest, capacity, rooms) for rooms in [*filled, (*rooms, capacity - first)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=6))
def test_it_needs_few_more_blocks_than_the_optimal_packing(sizes):
    """At most 11/9 of the optimum plus 6/9 (Dosa, 2007, for first-fit decreasing; best-fit shares the bound)."""
    n_blocks = best_fit_decreasing(np.array(sizes), 10).max() + 1
    best = fewest_blocks(sizes, 10)
    assert best <= n_blocks <= (11 * best + 6) / 9


def test_a_worked_example():
    """seq_len 6. Document A of 4 symbols takes 5 inputs, B of 2 takes 3, C of 2 takes 3. D of 9 symbols has 10 inputs:
    6 fill a block, the other 4 take 5 with a separator. Sizes 5, 3, 3, 6, 5: blocks D1 | A | D2 | B C."""
    rows, _ = packed([4, 2, 2, 9], 6)
    s = SEPARATOR
    assert rows.tolist() == [
        [s, 8, 9, 10, 11, 12, 13],  # cut: the last target is the next symbol
        [s, 0, 1, 2, 3, s, s],  # the sixth input is padding
        [s, 13, 14, 15, 16, s, s],
        [s, 4, 5, s, 6, 7, s],  # full: the last target is the end of the document
    ]


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(2, 24))
def test_invariants_of_every_packing(lengths, seq_len):
    rows, documents = packed(lengths, seq_len)
    inputs, targets = rows[:, :-1], rows[:, 1:]
    symbols = inputs[inputs != SEPARATOR]
    # Every symbol is an input exactly once.
    assert sorted(symbols.tolist()) == list(range(sum(lengths)))
    # The target of a symbol is its successor in the document.
    last = {int(part[-1]) for part in documents}
    for symbol, target in zip(symbols, targets[inputs != SEPARATOR], strict=True):
        assert target == (SEPARATOR if int(symbol) in last else symbol + 1)
    # The number of separators so far identifies the pieces, and each piece comes from one document.
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    begins = {int(part[0]) for part in documents}
    for row in inputs:
        segment = np.cumsum(row == SEPARATOR)
        for number in np.unique(segment):
            piece = row[(segment == number) & (row != SEPARATOR)]
            if len(piece):
                assert (np.diff(piece) == 1).all()
                assert len(set(document_of[piece].tolist())) == 1
                # A document that fits into a block is not cut.
                length = lengths[document_of[piece[0]]]
                if length + 1 <= seq_len:
                    assert len(piece) == length
                    assert int(piece[0]) in begins
    # Places whose input and target are separators are padding, and only padding follows.
    padding = (inputs == SEPARATOR) & (targets == SEPARATOR)
    padding_left = np.cumsum(padding[:, ::-1], axis=1)[:, ::-1]
    assert (padding == (padding_left == np.arange(seq_len, 0, -1))).all()


def test_only_long_documents_are_cut_at_evaluation_windows():
    tokens, _ = stream([7, 8, 9, 16, 25])
    pieces = cut(tokens, SEPARATOR, 8)
    by_start = list(zip(pieces.start.tolist(), pieces.length.tolist(), pieces.fronted.tolist(), strict=True))
    assert by_start == [
        (0, 8, False),  # separator and 7 symbols: whole
        (8, 8, False), (16, 1, True),
        (17, 8, False), (25, 2, True),
        (27, 8, False), (35, 8, False), (43, 1, True),
        (44, 8, False), (52, 8, False), (60, 8, False), (68, 2, True),
    ]  # fmt: skip


def test_batches_of_packed_documents_visit_each_block_once_an_epoch():
    lengths = np.random.default_rng(0).integers(1, 40, 200).tolist()
    tokens, _ = stream(lengths)
    batches = TrainBatches(tokens, 16, 4, seed=3, separator=SEPARATOR)
    steps = [batches(step) for step in range(batches.n_blocks)]  # four epochs exactly
    assert all(step.shape == (4, 17) and step.dtype == np.int32 for step in steps)
    rows = np.concatenate(steps).reshape(4, batches.n_blocks, 17)
    for epoch in rows:
        used = epoch[:, :-1][epoch[:, :-1] != SEPARATOR]
        assert sorted(used.tolist()) == list(range(sum(lengths)))
    assert (rows[0] != rows[1]).any()
    again = TrainBatches(tokens, 16, 4, 3, SEPARATOR)
    for step in (batches.n_blocks - 1, 0, batches.n_blocks // 4):
        np.testing.assert_array_equal(again(step), steps[step])
    padding = (rows[0, :, :-1] == SEPARATOR) & (rows[0, :, 1:] == SEPARATOR)
    assert 0 < padding.mean() < 0.2
    with pytest.raises(InputError, match="20 training tokens"):
        TrainBatches(tokens[:20], 16, 4, 3, SEPARATOR)


def test_a_cell_with_packed_documents_trains_as_a_different_run(micro):
    stream_cell, packed_cell = micro(), micro(packing="documents")
    one, other = (next(iter(language_model.train_cells([cell]))).run for cell in (stream_cell, packed_cell))
    assert one["corpus_hash"] == other["corpus_hash"]
    assert one["run_id"] != other["run_id"]
    assert other["status"] == "ok"
    assert one["loss_val"] != other["loss_val"]
