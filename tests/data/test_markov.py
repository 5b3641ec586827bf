"""The source of known entropy, compared with closed forms, enumeration and counting, and its columns in a row."""

import itertools
import math

import numpy as np
import pytest
from pydantic import ValidationError

from scaling import data
from scaling.config.data import DataConfig
from scaling.config.run import RunConfig
from scaling.data import markov, prepare
from scaling.data.batches import eval_windows
from scaling.training import language_model

SMALL = {
    "corpus": "markov", "markov_symbols": 6, "markov_order": 2, "markov_topics": 3, "markov_documents": 600,
    "markov_length": 60, "heldout_docs": 150,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))


def tiny(symbols=2, order=2, topics=2, seed=0, hazard=0.1):
    """A random prior, table and their source, not drawn by the package."""
    draws = np.random.default_rng(seed)
    prior = draws.dirichlet(np.ones(topics))
    table = draws.dirichlet(np.ones(symbols), size=(topics, symbols**order))
    return prior, table, markov.make(prior, table, hazard)


def stationary(table, order):
    """pi of one topic's chain after 4096 steps from uniform odds, instead of the package's linear system."""
    symbols = table.shape[1]
    contexts = list(itertools.product(range(symbols), repeat=order))
    step = np.zeros((len(contexts), len(contexts)))
    for number, context in enumerate(contexts):
        for symbol in range(symbols):
            step[number, contexts.index((*context, symbol)[1:])] += table[number, symbol]
    return dict(zip(contexts, np.linalg.matrix_power(step, 4096).mean(axis=0).tolist(), strict=True))


def probabilities(prior, table, order, length):
    """P of every string of `length` symbols at the beginning of a document, summed over topics by plain loops."""
    symbols = table.shape[2]
    number = {context: n for n, context in enumerate(itertools.product(range(symbols), repeat=order))}
    chances = dict.fromkeys(itertools.product(range(symbols), repeat=length), 0.0)
    for weight, rows in zip(prior, table, strict=True):
        pi, rows = stationary(rows, order), rows.tolist()
        for string in chances:
            if length < order:
                chance = sum(p for context, p in pi.items() if context[:length] == string)
            else:
                chance = pi[string[:order]]
                for place in range(order, length):
                    chance *= rows[number[string[place - order : place]]][string[place]]
            chances[string] += weight * chance
    return chances


