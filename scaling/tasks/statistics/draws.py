"""Random draws of a replicate: they depend on seed, sample size and replicate alone."""

from __future__ import annotations

import numpy as np


def generator(seed: int, n: int, replicate: int) -> np.random.Generator:
    """The generator of one replicate's data and starts, whatever else its process computes.

    Samples of different sizes are independent, so that a slope over sizes has independent errors.
    """
    return np.random.default_rng(np.random.SeedSequence((seed, n, replicate)))
