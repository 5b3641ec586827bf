"""Speeds: draws of how fast a device is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array

MOST_SPEEDS = 48  # draws of a device's speed that are met; each has a table of its own


@dataclass(frozen=True)
class Speeds:
    """How sure the speed of a device is: draws of `Efficiency.coefficients` without communication, one a row, and the
    scatter of what it makes of a shape that was not measured, quantiles of measured over modelled time.

    Every expert count is a shape of its own: it meets the draws with a scatter in an order of its own.
    """

    coefficients: Array
    ratios: Array

    def some(self, most: int = MOST_SPEEDS) -> Speeds:
        """At most so many draws, evenly among them."""
        count = min(most, len(self.coefficients))
        rows = np.linspace(0, len(self.coefficients) - 1, count).round().astype(int)
        return Speeds(self.coefficients[rows], self.ratios)

    def ratios_of(self, n_experts: int) -> Array:
        """The scatter of one expert count, a value for each draw: evenly spread quantiles in an order of its own."""
        count = len(self.coefficients)
        even = np.quantile(self.ratios, (np.arange(count) + 0.5) / count)
        return np.random.default_rng([n_experts, count]).permutation(even)
