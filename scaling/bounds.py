"""Bounds: the most that a count, a budget or a price can be; more is another unit or a slip, and may fill memory."""

from __future__ import annotations

MOST_EXPERTS = 2**20  # of one layer; as many as any paper has (arXiv 2407.04153)
MOST_PARAMETERS = 1e18
MOST_TOKENS = 1e24  # trained on, or served
MOST_FLOPS = 1e40
MOST_USD = 1e18
MOST_LOSS = 1e3  # nats per token
MOST_RESAMPLES = 100_000
MOST_STARTS = 100_000
MOST_SEED = 2**63 - 1
LEAST_SHARE = 1e-9  # of a peak that is reached, or of the time in use
LEAST = 1e-15  # of what must be positive


def outside(value: float, most: float, least: float = LEAST) -> str:
    """What is wrong with a number that must be positive; "" for one within the bounds. NaN is outside."""
    if least <= value <= most:
        return ""
    return f"must be a positive number from {least:g} to {most:g}, found {value:g}"
