"""What a training reported, round by round: its curve, and the metrics that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.rl.pqn import Records
from scaling.tasks.rl.returns import LAST, mean_return

ROW_ROUNDS = 8  # of a row of the curve
_NAMES = ("return_sum", "episodes", "loss", "learnt")


@dataclass
class LearningCurve:
    """Records of all rounds so far, each of `round_frames` frames."""

    round_frames: int
    _parts: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)

    def add(self, records: Records, count: int) -> None:
        """The first `count` rounds of records [K]; waits until they are computed."""
        self._parts.append({name: np.asarray(getattr(records, name), dtype=float)[:count] for name in _NAMES})

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self.round_frames * len(self._of("loss"))

    def metrics(self) -> dict[str, float]:
        """`train_return`, `area`, `td_loss` and `learnt_reward` of the training so far; NaN where no episode ended."""
        loss = self._of("loss")
        last = slice(-max(1, round(LAST * len(loss))), None)
        return {
            "train_return": mean_return(self._of("return_sum")[last], self._of("episodes")[last]),
            "area": self._area(),
            "td_loss": float(np.mean(loss[last])),
            "learnt_reward": float(np.mean(self._of("learnt")[last])),
        }

    def rows(self) -> list[dict[str, float | int | None]]:
        """A row after every `ROW_ROUNDS` rounds, and after the last."""
        loss, returns, episodes = (self._of(name) for name in ("loss", "return_sum", "episodes"))
        rows: list[dict[str, float | int | None]] = []
        for start in range(0, len(loss), ROW_ROUNDS):
            own = slice(start, start + ROW_ROUNDS)
            done = min(start + ROW_ROUNDS, len(loss))
            score = mean_return(returns[own], episodes[own])
            rows.append({
                "step": done,
                "frames": done * self.round_frames,
                "train_return": None if np.isnan(score) else score,
                "td_loss": float(np.mean(loss[own])),
                "learnt_reward": float(np.mean(self._of("learnt")[own])),
            })  # fmt: skip
        return rows

    def _area(self) -> float:
        """The mean over rounds of the latest known return, from the first round in which an episode ended."""
        returns, episodes = self._of("return_sum"), self._of("episodes")
        known = np.flatnonzero(episodes > 0)
        if not len(known):
            return float("nan")
        lengths = np.diff([*known, len(episodes)])  # rounds for which each is the latest
        return float(np.average(returns[known] / episodes[known], weights=lengths))

    def _of(self, name: str) -> NDArray[np.float64]:
        return np.concatenate([part[name] for part in self._parts] or [np.empty(0)])
