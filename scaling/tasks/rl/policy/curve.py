"""What a training reported, round by round: its curve, and the metrics that follow from it.

Axes: K rounds, G games of the cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.policy_rl import column_of
from scaling.tasks.rl.policy.learner import Records
from scaling.tasks.rl.policy.phases import joint_return
from scaling.tasks.rl.returns import LAST, mean_return

Floats = NDArray[np.float64]
ROW_ROUNDS = 4  # of a row of the curve
_LOSSES = {
    "policy": "policy_loss", "value": "value_loss", "entropy": "policy_entropy", "kl": "policy_kl",
    "clipped": "clipped_frac",
}  # fmt: skip
_MEANS = (*_LOSSES.values(), "learnt_reward")


@dataclass
class Curve:
    """Records of all rounds so far, each of `round_frames` frames.

    parts: of each call, [K, columns]: for each game the sum of the returns of its episodes, then for each game their
    number, then for each game whether it was played, then the losses and the reward that was learnt from.
    """

    games: tuple[str, ...]
    round_frames: int
    parts: list[Floats] = field(default_factory=list)

    def add(self, records: Records, count: int, games: tuple[str, ...]) -> None:
        """The first `count` rounds of records [K, games played]; waits until they are computed."""
        by_game = np.zeros((3, count, len(self.games)))
        for number, game in enumerate(games):
            column = self.games.index(game)
            by_game[0, :, column] = np.asarray(records.return_sum, dtype=float)[:count, number]
            by_game[1, :, column] = np.asarray(records.episodes, dtype=float)[:count, number]
            by_game[2, :, column] = 1
        means = *(getattr(records.losses, name) for name in _LOSSES), records.learnt
        columns = [np.asarray(one, dtype=float)[:count, None] for one in means]
        self.parts.append(np.concatenate([*by_game, *columns], axis=1))

    @property
    def table(self) -> Floats:
        """All rounds so far, [K, columns] as in `parts`."""
        return np.concatenate([np.empty((0, 3 * len(self.games) + len(_MEANS))), *self.parts])

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self.round_frames * len(self.table)

    def metrics(self) -> dict[str, float]:
        """`train_return` of the last tenth of all rounds, and of each game of its own rounds, NaN where no episode
        ended; and the losses of that tenth."""
        table = self.table
        found = {
            column_of("train_return", game): mean_return(*self._episodes(table[_last(played)], number))
            for number, (game, played) in enumerate(zip(self.games, self._played(table), strict=True))
        }
        last = table[_last(np.arange(len(table)))]
        return found | {"train_return": self._joint(last)} | self._losses(last)

    def rows(self) -> list[dict[str, float | int | None]]:
        """A row after every `ROW_ROUNDS` rounds, and after the last."""
        table = self.table
        rows: list[dict[str, float | int | None]] = []
        for start in range(0, len(table), ROW_ROUNDS):
            part = table[start : start + ROW_ROUNDS]
            done = start + len(part)
            returns = {"train_return": self._joint(part)} | {
                column_of("train_return", game): mean_return(*self._episodes(part, number))
                for number, game in enumerate(self.games)
            }
            known = {name: None if np.isnan(value) else value for name, value in returns.items()}
            rows.append({"step": done, "frames": done * self.round_frames, **known, **self._losses(part)})
        return rows

    def _joint(self, table: Floats) -> float:
        """The joint return of the games in which an episode ended; NaN where none did."""
        means = [mean_return(*self._episodes(table, number)) for number in range(len(self.games))]
        known = [mean for mean in means if not np.isnan(mean)]
        return joint_return(known) if known else float("nan")

    def _episodes(self, table: Floats, number: int) -> tuple[Floats, Floats]:
        return table[:, number], table[:, len(self.games) + number]

    def _played(self, table: Floats) -> list[NDArray[np.intp]]:
        """The rounds in which each game was played."""
        return [np.flatnonzero(table[:, 2 * len(self.games) + number]) for number in range(len(self.games))]

    def _losses(self, table: Floats) -> dict[str, float]:
        means = np.mean(table[:, 3 * len(self.games) :], axis=0)
        return {name: float(value) for name, value in zip(_MEANS, means, strict=True)}


def _last(rounds: NDArray[np.intp]) -> NDArray[np.intp]:
    """The last tenth of some rounds, at least one."""
    return rounds[-max(1, round(LAST * len(rounds))) :]
