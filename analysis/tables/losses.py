"""Losses: bits, perplexities and scores in place of nats per token, and losses that no model of text has."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from analysis.tables.counts import COUNTS
from analysis.tables.doubts import Doubt
from analysis.tables.rows import Rows, span
from scaling.arrays import Array, Booleans
from scaling.columns import EXPERTS, LOSS, TOKENS

_BITS = re.compile(r"(^|[^a-z])bp[bctw]([^a-z]|$)|bits?[ _-]?(per|/)|(^|[^a-z0-9])bits([^a-z]|$)", re.IGNORECASE)
_PERPLEXITY = re.compile(r"ppl|perplexity", re.IGNORECASE)
_LOGARITHM = re.compile(r"(^|[^a-z])(log|ln|nll)", re.IGNORECASE)  # log_ppl is in nats
_LARGEST_VOCABULARY = 256_000
_SLACK = 1.02  # an untrained model lies a little above ln V
_BEYOND = 1.25  # times as much as a uniform guess: no start of training is that bad
_FEWEST = 8  # rows that say something of how a loss falls
_STEEP = 1.4  # published laws reach 1.26 on grids of their own, perplexities of them .8 to 3
_CORRELATED, _AGAINST = 0.8, 0.6
_SAME_SCALE, _LARGER = 0.01, 1.5
_FEWEST_PAIRS, _MOST_FALLING = 5, 0.2
_MOST_COMPARED = 50_000  # rows, evenly spaced


def loss_doubts(rows: Rows, terms: Mapping[str, str]) -> list[Doubt]:
    """Doubts that the losses are in nats per token, by their name, their size, and how they fall with N and D.

    `terms` is the expression behind each of our columns. Raises InputError where they are certainly in bits or are
    perplexities, with the conversion.
    """
    term = terms.get(LOSS, LOSS)
    _refuse_other_names(rows, term)
    loss = rows.floats(LOSS)
    if not np.isfinite(loss).any():
        return []
    most = _most(rows)
    impossible = loss > most
    steepness, correlation = _steepness(rows, loss)
    steepness = steepness if correlation > _CORRELATED else 0.0
    beyond = bool((loss > _BEYOND * most).any()) and correlation > _CORRELATED
    positive = loss[np.isfinite(loss)]
    log_of = f"`map` '{LOSS}=log({_bare(term)})'"
    perplexities = impossible.sum() > 1 and (beyond or steepness > _STEEP) and positive.min() > 1
    if perplexities or impossible.sum() > len(loss) / 2:
        raise rows.refusal(
            f"{LOSS} is {span(positive)}, above that of a uniform guess {rows.named(impossible)}: a loss in nats per "
            f"token cannot be. Is it a perplexity? {log_of}. In bits per token? `map` '{LOSS}={_bare(term)}*0.6931'"
        )
    doubts = []
    if impossible.any():
        values = f"{loss[impossible][0]:.4g}" if impossible.sum() == 1 else span(loss[impossible])
        message = (
            f"{LOSS} is {values} {rows.named(impossible)}, above that of a uniform guess "
            f"({float(np.min(most[impossible])) / _SLACK:.4g}): a run that diverged, a slip, or another unit?"
        )
        doubts.append(rows.doubt("loss_above_uniform", [LOSS], impossible, message))
    elif steepness > _STEEP and positive.min() > 1:
        message = (
            f"{LOSS} ({span(positive)}) falls {steepness:.2g} times as fast with size and tokens as losses of text do: "
            f"is it a perplexity? {log_of}"
        )
        doubts.append(Doubt("perplexity", (LOSS,), (), message))
    rising = _rising(rows, loss, _bare(term))
    if not rising and correlation < -_AGAINST:
        score = f"is {_bare(term)} a score of which more is better, or are columns swapped?"
        message = f"{LOSS} rises with size and tokens over the whole table (correlation {-correlation:.2f}): {score}"
        rising = [Doubt("loss_rises", (LOSS,), (), message)]
    return [*doubts, *_constant(rows, loss), *rising]


def _refuse_other_names(rows: Rows, term: str) -> None:
    if term.startswith("("):  # arithmetic on the column is the conversion
        return
    name, bare = term.strip("`"), term
    keep = f"if it is in nats per token all the same, `map` '{LOSS}={bare}*1'"
    if _BITS.search(name):
        raise rows.refusal(
            f"{LOSS} is the column {name}: in bits? nats per token = bits per byte x ln 2 x bytes per token: "
            f"`map` '{LOSS}={bare}*0.6931*BYTES_PER_TOKEN' (without the last factor for bits per token); {keep}"
        )
    if _PERPLEXITY.search(name) and not _LOGARITHM.search(name):
        raise rows.refusal(f"{LOSS} is the column {name}: a perplexity? `map` '{LOSS}=log({bare})'; {keep}")


def _most(rows: Rows) -> Array:
    """In each row the loss of a uniform guess, and a little more: ln V, or that of the largest vocabularies."""
    vocabulary = rows.floats("vocab_size")
    known = np.isfinite(vocabulary) & (vocabulary > 1)
    return np.log(np.where(known, vocabulary, _LARGEST_VOCABULARY)) * _SLACK


def _size(rows: Rows) -> Array | None:
    """The first parameter count that the table has."""
    return next((rows.floats(name) for name in COUNTS if name in rows.frame), None)


def _steepness(rows: Rows, loss: Array) -> tuple[float, float]:
    """The slope of ln loss on ln(.8 + 406/N^.34 + 411/D^.28), and their correlation; 0 where the rows do not say.

    The reference has the exponents of Hoffmann et al. (arXiv 2203.15556) and a floor below that of every published
    law, so that losses of text are less steep. A perplexity falls by about the loss times as fast as the loss.
    """
    size, tokens = _size(rows), rows.floats(TOKENS)
    if size is None:
        return 0.0, 0.0
    usable = np.isfinite(size) & (size > 0) & np.isfinite(tokens) & (tokens > 0) & np.isfinite(loss) & (loss > 0)
    if usable.sum() < _FEWEST:
        return 0.0, 0.0
    x = np.log(0.8 + 406.4 / size[usable] ** 0.34 + 410.7 / tokens[usable] ** 0.28)
    y = np.log(loss[usable])
    if np.ptp(x) < 0.05 or np.ptp(y) == 0:
        return 0.0, 0.0
    return float(np.polyfit(x, y, 1)[0]), float(np.corrcoef(x, y)[0, 1])


def _constant(rows: Rows, loss: Array) -> list[Doubt]:
    size, tokens = _size(rows), rows.floats(TOKENS)
    if len(loss) < 3 or np.ptp(loss) > 0 or (np.ptp(tokens) == 0 and (size is None or np.ptp(size) == 0)):
        return []
    message = f"{LOSS} is {loss[0]:.4g} in all {len(loss)} rows, whatever the size and tokens: no law follows from it"
    return [rows.doubt("loss_constant", [LOSS], np.ones(len(loss), dtype=bool), message)]


def _rising(rows: Rows, loss: Array, term: str) -> list[Doubt]:
    """Whether the loss rises with size where tokens and experts are the same, or with tokens at one size."""
    size, tokens, experts = _size(rows), rows.floats(TOKENS), rows.floats(EXPERTS)
    if size is None:
        return []
    experts = np.nan_to_num(experts, nan=1.0)
    name = next(name for name in COUNTS if name in rows.frame)
    doubts = []
    for ours, other, varied, fixed in ((name, TOKENS, size, tokens), (TOKENS, name, tokens, size)):
        risen, pairs = _pairs(varied, fixed, experts, loss)
        if pairs >= _FEWEST_PAIRS and pairs - risen.sum() <= _MOST_FALLING * pairs:
            message = (
                f"{LOSS} rises with {ours} at the same {other} in {int(risen.sum())} of {pairs} comparisons "
                f"({rows.named(risen)}): is {term} a score of which more is better, or are columns swapped?"
            )
            doubts.append(rows.doubt("loss_rises", [LOSS, ours], risen, message))
    return doubts


def _pairs(varied: Array, fixed: Array, experts: Array, loss: Array) -> tuple[Booleans, int]:
    """The rows whose loss lies above that of the next smaller in the same E and `fixed`, and how many were compared."""
    some = np.arange(0, len(loss), max(1, len(loss) // _MOST_COMPARED))
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.round(np.log(fixed) / _SAME_SCALE)
    order = some[np.lexsort((varied[some], near[some], experts[some]))]
    before, after = order[:-1], order[1:]
    same = (near[before] == near[after]) & (experts[before] == experts[after])
    same &= varied[after] > _LARGER * varied[before]
    compared = same & (loss[before] != loss[after])
    risen = np.zeros(len(loss), dtype=bool)
    risen[after[compared & (loss[after] > loss[before])]] = True
    return risen, int(compared.sum())


def _bare(term: str) -> str:
    return term.removeprefix("(").removesuffix(")")
