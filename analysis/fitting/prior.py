"""Priors: what published fits say of parameters that runs alone do not determine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.formatting import listed

_HALF = 0.5  # of the weight: below it the prior says more of a quantity than the runs do
LEVEL = "level"
"""The name among shrunk quantities of the loss at the runs' own centre."""


@dataclass(frozen=True)
class Shrunk:
    """A quantity of a law that was shrunk to a published value, and what became of it.

    Quantities are exponents at the runs' own centre, the share that each term has in the loss there (under the name of
    its factor), the loss there (`LEVEL`), and the effects of experts. `deviation` is half the width of the prior's
    middle two thirds: of the ln of the quantity where `factor`, else of itself. `moved` is by how much the runs moved
    it, in the same unit, and `data_weight` 1 minus the square of the posterior's deviation over the prior's: 1 where
    the runs alone say what it is, 0 where they say nothing.
    """

    deviation: float
    factor: bool
    moved: float
    data_weight: float


@dataclass(frozen=True)
class Prior:
    """Mean and standard deviation of the ln of exponents, over `n_fits` published fits.

    `noise` is the deviation of ln loss of a run: that of published laws, or what runs and they together say. Where a
    fit was recalibrated, `start` is what it started from, the means are its exponents, and `shrunk` says of every
    quantity how far the runs moved it.
    """

    exponents: Mapping[str, tuple[float, float]]
    noise: float
    n_fits: int
    start: str = ""
    shrunk: Mapping[str, Shrunk] = field(default_factory=dict)

    @property
    def held(self) -> tuple[str, ...]:
        """The quantities of which a recalibration's prior says more than its runs do."""
        return tuple(name for name, each in self.shrunk.items() if each.data_weight < _HALF)

    @property
    def doubt(self) -> str:
        """Why nothing that rests on this prior is decided; "" where the runs outweigh it."""
        if not self.start:
            return "the intervals rest on exponents that others published, since these runs are too few to resample"
        if not self.held:
            return ""
        return f"{self.start} says more of {listed(self.held)} than these runs do"
