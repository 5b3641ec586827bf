"""Several games in turn: which one is played when, and what is kept, lost and transferred.

Returns of different games have different units. Means over games are of ln(1 + return), in which doubling counts alike
in every game; returns of MinAtar are not negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Returns = Mapping[str, float]


@dataclass(frozen=True)
class Phase:
    """Rounds `first` to `end` (exclusive, None without end) of some games. number: counted from 0.
    first_task: the number of the first game among those of the cell."""

    number: int
    games: tuple[str, ...]
    first: int
    end: int | None
    first_task: int


def phase_at(games: tuple[str, ...], length: int | None, number: int) -> Phase:
    """The phase of round `number`, counted from 0, where phases of so many rounds have one game each: games come in
    their order, again and again. Without a length there is one phase of all games."""
    if length is None:
        return Phase(0, games, 0, None, 0)
    phase = number // length
    task = phase % len(games)
    return Phase(phase, (games[task],), phase * length, (phase + 1) * length, task)


def joint_return(returns: Sequence[float]) -> float:
    """The geometric mean of 1 + return over games, less 1: of one game its return."""
    return float(np.expm1(np.mean(np.log1p(returns))))


def transfer(games: tuple[str, ...], after: Sequence[Returns], random: Returns) -> dict[str, float]:
    """Metrics of a continual training. after: the return of every game after each phase, the last one perhaps cut
    short.   random: of random actions.

    With s = ln(1 + return), s_p of a game after phase p = 0, 1, ..., last:

    * learnt_return: exp(mean over phases p of s_p of the phase's game) - 1
    * forgetting: mean over games that were trained on, but for the last phase's, of s after its latest phase less s
      after the last phase (arXiv 2105.10919, section 3.4, for returns between 0 and 1)
    * forward_transfer: mean over games but the first of s just before its first phase, less s of random actions
      (arXiv 1706.08840, equation 4)

    NaN where there is no such game.
    """
    score = [{game: float(np.log1p(returns[game])) for game in games} for returns in after]
    own = [games[number % len(games)] for number in range(len(after))]
    latest = {game: number for number, game in enumerate(own)}
    lost = [score[number][game] - score[-1][game] for game, number in latest.items() if game != own[-1]]
    seen = enumerate(own[1 : len(games)])
    gained = [score[before][game] - float(np.log1p(random[game])) for before, game in seen]
    return {
        "learnt_return": joint_return([after[number][game] for number, game in enumerate(own)]),
        "forgetting": _mean(lost),
        "forward_transfer": _mean(gained),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
