"""How far the text of a grid goes: cells with more tokens than it has train on some of it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling import data
from scaling.config.cell import Cell
from scaling.config.data import DataConfig
from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.formatting import listed, si
from sweeps.lint.training import Named

CHEAP_PASSES = 4
"""Passes over a text that cost little against new text: arXiv 2305.16264."""


@dataclass(frozen=True)
class Text:
    """What is known of a grid's texts before it starts: what is wrong, and what cannot be told."""

    lint: tuple[str, ...]
    notes: tuple[str, ...]


def of_text(cells: Sequence[RunConfig], labels: Mapping[Cell, str]) -> Text:
    """Compare token budgets with the texts that are prepared; none is read, fetched or prepared for it."""
    by_text: dict[DataConfig, list[RunConfig]] = defaultdict(list)
    for cell in cells:
        by_text[cell.data].append(cell)
    lint, unknown = [], []
    for config, group in by_text.items():
        try:
            corpus = data.prepared(config)
        except InputError as error:
            lint.append(f"the text cannot be found here: {error}")
            continue
        if corpus is None:
            unknown.append(config.corpus)
        else:
            lint += _repeated(corpus.train_tokens, group, Named(labels))
    notes = (
        f"the text ({listed(dict.fromkeys(unknown))}) is not prepared yet, so whether cells train on it more than once "
        "is not known; `scaling sweep run` prepares it",
    )
    return Text(tuple(lint), notes if unknown else ())


def _repeated(has: int, cells: Sequence[RunConfig], named: Named) -> list[str]:
    over = [cell for cell in cells if cell.steps * cell.train.batch_tokens > has]
    if not over:
        return []
    passes = max(cell.steps * cell.train.batch_tokens for cell in over) / has
    remedy = (
        "a law takes repeated tokens for new ones; take more text or fewer `tokens`"
        if passes > CHEAP_PASSES
        else f"up to {CHEAP_PASSES} passes cost little (arXiv 2305.16264), though a law takes them for new text"
    )
    times = f"{passes:.3g}" if passes < 100 else f"{passes:,.0f}"
    passed = f"the text has {si(has)} training tokens, and cells train on it up to {times} times"
    return [f"{passed} ({named(over)}); {remedy}"]
