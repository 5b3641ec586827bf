"""Architecture: how many rows a batch makes of an expert layer, whoever counts, computes or prices them."""

from __future__ import annotations

import math

import numpy as np

from scaling.arrays import Values


def block_count(assignments: int, n_experts: int, rows: int) -> int:
    """Blocks that hold any shares of the experts: each share padded to whole blocks wastes at most rows - 1 of them."""
    return (assignments + n_experts * (rows - 1)) // rows


def capacity_rows(tokens: int, top_k: int, n_experts: int, factor: float) -> int:
    """Tokens that an expert takes at most, C = ceil(factor k T / E): Switch Transformer, arXiv 2101.03961, eq. 3."""
    return min(tokens, math.ceil(factor * top_k * tokens / n_experts - 1e-9))


MIN_BLOCK, MAX_BLOCK = 64, 128


def block_rows(tokens: Values, top_k: Values, n_experts: Values) -> Values:
    """Rows of a block for `tokens` that meet `n_experts`: a power of two, at most half of the mean load or MIN_BLOCK.

    Small blocks waste few rows on padding (half a block per expert on average), large ones read each expert's weights
    less often and are faster products. Within MIN_BLOCK and MAX_BLOCK both cost about the same on a CPU.
    """
    load = np.asarray(tokens * top_k / n_experts, dtype=float)
    most = np.minimum(MAX_BLOCK, np.maximum(load / 2, np.minimum(MIN_BLOCK, load)))
    return np.exp2(np.floor(np.log2(np.maximum(most, 1.0))))[()]
