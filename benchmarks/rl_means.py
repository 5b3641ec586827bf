"""The registered differences of means of `policy-rl`: `python -m benchmarks.rl_means STUDY [--json]`.

Comparisons 1 and 7 of results/rl/PREREGISTERED-policy.md, games in turn: experts around whole networks with Soft MoE,
less the dense network of their parameters. Of ln(1 + learnt_return), the primary one, and of dormancy, plasticity and
forgetting. Each is a difference of means over seeds with the 95 % interval of a bootstrap over seeds. Five seeds have
126 distinct resamples, so the interval is too narrow; Welch's t interval is beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

import scaling
from analysis.returns.bootstrap import DRAWS, Interval, interval, resampled
from analysis.returns.statistics import mean
from benchmarks.command import study_asked
from scaling.arrays import Array
from scaling.errors import InputError

PLACES = ("big", "matched")
SCORES = ("ln(1 + learnt_return)", "dormant_frac", "plasticity", "forgetting")


@dataclass(frozen=True)
class Difference:
    """Mean of `big` less mean of `matched`: seeds of each, the bootstrap's interval and Welch's."""

    score: str
    seeds: tuple[int, int]
    bootstrap: Interval
    welch: tuple[float, float]


def differences(runs: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> list[Difference]:
    """The four differences. Raises InputError where an arm has fewer than two seeds."""
    kept = runs[
        (runs["status"] == "ok") & (runs["setting"] == "continual") & (runs["router"] == "soft")
        & (runs["experts_in"] == "both")
    ]  # fmt: skip
    kept = kept.assign(**{SCORES[0]: np.log1p(kept["learnt_return"])})
    found = []
    for score in SCORES:
        ours, theirs = (kept.loc[kept["place"] == place, score].dropna().to_numpy(float) for place in PLACES)
        if min(len(ours), len(theirs)) < 2:
            raise InputError(
                f"games in turn, {score}: {len(ours)} runs of {PLACES[0]} and {len(theirs)} of {PLACES[1]}; two of "
                "each are needed"
            )
        found.append(_difference(score, ours, theirs, draws, np.random.default_rng(seed)))
    return found


def _difference(score: str, ours: Array, theirs: Array, draws: int, rng: np.random.Generator) -> Difference:
    drawn = mean(resampled([ours], draws, rng)) - mean(resampled([theirs], draws, rng))
    welch = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    estimate = float(np.mean(ours) - np.mean(theirs))
    return Difference(
        score,
        (len(ours), len(theirs)),
        interval(estimate, drawn, min(len(ours), len(theirs))),
        (float(welch.low), float(welch.high)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    study, as_json = study_asked("rl_means", str(__doc__), "folder of the grid policy-rl", arguments)
    found = differences(scaling.study(study).runs)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    print("games in turn, big soft both - matched soft both; means over seeds, 95 % intervals")
    for one in found:
        ours, theirs = one.seeds
        print(
            f"{one.score:22} {one.bootstrap.text('+.3f')}, Welch {one.welch[0]:+.3f} to {one.welch[1]:+.3f}; "
            f"{ours} and {theirs} seeds"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
