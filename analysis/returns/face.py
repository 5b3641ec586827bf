"""`scaling.returns`: arms of a study compared by their returns, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.returns.bootstrap import DRAWS
from analysis.returns.comparison import ReturnsComparison, compare
from analysis.returns.question import ReturnsQuestion
from analysis.tables.study import Study
from scaling.arguments import checked


@checked({"study": "a study, its folder, a file of runs, or a DataFrame with one row a run"})
def returns(
    study: Study | str | Path | pd.DataFrame,
    *,
    baseline: str,
    metric: str = "episode_return",
    by: str | Sequence[str] = ("arm", "n_experts"),
    game: str = "game",
    reference: str | None = None,
    random: str = "random_return",
    where: str | None = None,
    bootstrap: int = DRAWS,
    seed: int = 0,
) -> ReturnsComparison:
    """Arms of a study against a baseline: interquartile means, their differences, and the probability of improvement.

    An arm is a set of values of the columns `by`, named by them: `soft 4`. Scores are normalised in each game of the
    column `game`: 0 is the column `random`, 1 the mean of the arm `reference` (None: the baseline). `where` selects
    runs. 95 % intervals come from `bootstrap` resamples of the runs within games (arXiv 2108.13264). The answer has
    `.summary()` and `.to_json()`. Raises InputError for a column or arm that is not there, for an arm that lacks a
    game, and for runs that would be pooled.
    """
    question = ReturnsQuestion(
        baseline=baseline,
        metric=metric,
        by=(by,) if isinstance(by, str) else tuple(by),
        game=game,
        reference=reference,
        random=random,
        where=where,
        draws=bootstrap,
        seed=seed,
    )
    return compare(study.path if isinstance(study, Study) else study, question)
