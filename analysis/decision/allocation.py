"""Allocation: how a fit divides a training budget between size and tokens, as numbers that a question can keep."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scaling.arrays import Array
from scaling.errors import InputError


@dataclass(frozen=True, repr=False)
class Allocation:
    """The size of least loss, `n_active`, at training budgets `train_flops`, by the fit called `name`.

    It is tabulated, so that the file of a question holds it whatever the fit was; between two budgets, and beyond the
    last, size is a power law of compute. Losses are not kept: those of another corpus or tokeniser do not compare.
    Raises InputError where the budgets do not ascend, or a number is not positive.
    """

    name: str
    train_flops: tuple[float, ...]
    n_active: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.train_flops) != len(self.n_active) or len(self.n_active) < 2:
            raise InputError(
                f"`reference_fit` has {len(self.n_active)} sizes at {len(self.train_flops)} budgets: as many of both, "
                "at least two"
            )
        if any(low >= high for low, high in pairwise((0.0, *self.train_flops))) or min(self.n_active) <= 0:
            raise InputError("`reference_fit` needs budgets that ascend from above 0, and sizes above 0")

    def __repr__(self) -> str:
        return f"Allocation({self.name!r})"

    def size(self, train_flops: Array) -> Array:
        """N_active at each budget."""
        x, y = np.log(self.train_flops), np.log(self.n_active)
        wanted = np.log(train_flops)
        step = np.clip(np.searchsorted(x, wanted) - 1, 0, len(x) - 2)
        slope = (y[step + 1] - y[step]) / (x[step + 1] - x[step])
        return np.exp(y[step] + slope * (wanted - x[step]))
