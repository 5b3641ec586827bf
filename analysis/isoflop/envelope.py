"""The envelope of runs: the model of lowest loss at each compute, and the frontier through these.

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
    """The lowest loss at each compute for one E, over curves interpolated between their points.

    `edge` marks values of C at which the lowest curve belongs to the smallest or largest model there, so the optimum
    may lie beyond; the laws are regressions over the others. `exponent_interval` (None without `rng`) resamples curves,
    since the points of a curve are one observation. It covers the scatter of N's exponent but not the bias from
    choosing the lowest of noisy runs: with 40 curves and 1 % noise it contained the true exponent 8 times in 10.
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
    """Approach 1 (arXiv 2203.15556, section 3.1): the model of lowest loss at 1,500 log-spaced C.

    A curve joins the points of a trunk or, without `trunk_id`, all runs of one N; its loss is linear in ln C between
    points and not extrapolated. `training_curves` gives those of a study. Raises InputError for fewer than 3 models
    with curves, where every minimum is on the edge, and for several E of which none is named.
    """
    e = _one_expert_count(table, n_experts)
    curves = _curves(table, e, n_column)
    sizes = np.array([points[n_column].iloc[0] for points in curves])
    if len(np.unique(sizes)) < 3:
        raise InputError(
            f"{table.source}: an envelope needs models of three sizes with two budgets each; n_experts = {e} has "
            f"{len(np.unique(sizes))}: add token budgets to the studied sizes"
        )
    grid = np.geomspace(min(p[COMPUTE].min() for p in curves), max(p[COMPUTE].max() for p in curves), _GRID)
    losses, tokens = (np.stack([_along(points, name, grid) for points in curves]) for name in (LOSS, TOKENS))
    lowest, edge = _lowest(losses, sizes)
    if edge.all():
        raise InputError(
            f"{table.source}: at every compute the smallest or largest model has the lowest loss (n_experts = {e}): "
            "add smaller or larger models, or longer runs"
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
    """The points of each curve of one E with two budgets: by trunk where every run has a `trunk_id`, else by size."""
    columns = table.columns((n_column, TOKENS, COMPUTE, LOSS))
    usable = np.all([np.isfinite(values) & (values > 0) for values in columns.values()], axis=0)
    usable &= table.experts == e
    named = "trunk_id" in table.frame and bool(table.frame["trunk_id"].notna().all())
    member = table.trunks if named else columns[n_column]
    curves = pd.DataFrame(columns)[usable].groupby(member[usable])
    return [curve for _, curve in curves if len(np.unique(curve[COMPUTE])) > 1]


def _along(points: pd.DataFrame, name: str, grid: Array) -> Array:
    """A column at the C of the grid, linear in ln C between points (their mean where C repeats); NaN beyond."""
    compute, place = np.unique(points[COMPUTE], return_inverse=True)
    means = np.bincount(place, weights=points[name]) / np.bincount(place)
    return np.asarray(np.interp(np.log(grid), np.log(compute), means, left=np.nan, right=np.nan))


def _lowest(losses: Array, sizes: Array) -> tuple[Integers, Booleans]:
    """The curve of lowest loss at each C, and whether it belongs to the smallest or largest model there."""
    covered = np.isfinite(losses)
    lowest = np.where(covered, losses, np.inf).argmin(axis=0)
    smallest = np.where(covered, sizes[:, None], np.inf).min(axis=0)
    largest = np.where(covered, sizes[:, None], 0.0).max(axis=0)
    return lowest, (sizes[lowest] <= smallest) | (sizes[lowest] >= largest)


def _exponents(losses: Array, sizes: Array, grid: Array, rng: np.random.Generator, draws: int) -> Interval | None:
    """95 % interval of the exponent of N over resamples of curves; None where too many have no frontier."""
    exponents = []
    for _ in range(draws):
        chosen = np.unique(rng.integers(len(sizes), size=len(sizes)))
        lowest, edge = _lowest(losses[chosen], sizes[chosen])
        n_opt = sizes[chosen][lowest]
        if len(np.unique(n_opt[~edge])) > 1:
            exponents.append(power_law(grid[~edge], n_opt[~edge]).exponent)
    return None if len(exponents) < ENOUGH_DRAWS * draws else percentile_interval(exponents)


def training_curves(study: Path, table: RunTable) -> RunTable:
    """The training curves of a study as a table for `envelope`: one row per point, with the training loss.

    Each trunk is represented by its longest run. C at a point is that of the run times the share of its tokens seen.
    With a constant learning rate and a cooldown (arXiv 2405.18392) curves lie above the loss after a cooldown, for all
    sizes. A curve that cannot be read is left out, named in the notes. Raises InputError for a study without curves.
    """
    if "run_id" not in table.frame:
        raise InputError(f"{table.source}: no column 'run_id', which identifies curves; use a study folder")
    longest = table.frame.assign(trunk_id=table.trunks).sort_values(TOKENS).groupby("trunk_id").tail(1)
    parts, left_out = [], []
    for run in longest.to_dict("records"):
        try:
            points = curve(study, str(run["run_id"]))
        except InputError as error:
            left_out.append(f"left out: {error}")
            continue
        if not points.empty:
            share = points[TOKENS] / run[TOKENS]
            measured = {TOKENS: points[TOKENS], COMPUTE: run[COMPUTE] * share, LOSS: points["loss"]}
            parts.append(points[[TOKENS]].assign(**{str(name): value for name, value in run.items()} | measured))
    if not parts:
        unread = f" ({'; '.join(left_out[:3])})" if left_out else ""
        raise InputError(
            f"{study}: no training curves (curves/*.parquet){unread}; build the envelope from the runs instead"
        )
    return RunTable(pd.concat(parts, ignore_index=True), table.source, notes=tuple(left_out))