def entropy(chances):
    return -sum(p * math.log(p) for p in chances.values())


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.3), (0.5, 0.5), (0.01, 0.9)])
def test_the_rate_of_two_states_matches_the_closed_form(a, b):
    """pi = (b, a) / (a + b), so the rate is (b H(a) + a H(b)) / (a + b), H the entropy of a coin."""

    def coin(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    source = markov.make(np.ones(1), np.array([[[1 - a, a], [b, 1 - b]]]), 0.1)
    assert source.entropy_rate() == pytest.approx((b * coin(a) + a * coin(b)) / (a + b), rel=1e-12)
    np.testing.assert_allclose(source.contexts[0], [b / (a + b), a / (a + b)], rtol=1e-12)


def test_block_entropies_converge_to_the_rate():
    """For one chain of order m, H_n - H_{n-1} is the rate for n > m. A mixture adds I_n = I(topic; n symbols): H_n -
    I_n grows by the rate, and 0 <= I_n <= ln Z. Increments of a stationary source never grow, so the nth exceeds the
    rate by at most ln Z / (n - m)."""
    prior, table, source = tiny(symbols=2, order=2, topics=3)
    blocks = [entropy(probabilities(prior, table, 2, n)) for n in range(1, 12)]
    increments = np.diff(blocks)
    rate = source.entropy_rate()
    assert (np.diff(increments) < 1e-12).all()
    assert rate < increments[-1] < rate + math.log(3) / (11 - 2)
    given_topic = [
        sum(w * entropy(probabilities([1.0], rows[None], 2, n)) for w, rows in zip(prior, table, strict=True))
        for n in (2, 3, 7)
    ]
    assert given_topic[1] - given_topic[0] == pytest.approx(rate, rel=1e-12)
    assert given_topic[2] - given_topic[0] == pytest.approx(5 * rate, rel=1e-12)
    assert 0 < blocks[6] - given_topic[2] < math.log(3)


@pytest.mark.parametrize(("symbols", "order", "topics"), [(3, 2, 2), (2, 3, 3), (3, 1, 1)])
def test_the_bayes_loss_matches_enumeration(symbols, order, topics):
    """-ln P(x_1 .. x_t) + ln P(x_1 .. x_{t-1}), P by enumeration, for every window of 5 symbols of either kind. The
    distribution inside a document is that of the symbols after the first k, the same for all k."""
    prior, table, source = tiny(symbols, order, topics)
    chance = {n: probabilities(prior, table, order, n) for n in range(1, 8)}
    strings = list(chance[5])
    first = np.array([(symbols, *string) for string in strings])
    expected = [
        [-math.log(chance[t][s[:t]]) + (math.log(chance[t - 1][s[: t - 1]]) if t > 1 else 0) for t in range(1, 6)]
        for s in strings
    ]
    np.testing.assert_allclose(source.bayes_loss(first), expected, rtol=1e-9)
    for skipped in (1, 2):
        law = dict.fromkeys(strings, 0.0)
        for string, p in chance[5 + skipped].items():
            law[string[skipped:]] += p
        np.testing.assert_allclose([law[s] for s in strings], [chance[5][s] for s in strings], rtol=1e-9)
    np.testing.assert_allclose(source.bayes_loss(np.array(strings)), np.array(expected)[:, 1:], rtol=1e-9)


def test_both_kinds_of_windows_can_be_mixed_and_padding_changes_nothing():
    _, _, source = tiny(symbols=4)
    windows = np.random.default_rng(0).integers(0, 4, (9, 7))
    windows[::3, 0] = 4
    together = source.bayes_loss(windows)
    for row, window in enumerate(windows):
        np.testing.assert_array_equal(source.bayes_loss(window[None])[0], together[row])
    shorter = windows.copy()
    shorter[:, 5:] = 0
    np.testing.assert_array_equal(source.bayes_loss(shorter)[:, :4], together[:, :4])
    for place, symbol in ((3, 4), (0, -1), (2, 5)):
        wrong = windows.copy()
        wrong[1, place] = symbol
        with pytest.raises(ValueError, match="separator"):
            source.bayes_loss(wrong)


def test_drawn_documents_follow_the_distribution_of_the_source():
    """Means over independent documents match exact expectations within 4 standard errors (1 in 16,000 by chance)."""
    config = DataConfig(**SMALL | {"markov_symbols": 3, "markov_documents": 20_000, "markov_length": 12})
    source = markov.source(config)
    texts = [text for _, text in markov.documents(config)]
    symbols = [np.frombuffer(text.encode(), np.uint8) - markov.FIRST for text in texts]

    def agrees(sample, expected):
        sample = np.asarray(sample, float)
        assert abs(sample.mean() - expected) < 4 * sample.std(ddof=1) / math.sqrt(len(sample))

    lengths = np.array([len(part) for part in symbols])
    agrees(lengths, 12)
    for n in (1, 5):
        agrees(lengths > n, (1 - 1 / 12) ** n)
    chance = probabilities(source.prior, source.tables[-1], 2, 5)
    drawn = np.array([part[:5] for part in symbols if len(part) >= 5])
    agrees(source.bayes_loss(np.c_[np.full(len(drawn), 3), drawn]).sum(axis=1), entropy(chance))
    late = np.array([part[7:12] for part in symbols if len(part) >= 12])  # begins inside the document
    agrees(
        source.bayes_loss(late).sum(axis=1),
        entropy(chance) - entropy(probabilities(source.prior, source.tables[-1], 2, 1)),
    )
    for string in sorted(chance, key=chance.__getitem__)[-5:]:
        agrees((drawn == string).all(axis=1), chance[string])
        agrees((late == string).all(axis=1), chance[string])


def test_the_default_source_has_several_levels_to_learn():
    """Conditional entropies given 0, 1, 2 symbols and then the topic: each level is worth at least a tenth of a nat."""
    source = markov.source(DataConfig(corpus="markov"))
    joint = source.prior[:, None, None] * source.contexts[:, :, None] * source.tables[-1]

    def conditional(joint):
        return float(-np.sum(joint * np.log(joint / joint.sum(axis=-1, keepdims=True))))

    by_pair = joint.reshape(16, 32, 32, 32)
    levels = [
        math.log(32), conditional(joint.sum(axis=(0, 1))), conditional(by_pair.sum(axis=(0, 1))),
        conditional(joint.sum(axis=0)), source.entropy_rate(),
    ]  # fmt: skip
    assert (np.diff(levels) < -0.1).all()
    assert conditional(joint) == pytest.approx(source.entropy_rate(), rel=1e-12)
    frequent = np.sort((source.prior[:, None] * source.contexts).ravel())[::-1].cumsum()
    # Gradual: half of the text is in at most a tenth of the rows, the last hundredth in more than a fifth of them.
    assert np.searchsorted(frequent, 0.5) < 0.1 * frequent.size
    assert np.searchsorted(frequent, 0.99) < 0.8 * frequent.size


def test_a_document_depends_only_on_source_seed_and_number(monkeypatch):
    def read(**changes):
        return list(markov.documents(DataConfig(**SMALL | changes)))

    base = read()
    assert [name for name, _ in base[:2]] == ["markov:0", "markov:1"]
    assert read(markov_documents=250) == base[:250]
    monkeypatch.setattr(markov, "_TOGETHER", 7)
    assert read() == base
    for field, value in (("seed", 1), ("order", 1), ("topics", 2), ("symbols", 7), ("length", 61)):
        assert read(**{f"markov_{field}": value})[:50] != base[:50]


def test_the_corpus_hash_identifies_its_source():
    base = DataConfig(**SMALL)
    corpus = prepare(base)
    assert (corpus.vocab_size, corpus.heldout_documents) == (7, 150)
    texts = [text for _, text in markov.documents(base)]
    heldout = {(part.tokens[1:] + markov.FIRST).astype(np.uint8).tobytes().decode() for part in corpus.heldout()}
    # One of a symbol or two may be drawn twice; copies of a held-out text are kept out of training, as for any corpus.
    assert corpus.train_documents == sum(text not in heldout for text in texts)
    tokens = np.asarray(corpus.tokens())
    assert set(tokens.tolist()) == set(range(7))
    for field in ("seed", "order", "topics", "symbols", "length", "documents"):
        changed = base.model_copy(update={f"markov_{field}": getattr(base, f"markov_{field}") + 1})
        other = prepare(changed)
        assert other.hash != corpus.hash
        assert RunConfig(data=changed).run_id(corpus.hash) != RunConfig(data=base).run_id(corpus.hash)
    document = corpus.heldout()[0]
    assert document.tokens[0] == 6
    assert (document.n_bytes[1:] == 1).all()  # a symbol is a byte, so bits_per_byte are bits per symbol
    text = dict(markov.documents(base))[document.name]
    assert (document.tokens[1:] + markov.FIRST).astype(np.uint8).tobytes().decode() == text


def test_fields_of_the_source_do_not_change_other_runs():
    plain, other = DataConfig(), DataConfig(markov_seed=5, markov_order=1)
    assert RunConfig(data=plain).run_id("x") == RunConfig(data=other).run_id("x")
    assert not [name for name in plain.identity() if name.startswith("markov_") or name in ("dataset", "packing")]


def test_no_count_model_is_below_the_floor():
    """Models of 0, 1 and 2 symbols of context, counted on the training text, compared with the floor of the same
    windows."""
    config = DataConfig(**SMALL | {"markov_documents": 3000})
    corpus = prepare(config)
    windows = eval_windows(corpus.heldout(), 32, 4)
    columns = data.known_entropy(config, windows.tokens, windows.weight)
    stream = np.asarray(corpus.tokens()).astype(np.int64)
    losses = []
    for order in range(3):
        counts = np.full((7,) * (order + 1), 0.5)
        np.add.at(counts, tuple(stream[i : len(stream) - order + i] for i in range(order + 1)), 1)
        # Padded in front with separators, which stand for the symbols before the beginning of a window.
        padded = np.pad(windows.tokens, ((0, 0), (1, 0)), constant_values=6)
        places = tuple(padded[:, 2 - order + i : padded.shape[1] - order + i] for i in range(order + 1))
        law = counts / counts.sum(axis=-1, keepdims=True)
        losses.append(float(np.sum(-np.log(law[places]) * windows.weight) / windows.weight.sum()))
    assert losses[0] > losses[1] > losses[2] > columns["loss_floor"] > columns["entropy_rate"] - 0.05
    assert data.known_entropy(DataConfig(), windows.tokens, windows.weight) == {}


def test_documents_of_the_stream_end_at_the_hazard_rate():
    """A share h of all symbols is the last of its document, within 4 standard errors of a count."""
    config = DataConfig(**SMALL | {"markov_documents": 3000})
    stream = np.asarray(prepare(config).tokens())
    is_last = stream[1:][stream[:-1] != 6] == 6
    assert abs(is_last.mean() - 1 / 60) < 4 * math.sqrt((1 / 60) / is_last.size)


def test_a_cell_reports_the_floor_of_its_own_windows(micro):
    cell = micro(**SMALL, paths=[])
    row = next(iter(language_model.train_cells([cell]))).run
    windows = eval_windows(prepare(cell.data).heldout(), cell.train.seq_len, cell.data.eval_windows)
    assert row["vocab_size"] == 7
    assert row["loss_floor"] == data.known_entropy(cell.data, windows.tokens, windows.weight)["loss_floor"]
    assert row["loss_floor"] < row["loss_val"] < math.log(7)
    assert row["bits_per_byte"] == pytest.approx(row["loss_val"] / math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"markov_symbols": 1}, ["markov_symbols"]),
        ({"markov_symbols": 95}, ["markov_symbols"]),
        ({"markov_order": 0}, ["markov_order"]),
        ({"markov_order": 3}, ["32,768 contexts", "4,096"]),
        ({"markov_topics": 129}, ["markov_topics=129", "4,194,304"]),
        ({"markov_length": 1}, ["markov_length"]),
        ({"markov_seed": -1}, ["markov_seed"]),
        ({"tokenizer": "bpe"}, ["tokenizer=bpe", "tokenizer=bytes"]),
        ({"paths": ["a.txt"]}, ["corpus=markov"]),
    ],
)
def test_an_impossible_source_is_refused(changes, words):
    with pytest.raises(ValidationError) as caught:
        DataConfig(corpus="markov", **changes)
    assert all(word in str(caught.value) for word in words)
