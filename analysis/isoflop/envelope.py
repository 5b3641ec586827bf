"""The envelope of runs: at each compute the model with the lowest loss there, and the frontier through these.

Approach 1 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.isoflop.power_law import PowerLaw, power_law
from analysis.isoflop.valleys import ENOUGH_DRAWS, SIZE, Interval, percentile_interval
from analysis.tables.runs import RunTable
from analysis.tables.study import curve
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import COMPUTE, LOSS, TOKENS
from scaling.errors import InputError

_GRID = 1_500  # values of compute, as in the paper


@dataclass(frozen=True, eq=False)
class Envelope:
    """The lowest loss at each compute, over runs interpolated along their points, for one E.

    `edge` marks values of C at which the lowest run is the smallest or largest model of those there: the optimum may
    lie beyond. The laws are regressions over the others; `exponent_interval` is of N's exponent, by resampling curves
    (the points of a curve are one observation, so the regression's own interval means nothing). None without `rng`.
    It holds the scatter of the exponent but not the method's bias, which choosing the lowest of noisy runs and leaving
    out the edges bring: with 40 curves and 1 % of noise it covered the planted exponent 8 times in 10.
    """

    n_experts: int
    train_flops: Array
    n_opt: Array
    d_opt: Array
    loss: Array
    edge: Booleans
    n_models: int
    n_law: PowerLaw
    d_law: PowerLaw
    exponent_interval: Interval | None


def envelope(
    table: RunTable,
    n_experts: int | None = None,
    *,
    n_column: str = SIZE,
    rng: np.random.Generator | None = None,
    draws: int = 200,
) -> Envelope:
    """Approach 1 (arXiv 2203.15556, section 3.1): at 1,500 log-spaced C, the model with the lowest loss there.

    A curve is a trunk's points over its budgets, or, where the table has no `trunk_id`, all runs of one N; the loss
    between them is linear in ln C, and no curve is extended. Training curves of a study come from `training_curves`.
    Raises InputError where fewer than 3 models have curves, where every minimum is on the edge, or where E is several.
    """
    e = _one_expert_count(table, n_experts)
    curves = _curves(table, e, n_column)
    sizes = np.array([points[n_column].iloc[0] for points in curves])
    if len(np.unique(sizes)) < 3:
        raise InputError(
            f"{table.source}: an envelope needs models of three sizes with two budgets each, n_experts = {e} has "
            f"{len(np.unique(sizes))}: add token budgets to the sizes there are"
        )
    grid = np.geomspace(min(p[COMPUTE].min() for p in curves), max(p[COMPUTE].max() for p in curves), _GRID)
    losses, tokens = (np.stack([_along(points, name, grid) for points in curves]) for name in (LOSS, TOKENS))
    lowest, edge = _lowest(losses, sizes)
    if edge.all():
        raise InputError(
            f"{table.source}: at every compute the lowest run is the smallest or largest model there (n_experts = "
            f"{e}): add smaller or larger models, or longer runs of those there are"
        )
    columns = np.arange(_GRID)
    n_opt, d_opt = sizes[lowest], tokens[lowest, columns]
    return Envelope(
        n_experts=e,
        train_flops=grid,
        n_opt=n_opt,
        d_opt=d_opt,
        loss=losses[lowest, columns],
        edge=edge,
        n_models=len(np.unique(n_opt[~edge])),
        n_law=power_law(grid[~edge], n_opt[~edge]),
        d_law=power_law(grid[~edge], d_opt[~edge]),
        exponent_interval=None if rng is None else _exponents(losses, sizes, grid, rng, draws),
    )


def _one_expert_count(table: RunTable, n_experts: int | None) -> int:
    experts = np.unique(table.experts)
    if n_experts is None and len(experts) > 1:
        raise InputError(
            f"{table.source}: runs of n_experts = {', '.join(f'{e:g}' for e in experts)}: name one of them"
        )
    return int(experts[0]) if n_experts is None else n_experts


def _curves(table: RunTable, e: int, n_column: str) -> list[pd.DataFrame]:
    """The points of each curve of one E that has two budgets: by trunk where every run names its own, else by size."""
    columns = table.columns((n_column, TOKENS, COMPUTE, LOSS))
    usable = np.all([np.isfinite(values) & (values > 0) for values in columns.values()], axis=0)
    usable &= table.experts == e
    named = "trunk_id" in table.frame and bool(table.frame["trunk_id"].notna().all())
    member = table.trunks if named else columns[n_column]
    curves = pd.DataFrame(columns)[usable].groupby(member[usable])
    return [curve for _, curve in curves if len(np.unique(curve[COMPUTE])) > 1]


def _along(points: pd.DataFrame, name: str, grid: Array) -> Array:
    """A column at the grid's C, linear in ln C between a curve's points (their mean where C repeats); NaN beyond."""
    compute, place = np.unique(points[COMPUTE], return_inverse=True)
    means = np.bincount(place, weights=points[name]) / np.bincount(place)
    return np.asarray(np.interp(np.log(grid), np.log(compute), means, left=np.nan, right=np.nan))


def _lowest(losses: Array, sizes: Array) -> tuple[Integers, Booleans]:
    """The curve of lowest loss at each C, and whether it is the smallest or largest model of those there."""
    covered = np.isfinite(losses)
    lowest = np.where(covered, losses, np.inf).argmin(axis=0)
    smallest = np.where(covered, sizes[:, None], np.inf).min(axis=0)
    largest = np.where(covered, sizes[:, None], 0.0).max(axis=0)
    return lowest, (sizes[lowest] <= smallest) | (sizes[lowest] >= largest)


def _exponents(losses: Array, sizes: Array, grid: Array, rng: np.random.Generator, draws: int) -> Interval | None:
    """95 % interval of N's exponent over resamples of the curves; None where too many leave no frontier."""
    exponents = []
    for _ in range(draws):
        chosen = np.unique(rng.integers(len(sizes), size=len(sizes)))
        lowest, edge = _lowest(losses[chosen], sizes[chosen])
        n_opt = sizes[chosen][lowest]
        if len(np.unique(n_opt[~edge])) > 1:
            exponents.append(power_law(grid[~edge], n_opt[~edge]).exponent)
    return None if len(exponents) < ENOUGH_DRAWS * draws else percentile_interval(exponents)


def training_curves(study: Path, table: RunTable) -> RunTable:
    """The training curves of a study's runs as a table for `envelope`: one row a point, the loss is the training loss.

    The longest run of each trunk stands for it. C at a point is the run's times the share of its tokens seen. With a
    constant rate and a cooldown (arXiv 2405.18392) a curve lies above what a cooldown there would reach, for all
    sizes. Raises InputError where the study has no curves.
    """
    if "run_id" not in table.frame:
        raise InputError(f"{table.source}: no column 'run_id', by which curves are found; give a study folder")
    longest = table.frame.assign(trunk_id=table.trunks).sort_values(TOKENS).groupby("trunk_id").tail(1)
    parts = []
    for run in longest.to_dict("records"):
        points = curve(study, str(run["run_id"]))
        if not points.empty:
            share = points[TOKENS] / run[TOKENS]
            measured = {TOKENS: points[TOKENS], COMPUTE: run[COMPUTE] * share, LOSS: points["loss"]}
            parts.append(points[[TOKENS]].assign(**{str(name): value for name, value in run.items()} | measured))
    if not parts:
        raise InputError(f"{study}: no training curves (curves/*.parquet); the envelope can use the runs' own points")
    return RunTable(pd.concat(parts, ignore_index=True), table.source)
