"""What is asked of the returns of a study: which arms, against which baseline, over which games."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.returns.bootstrap import DRAWS
from scaling.errors import InputError

GAME = "game"


@dataclass(frozen=True)
class ReturnsQuestion:
    """A question about returns, or any other metric that is better when higher; columns are those of the table of runs.

    metric: the score of a run; None: the primary metric of the task. One `*` stands for the games of a run that has a
    score of each in columns of their own: `return_*`.
    by: columns whose values make an arm; None: the settings in which the runs differ.
    strata: the column that names a run's game; games are the strata of the bootstrap. None: `game` where there is one.
    baseline: the arm, as it is named in the answer, that the others are compared with.
    normalise: whether scores are counted from `random`, which is 0, to the mean of `reference`, which is 1, in each
    game; None: where there is a score of random actions.
    reference: the arm whose mean score is 1; by default the baseline.
    random: the column with the score of random actions in the run's game, with a `*` as `metric`; None: that of this
    metric, or `random_return`.
    replicates: whether each replicate of a run counts as a run, because it was trained apart; else they are averaged.
    contrasts: pairs of arms that are compared beside all arms with the baseline (`analysis.returns.contrasts`).
    where: the rows that are used at all, an expression (`scaling.expression`).
    draws, seed: of the bootstrap.
    """

    baseline: str
    metric: str | None = None
    by: tuple[str, ...] | None = None
    strata: str | None = None
    normalise: bool | None = None
    reference: str | None = None
    random: str | None = None
    replicates: bool = False
    contrasts: tuple[str, ...] = ()
    where: str | None = None
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError for a field that cannot be."""
        if self.by is not None and not self.by:
            raise InputError("`by` must name the columns whose values make an arm")
        if self.metric is not None and self.metric.count("*") > 1:
            raise InputError(f"`metric` {self.metric!r} may hold one * at most")
        if self.normalise is False and (self.random is not None or self.reference is not None):
            raise InputError("`random` and `reference` normalise scores: leave them out, or normalise")
        if self.draws < 100:
            raise InputError(f"`draws` must be at least 100 for an interval of 95 %, found {self.draws}")

    @property
    def stratum(self) -> str:
        """What a stratum is called: a game, or a value of the column `strata`."""
        return GAME if self.strata in (None, GAME) else f"value of {self.strata}"

    def over(self, strata: int) -> str:
        """` in 2 games`, ` over 4 values of n_experts`; nothing of one."""
        if strata < 2:
            return ""
        return f" in {strata} games" if self.stratum == GAME else f" over {strata} values of {self.strata}"

    def in_words(self, stratum: str) -> str:
        """The name of a stratum, with that of its column where it is no game: `n_experts 8`."""
        return stratum if self.stratum == GAME else f"{self.strata} {stratum}"
