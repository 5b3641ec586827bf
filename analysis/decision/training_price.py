"""What a training token costs in a search: at the estimate of the training speed, or at a draw of it in every row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.decision.lifetime_cost import PriceTable, Pricing
from analysis.decision.size_search import SearchSpace, largest_that_fits
from analysis.laws.model_family import Sizes
from scaling.arrays import Array

MOST_TABULATED = 499
"""Draws of a speed that needs widths, each with a table of its own; prime, so that the draws of the device's speed in
serving (`analysis.latency.speeds.MOST_SPEEDS`) meet each of them."""
_POINTS, _POINTS_PER_DRAW = 4_096, 1_024  # over ten decades of sizes: .6 and 2.3 % apart

TokenPrice = Callable[[Sizes], Array]
"""The cost of one token of models (rows, sizes)."""


def training_price(pricing: Pricing, space: SearchSpace, rows: int, *, drawn: bool = False) -> TokenPrice:
    """The cost of a training token of models of a space in a search of so many rows.

    With `drawn` row s meets draw s of the training speed, modulo their number, with the scatter of this E. Where the
    speed needs widths, prices of several rows are interpolated in a table over the sizes of the space, which is made
    when the first price is asked for.
    """
    speed = pricing.training_speed
    if pricing.device is None or not (drawn or (rows > 1 and speed.needs_structure)):
        return pricing.train_per_token
    if not speed.needs_structure:
        one = Sizes(space.n_experts, None, np.ones(1))  # at a share of the peak, cost is in proportion to it
        of_rows = pricing.train_per_token(one, speed.draws(rows, space.n_experts))
        return lambda sizes: of_rows * sizes.n_computed
    made: list[PriceTable] = []

    def from_table(sizes: Sizes) -> Array:
        if not made:
            largest = space.largest or largest_that_fits(space)
            log_n = np.linspace(0.0, np.log(largest), _POINTS_PER_DRAW if drawn else _POINTS)
            draws = speed.draws(min(rows, MOST_TABULATED), space.n_experts) if drawn else None
            prices = pricing.train_per_token(space.sizes(np.exp(log_n)), draws)
            made.append(PriceTable(log_n, np.atleast_2d(prices)))
        return made[0].per_token(sizes.n_active)

    return from_table
