"""The registered rule on learning rates of `value-rl`: `python -m benchmarks.rl_rates STUDY [--json]`.

For each arm and rate other than that of the study: the difference of the mean returns to those at the study's rate, in
each game, in standard errors of the difference. An arm that does better by more than two of them in every game is
undersold by the study's rate (results/rl/PREREGISTERED.md), and the comparison is to be repeated with each arm's best
rate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

import scaling
from benchmarks.command import study_asked

OF_STUDY, STANDARD_ERRORS = 5e-4, 2.0
SCORE = "episode_return"


@dataclass(frozen=True)
class Rate:
    """One arm at one rate: its mean return minus that at the study's rate, and the standard error of the difference
    (sqrt of the sum of s^2 / n of both), by game."""

    arm: str
    lr: float
    games: tuple[str, ...]
    difference: tuple[float, ...]
    error: tuple[float, ...]

    @property
    def better(self) -> bool:
        """By more than two standard errors in every game."""
        return all(
            difference > STANDARD_ERRORS * error for difference, error in zip(self.difference, self.error, strict=True)
        )


def rates_of(runs: pd.DataFrame, of_study: float = OF_STUDY) -> list[Rate]:
    """Every arm at every other rate. Raises KeyError where an arm has no run at the study's rate."""
    runs = runs[runs["status"] == "ok"]
    runs = runs.assign(name=runs["arm"] + " " + runs["n_experts"].astype(str))
    games = tuple(sorted(runs["game"].unique()))
    means, variances, counts = (
        runs.pivot_table(index=["name", "lr"], columns="game", values=SCORE, aggfunc=statistic)[[*games]]
        for statistic in ("mean", "var", "count")
    )
    errors = variances / counts
    found = []
    for name, lr in means.index:
        if not np.isclose(lr, of_study):
            ours = next(rate for _, rate in means.loc[[name]].index if np.isclose(rate, of_study))
            difference = means.loc[(name, lr)] - means.loc[(name, ours)]
            error = np.sqrt(errors.loc[(name, lr)] + errors.loc[(name, ours)])
            found.append(Rate(name, lr, games, tuple(map(float, difference)), tuple(map(float, error))))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    study, as_json = study_asked("rl_rates", str(__doc__), "folder of the grid value-rl-rates", arguments)
    found = rates_of(scaling.study(study).runs)
    if as_json:
        print(json.dumps([asdict(one) | {"better": one.better} for one in found]))
        return
    undersold = sorted({one.arm for one in found if one.better})
    print(
        f"better than at {OF_STUDY:g} by {STANDARD_ERRORS:g} standard errors in every game: "
        f"{', '.join(undersold) or 'none'}"
    )
    for one in found:
        by_game = (
            f"{game} {difference:+.2f} (se {error:.2f})"
            for game, difference, error in zip(one.games, one.difference, one.error, strict=True)
        )
        print(f"{one.arm:18} {one.lr:<8g} {', '.join(by_game)}{'  better' if one.better else ''}")


if __name__ == "__main__":
    main(sys.argv[1:])
