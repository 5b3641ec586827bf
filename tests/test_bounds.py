"""Bounds: what is within is accepted, what is not is named with both ends."""

import math

from scaling.bounds import MOST_FLOPS, outside


def test_a_number_within_the_bounds_is_accepted_and_no_other():
    assert outside(1e25, MOST_FLOPS) == ""
    for value in (0.0, -1.0, math.nan, math.inf, -math.inf, 1e300, 1e-300):
        assert outside(value, MOST_FLOPS).startswith("must be a positive number from 1e-15 to 1e+40, found ")
