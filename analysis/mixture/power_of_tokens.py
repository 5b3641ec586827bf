"""A loss that is a rest and a power of the tokens, for many models at once: what a search over tokens asks again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array

_PLACES = np.log(1e9), np.log(1e13)  # ln D at which value and slope determine the power


@dataclass(frozen=True)
class PowerOfTokens:
    """L = rest + exp(log_factor) D^-exponent, each an array over models and rows of parameters."""

    rest: Array
    log_factor: Array
    exponent: Array

    @classmethod
    def of(cls, along: Callable[[float], tuple[Array, Array]]) -> PowerOfTokens:
        """The power behind ln L and its derivative by ln D: -dL/dlnD is a power itself, which two places determine."""
        (first, slope), (last, slope_there) = (along(place) for place in _PLACES)
        falls, falls_there = -slope * np.exp(first), -slope_there * np.exp(last)
        exponent = np.log(falls / falls_there) / (_PLACES[1] - _PLACES[0])
        term = falls / exponent
        return cls(np.exp(first) - term, np.log(term) + exponent * _PLACES[0], exponent)

    def at(self, log_tokens: Array) -> tuple[Array, Array]:
        """ln L and its derivative by ln D."""
        term = np.exp(self.log_factor - self.exponent * log_tokens)
        loss = self.rest + term
        return np.log(loss), -self.exponent * term / loss
