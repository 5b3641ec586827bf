"""Text of known entropy: documents with latent topics, each topic a Markov chain, and the exact Bayes-optimal loss.

Source. A document has a topic z with P(z) = w_z, proportional to 1 / (z + 1), and a length n >= 1 with
P(n) = h (1 - h)^(n - 1), h = 1 / markov_length, independent of z. Its symbols are a chain of order m over V symbols,

    P(x_1 .. x_m | z) = pi_z(x_1 .. x_m),    P(x_t | x_<t, z) = P_z(x_t | x_{t-m} .. x_{t-1}),

with pi_z the stationary distribution of topic z over its V^m contexts, so a document is stationary from its first
symbol, and windows have the same distribution wherever they begin.

    P_z(x | s) = softmax_x  SPREAD / sqrt(m + 2) * (g_0(x) + g_1(x; s_m) + .. + g_m(x; s) + g_{m+1}(x; s, z))

with all g independent standard normal numbers drawn from the seed. Every probability is positive, so each chain is
irreducible and aperiodic and pi_z is unique.

Rationale. A model learns the levels in turn: frequencies of symbols, of pairs, .., then of the contexts of each topic,
of which larger models can store more and longer runs see more. g_0 and w_z make some contexts and topics many times as
frequent as others, so the reducible loss shrinks gradually (the picture of arXiv 2303.13506). The default chains have
16 x 1024 rows of 32 probabilities: half a million numbers, more than models of 1e5 parameters can store. The rarer half
of the rows makes up 3 % of the text, four visits to each per million symbols: more than runs of 1e7 tokens can learn.

Entropy rate, nats per symbol: sum_z w_z sum_s pi_z(s) H(P_z(. | s)). The topic carries finite information per document,
so it does not add to the rate, but it adds to the loss of a window, which `bayes_loss` computes.

Separators. They are not symbols of the source, and held-out windows have none among their targets, so neither the
entropy rate nor the Bayes loss includes them. A model trained on the stream of documents cannot know that: because the
length is memoryless, it pays at least -ln(1 - h) nats more for every target but the first of a document. `loss_floor`
excludes this, so it is a lower bound for either packing. The split also removes copies of held-out texts from training,
but only documents of one or two symbols are ever drawn twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.arrays import Array, Integers
from scaling.config.data import DataConfig

FIRST = 33  # symbol i is the ASCII character 33 + i, from the printable non-blank ones
# Standard deviation of the log-odds, nats: with 32 symbols the entropy rate is about half that of uniform symbols, and
# each level of context is worth tenths of a nat.
SPREAD = 2.5
_TOGETHER = 1024  # documents drawn side by side, each from its own random generator


@dataclass(frozen=True, eq=False)
class MarkovSource:
    """A mixture of Markov chains of one order.

    prior [Z] of the topics; tables[j] [Z, V^j, V] = P_z(x | previous j symbols) for j = 0 .. m, where j < m applies at
    the beginning of a window; contexts [Z, V^m], the stationary distribution; hazard, the probability that a document
    ends after a symbol. A context is the number whose base-V digits are its symbols, the oldest first.
    """

    prior: Array
    tables: tuple[Array, ...]
    contexts: Array
    hazard: float

    @property
    def n_symbols(self) -> int:
        return self.tables[0].shape[-1]

    @property
    def order(self) -> int:
        return len(self.tables) - 1

    def entropy_rate(self) -> float:
        """sum_z w_z sum_s pi_z(s) H(P_z(. | s)), nats per symbol."""
        table = self.tables[-1]
        return float(self.prior @ np.sum(self.contexts * -np.sum(table * np.log(table), axis=2), axis=1))

    def bayes_loss(self, tokens: NDArray[np.integer]) -> Array:
        """-ln P(x_t | x_<t within the window) of each target of windows [W, T + 1], as [W, T] in nats.

        A window that begins with the separator (the number V) begins a document, and the predictor knows only w_z. Any
        other window begins inside a document: its first symbol is given and, by stationarity, follows tables[0]. With
        a_z the weights of the topics given all symbols so far, a = w at the beginning,

            P(x_t | x_<t) = sum_z a_z P_z(x_t | c),    a_z <- a_z P_z(x_t | c) / P(x_t | x_<t),

        c the last min(m, symbols so far) symbols. Padding targets get a meaningless number; their weight is 0. Raises
        ValueError if a separator is not at the beginning of a window.
        """
        if tokens.ndim != 2 or not (tokens >= 0).all() or not (tokens[:, 1:] < self.n_symbols).all():
            raise ValueError(f"windows must be [W, T + 1] symbols below {self.n_symbols}, a separator only in front")
        loss = np.empty((len(tokens), tokens.shape[1] - 1))
        fresh = tokens[:, 0] == self.n_symbols
        for rows, start in ((np.flatnonzero(fresh), 1), (np.flatnonzero(~fresh), 0)):
            weights = np.repeat(self.prior[:, None], len(rows), axis=1)  # [Z, W]
            context = np.zeros(len(rows), np.int64)
            for place in range(start, tokens.shape[1]):
                seen, symbol = min(place - start, self.order), tokens[rows, place].astype(np.int64)
                joint = weights * self.tables[seen][:, context, symbol]
                total = joint.sum(axis=0)
                weights = joint / total
                context = self.next_context(context, symbol, seen)
                if place:
                    loss[rows, place - 1] = -np.log(total)
        return loss

    def next_context(self, context: Integers, symbol: Integers, seen: int) -> Integers:
        """The contexts after one more symbol; the current ones consist of `seen` symbols, at most m."""
        return (context * self.n_symbols + symbol) % self.n_symbols ** min(seen + 1, self.order)


def make(prior: Array, table: Array, hazard: float) -> MarkovSource:
    """The source with these topic weights [Z], transition probabilities [Z, V^m, V] (all positive) and hazard.

    pi_z solves pi = pi T with sum(pi) = 1, where T drops the oldest symbol of a context and appends the new one.
    """
    n_topics, n_contexts, n_symbols = table.shape
    order = round(np.log(n_contexts) / np.log(n_symbols))
    assert n_symbols**order == n_contexts
    old, new = np.divmod(np.arange(n_contexts * n_symbols), n_symbols)
    following = (old * n_symbols + new) % n_contexts
    contexts = np.empty((n_topics, n_contexts))
    for topic in range(n_topics):
        system = -np.eye(n_contexts)
        np.add.at(system, (following, old), table[topic].ravel())
        system[-1] = 1.0  # replaces a redundant equation
        contexts[topic] = np.linalg.solve(system, np.r_[np.zeros(n_contexts - 1), 1.0])
    # Conditionals on fewer symbols: sum over the oldest ones, then normalise.
    tables = [table]
    for seen in range(order - 1, -1, -1):
        joint = contexts.reshape(n_topics, -1, n_symbols**seen, n_symbols).sum(axis=1)
        tables.insert(0, joint / joint.sum(axis=2, keepdims=True))
    return MarkovSource(prior, tuple(tables), contexts, hazard)


@functools.lru_cache(maxsize=4)
def _source(symbols: int, order: int, topics: int, length: int, seed: int) -> MarkovSource:
    draws = np.random.default_rng([seed, 0])
    levels = [draws.standard_normal((1, symbols**seen, symbols)) for seen in range(order + 1)]
    levels.append(draws.standard_normal((topics, symbols**order, symbols)))
    # A level of fewer symbols is shared by all contexts that end in them.
    score = sum(np.tile(level, (1, symbols**order // level.shape[1], 1)) for level in levels) / np.sqrt(order + 2)
    odds = np.exp(SPREAD * score)
    prior = 1.0 / np.arange(1, topics + 1)
    return make(prior / prior.sum(), odds / odds.sum(axis=2, keepdims=True), 1.0 / length)


def source(config: DataConfig) -> MarkovSource:
    """The source of `corpus: markov`, a function of its `markov_` fields only."""
    return _source(
        config.markov_symbols, config.markov_order, config.markov_topics, config.markov_length, config.markov_seed
    )


def known_entropy(config: DataConfig, windows: NDArray[np.integer], weight: NDArray[np.floating]) -> dict[str, float]:
    """The columns `loss_floor` and `entropy_rate` of a run on these windows; empty if the source is unknown.

    The floor is the weighted mean of `MarkovSource.bayes_loss` over the same windows as the held-out loss, so their
    difference is free of the sampling noise of the text.
    """
    if config.corpus != "markov":
        return {}
    drawn_from = source(config)
    floor = float(np.sum(drawn_from.bayes_loss(windows) * weight) / np.sum(weight))
    return {"loss_floor": floor, "entropy_rate": drawn_from.entropy_rate()}


def documents(config: DataConfig) -> Iterator[tuple[str, str]]:
    """Name and text of the `markov_documents` documents, one ASCII character per symbol.

    Document i depends only on the source, markov_seed and i.
    """
    for first in range(0, config.markov_documents, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, config.markov_documents))
        for number, symbols in zip(numbers, _draw(source(config), config.markov_seed, numbers), strict=True):
            yield f"markov:{number}", (symbols + FIRST).tobytes().decode("ascii")


def _draw(source: MarkovSource, seed: int, numbers: range) -> list[NDArray[np.uint8]]:
    """The symbols of some documents; topic, length and symbols come from inverse transform sampling."""
    lengths = np.empty(len(numbers), np.int64)
    topics = np.empty(len(numbers))
    parts = []
    for row, number in enumerate(numbers):
        draws = np.random.default_rng([seed, 1, number])
        topics[row], end = draws.random(2)
        lengths[row] = 1 + int(np.log1p(-end) / np.log1p(-source.hazard))
        parts.append(draws.random(lengths[row]))
    chance = np.zeros((lengths.max(), len(numbers)))  # [place, document], so that a place is contiguous in memory
    for row, part in enumerate(parts):
        chance[: len(part), row] = part
    topic = _invert(np.cumsum(source.prior)[None], topics)
    longest_first = np.argsort(-lengths, kind="stable")
    longer = np.searchsorted(-lengths[longest_first], -np.arange(lengths.max()))  # documents longer than each place
    drawn = np.zeros(chance.shape, np.uint8)
    cumulative = [np.cumsum(table, axis=2) for table in source.tables]
    context = np.zeros(len(numbers), np.int64)
    for place in range(lengths.max()):
        rows = longest_first[: longer[place]]
        seen = min(place, source.order)
        symbol = _invert(cumulative[seen][topic[rows], context[rows]], chance[place, rows])
        drawn[place, rows] = symbol
        context[rows] = source.next_context(context[rows], symbol, seen)
    return [drawn[:length, row].copy() for row, length in enumerate(lengths.tolist())]


def _invert(cumulative: Array, chance: Array) -> NDArray[np.int64]:
    """The outcome whose interval of [0, 1) contains `chance`; the last one ends at 1 despite rounding."""
    return np.sum(cumulative[:, :-1] <= chance[:, None], axis=1)
