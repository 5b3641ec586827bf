"""What is asked of a study's replicates: which metric, along which axis, for which arms, over which levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from scaling.errors import InputError

Average = Literal["geometric", "arithmetic", "median"]
FEWEST_LEVELS = 2  # of a slope


@dataclass(frozen=True)
class RateQuestion:
    """A question about rates; columns and expressions are those of the table of runs (`scaling.expression`).

    metric: what is averaged over replicates, and its logarithm regressed.
    axis: a column, or arithmetic on columns, whose logarithm it is regressed on: `samples`, `log(samples)/samples`.
    by: columns whose values make an arm; None: every setting that varies besides those of the axis and the seed.
    optimum_over: the setting whose best value is regressed instead of the metric.
    average: over replicates, of the logarithm (geometric), the value (arithmetic), or the middle value (median).
    window: a condition on the levels of the stated slope, such as `samples >= 1e4`; None: all levels.
    least_levels: the fewest levels of the other windows, which show how far the slope depends on the choice.
    theory: the rate that theory gives, a number or an expression on the columns that are constant in an arm.
    where: the rows that are used at all.
    """

    metric: str
    axis: str
    by: tuple[str, ...] | None = None
    optimum_over: str | None = None
    average: Average = "geometric"
    window: str | None = None
    least_levels: int = 4
    theory: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a field that cannot be."""
        if self.average not in get_args(Average):
            raise InputError(f"`average` must be one of {', '.join(get_args(Average))}, found {self.average!r}")
        if self.least_levels < FEWEST_LEVELS:
            raise InputError(f"`least_levels` must be at least {FEWEST_LEVELS}, found {self.least_levels}")
        if self.optimum_over is not None and self.optimum_over in (self.by or ()):
            raise InputError(f"`optimum_over` {self.optimum_over} is in `by` too: an arm has to hold all its values")

    @property
    def quantity(self) -> str:
        """What is regressed, in words."""
        return self.metric if self.optimum_over is None else f"best {self.optimum_over} for {self.metric}"
