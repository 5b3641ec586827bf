"""`scaling.rates`: how fast a metric falls along an axis, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.rates.estimate import DRAWS, estimate_rates
from analysis.rates.question import Average, RateQuestion
from analysis.rates.rates import Rates
from analysis.rates.table import read_replicates
from analysis.tables.study import Study
from scaling.arguments import checked


@checked({"study": "a study, its folder, a file of runs, or a DataFrame with one row a replicate"})
def rates(
    study: Study | str | Path | pd.DataFrame,
    *,
    metric: str,
    axis: str,
    by: str | Sequence[str] | None = None,
    optimum_over: str | None = None,
    average: Average = "geometric",
    window: str | None = None,
    least_levels: int = 4,
    theory: float | str | None = None,
    where: str | None = None,
    bootstrap: int = DRAWS,
    seed: int = 0,
) -> Rates:
    """The log-log slope of a metric against an axis, for each arm of a study, with 95 % intervals.

        ln average(metric) = c + slope ln(axis)

    `axis` is a column or arithmetic on columns, such as `log(samples)/samples`. An arm is a set of values of the
    columns `by`; None: of every setting that varies besides those of the axis. With `optimum_over`, a setting such as
    `n_experts`, the value of it at which the metric is best is regressed instead. `average` is taken over replicates,
    `window` is a condition on the levels of the stated slope, beside which those of every window of `least_levels` and
    more levels are given. `theory` is the rate to compare with: a number, or an expression on columns that are constant
    in an arm. `where` selects runs. Intervals come from `bootstrap` resamples of the replicates (0: none). The answer
    has `.table()`, `.points()`, `.windows()`, `.local()`, `.plot()` and `.to_json()`. Raises InputError for a metric or
    column that the study lacks, an axis that is not positive, a single level, and runs that would be pooled.
    """
    question = RateQuestion(
        metric=metric,
        axis=axis,
        by=None if by is None else (by,) if isinstance(by, str) else tuple(by),
        optimum_over=optimum_over,
        average=average,
        window=window,
        least_levels=least_levels,
        theory=None if theory is None else str(theory),
        where=where,
    )
    table = read_replicates(study.path if isinstance(study, Study) else study, metric, where)
    return estimate_rates(table, question, np.random.default_rng(seed), bootstrap)
