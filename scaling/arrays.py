"""The array types of annotations: what a number in the tables or the laws may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int_]
Booleans = npt.NDArray[np.bool_]
Values = float | Array
"""A number, or as many as there are models, batches or draws."""
