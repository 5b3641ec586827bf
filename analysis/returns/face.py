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
    metric: str | None = None,
    by: str | Sequence[str] | None = None,
    strata: str | None = None,
    normalise: bool | None = None,
    reference: str | None = None,
    random: str | None = None,
    replicates: bool = False,
    contrasts: str | Sequence[str] = (),
    where: str | None = None,
    bootstrap: int = DRAWS,
    seed: int = 0,
) -> ReturnsComparison:
    """Arms of a study against a baseline: interquartile means, their differences, and the probability of improvement.

    `metric` is the score of a run, better when higher; None: the primary metric of the task. A `*` in it stands for the
    games of a run that has a column for each. An arm is a set of values of the columns `by`, named by them (`soft 4`);
    None: of the settings in which the runs differ. `strata` names the column of a run's game; None: `game`, where there
    is one. `normalise` counts scores in each game from the column `random`, 0, to the mean of the arm `reference`, 1
    (None: the baseline); by default where there is such a column. `replicates` takes each replicate of a run for a run.
    `contrasts` are pairs of arms to compare too, `[NAME:] ARM - ARM [within MARGIN]`. `where` selects runs. 95 %
    intervals come from `bootstrap` resamples of the runs within games (arXiv 2108.13264). The answer has `.summary()`,
    `.plot()` and `.to_json()`. Raises InputError for a column or arm that is not there, for a metric that is better
    when lower, for an arm that lacks a game, and for runs that would be pooled.
    """
    question = ReturnsQuestion(
        baseline=baseline,
        metric=metric,
        by=None if by is None else (by,) if isinstance(by, str) else tuple(by),
        strata=strata,
        normalise=normalise,
        reference=reference,
        random=random,
        replicates=replicates,
        contrasts=(contrasts,) if isinstance(contrasts, str) else tuple(contrasts),
        where=where,
        draws=bootstrap,
        seed=seed,
    )
    return compare(study.path if isinstance(study, Study) else study, question)
