"""Rows of an expert layer for a batch of tokens: used to count, compute and price it."""

from __future__ import annotations

import math

import numpy as np

from scaling.arrays import Values


def block_count(assignments: int, n_experts: int, rows: int) -> int:
    """Blocks that suffice for any split over the experts: padding to whole blocks adds at most rows - 1 to each."""
    return (assignments + n_experts * (rows - 1)) // rows


def capacity_rows(tokens: int, top_k: int, n_experts: int, factor: float) -> int:
    """Expert capacity in tokens, C = ceil(factor k T / E): Switch Transformer, arXiv 2101.03961, eq. 3."""
    return min(tokens, math.ceil(factor * top_k * tokens / n_experts - 1e-9))


MIN_BLOCK, MAX_BLOCK = 64, 128


def block_rows(tokens: Values, top_k: Values, n_experts: Values) -> Values:
    """Rows per block: a power of two, at most half the mean expert load or MIN_BLOCK, whichever is larger.

    Small blocks waste fewer rows on padding (half a block per expert on average); large ones read each expert's weights
    less often and multiply faster. Between MIN_BLOCK and MAX_BLOCK the two cost about the same on a CPU.
    """
    load = np.asarray(tokens * top_k / n_experts, dtype=float)
    most = np.minimum(MAX_BLOCK, np.maximum(load / 2, np.minimum(MIN_BLOCK, load)))
    return np.exp2(np.floor(np.log2(np.maximum(most, 1.0))))[()]
