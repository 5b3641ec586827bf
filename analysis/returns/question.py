"""What is asked of the returns of a study: which arms, against which baseline, over which games."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.returns.bootstrap import DRAWS
from scaling.errors import InputError


@dataclass(frozen=True)
class ReturnsQuestion:
    """A question about returns; columns are those of the table of runs.

    metric: the score of a run.   by: columns whose values make an arm.   game: the column that names a run's game;
    games are the strata of the bootstrap.
    baseline: the arm, as it is named in the answer, that the others are compared with.
    reference: the arm whose mean score is 1 in each game, 0 being `random`; by default the baseline.
    random: the column with the score of random actions in the run's game.
    where: the rows that are used at all, an expression (`scaling.expression`).
    draws, seed: of the bootstrap.
    """

    baseline: str
    metric: str = "episode_return"
    by: tuple[str, ...] = ("arm", "n_experts")
    game: str = "game"
    reference: str | None = None
    random: str = "random_return"
    where: str | None = None
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError for a field that cannot be."""
        if not self.by:
            raise InputError("`by` must name the columns whose values make an arm")
        if self.draws < 100:
            raise InputError(f"`draws` must be at least 100 for an interval of 95 %, found {self.draws}")
