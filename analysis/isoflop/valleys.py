"""IsoFLOP valleys: a parabola of the loss in ln N at every compute budget, and its minimum.

Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.2), a cross-check of the fit of the whole surface
(`analysis.fitting.fit`, approach 3), which uses the runs more efficiently; `analysis.isoflop.bias` measures its bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from scipy.cluster.hierarchy import fcluster, linkage

from analysis.fitting.bootstrap import resample_weights
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Integers
from scaling.bounds import LEAST, MOST_PARAMETERS
from scaling.columns import COMPUTE, LOSS, TOKENS
from scaling.errors import InputError

SIZE = "n_active"
TOLERANCE = 0.05
WIDEST = 8.0  # a window wider than this factor either side of its centre biases the vertex by 3 % or more (`bias`)
_LOPSIDED = 3.0  # ratio of the window's two sides, in ln N from the vertex
_TRIMS = 20
_SCATTERED = 2.0  # compute within one requested budget
REQUESTED = ("budget", "flop_budget", "flops_budget", "compute_budget", "requested_flops", "target_flops")
"""Columns that hold the budget which a run was planned for; counts of its compute differ from it."""
_TRIMMED = "outside the window that a parabola carries"
_LOG_SIZES = (np.log(LEAST), np.log(MOST_PARAMETERS))  # where a flat parabola has its minimum matters no further out
_FEWEST_POINTS = 4
ENOUGH_DRAWS = 0.95  # share of resamples with a minimum that an interval needs

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class BudgetRuns:
    """The runs of one E at one budget: their rows in the table, N, D, C, and the loss or its logarithm."""

    n_experts: int
    rows: Integers
    size: Array
    tokens: Array
    compute: Array
    loss: Array


@dataclass(frozen=True, eq=False)
class Valley:
    """One budget of one E: the parabola c0 + c1 u + c2 u^2 in u = ln N - centre, and its minimum.

    `n_opt`, `d_opt` and `loss` are NaN where the parabola opens downward. Intervals are 95 %, None without a residual
    degree of freedom; `loss_deviation` is the standard error of `loss` by the delta method, else NaN. `flags` say why
    the valley is unreliable.
    """

    runs: BudgetRuns
    n_opt: float
    n_interval: Interval | None
    d_opt: float
    d_interval: Interval | None
    loss: float
    loss_interval: Interval | None
    loss_deviation: float
    centre: float
    coefficients: tuple[float, float, float]
    flags: tuple[str, ...]

    @property
    def n_experts(self) -> int:
        return self.runs.n_experts

    @property
    def train_flops(self) -> float:
        """The geometric mean of the runs."""
        return float(np.exp(np.log(self.runs.compute).mean()))

    @property
    def rows(self) -> Integers:
        return self.runs.rows

    @property
    def n_points(self) -> int:
        return len(self.rows)

    @property
    def n_range(self) -> Interval:
        return float(self.runs.size.min()), float(self.runs.size.max())

    @property
    def width(self) -> float:
        """The factor of the window either side of its centre: sqrt(N_max/N_min)."""
        return float(np.sqrt(self.n_range[1] / self.n_range[0]))


@dataclass(frozen=True, eq=False)
class Valleys:
    """The valleys of a table by E and budget, and the rows outside all of them, by reason.

    `n_column` is the column of N; with `log_loss` the parabolas are of ln loss.
    """

    table: RunTable
    n_column: str
    log_loss: bool
    valleys: tuple[Valley, ...]
    left_out: tuple[tuple[str, Integers], ...]

    @property
    def experts(self) -> tuple[int, ...]:
        return tuple(sorted({valley.n_experts for valley in self.valleys}))

    def of(self, n_experts: int) -> Valleys:
        """The valleys of one E. Raises InputError for an E without valleys, listing those with some."""
        if n_experts not in self.experts:
            raise InputError(
                f"{self.table.source}: no valley has n_experts = {n_experts}; valleys have "
                f"{', '.join(map(str, self.experts)) or 'none'}"
            )
        return replace(self, valleys=tuple(valley for valley in self.valleys if valley.n_experts == n_experts))


def valleys(
    table: RunTable,
    *,
    n_column: str = SIZE,
    tolerance: float = TOLERANCE,
    n_budgets: int | None = None,
    budget_column: str | None = None,
    log_loss: bool = False,
    trim: bool = True,
    rng: np.random.Generator | None = None,
    draws: int = 1000,
) -> Valleys:
    """A parabola of the loss in ln N for every budget of every E, and its minimum (arXiv 2203.15556, section 3.2).

    Runs of one requested budget belong together where `budget_column` holds it, or the table has one of `REQUESTED`
    with a number in every row. Otherwise budgets are windows of +-`tolerance` in `train_flops`, the one with most runs
    first; with `n_budgets` they are that many most compact groups (complete linkage in ln C) in any case. Losses within
    a budget are not corrected for scatter in C, which counts as noise.

    A window that is too wide or too lopsided for a parabola is trimmed: runs beyond a factor 8 of the minimum, or more
    than three times as far from it in ln N as the window's nearer end, are left out as long as 4 runs of 3 sizes stay;
    without `trim` all stay and the valley is flagged.
    N* = exp(centre - c1/(2 c2)) and D* = C/(kappa N*); ln kappa is the line of ln C/(N D) in ln N through the runs,
    taken at N*, so kappa = 6 where C = 6 N D. Intervals are by the delta method with Student's t or, with `rng`, from
    `draws` resamples of runs by trunk.

    A valley is flagged where it has fewer than 4 points, opens downward, has its vertex outside the sampled sizes or
    its lowest run at their edge, where compute differs more than twofold within a requested budget, or where its
    window, which could not be trimmed, biases the vertex: wider than a factor 8 either side of its centre, or with
    sides that differ more than threefold in ln N. Raises InputError for a missing column and where no budget has three
    sizes.
    """
    if not 0.0 < tolerance < 1.0:
        raise InputError(f"`tolerance` must lie between 0 and 1, found {tolerance}")
    if n_budgets is not None and n_budgets < 1:
        raise InputError(f"`n_budgets`, the number of budgets, must be at least 1, found {n_budgets}")
    columns = table.columns((n_column, TOKENS, COMPUTE, LOSS))
    experts = table.experts
    positive = np.all([np.isfinite(values) & (values > 0) for values in columns.values()], axis=0)
    weights = None if rng is None else resample_weights(table, draws, rng)
    requested = _requested(table, budget_column) if n_budgets is None else None
    fitted: list[Valley] = []
    too_few_sizes: list[int] = []
    trimmed: list[int] = []
    for e in np.unique(experts[positive]):
        of_e = np.flatnonzero(positive & (experts == e))
        spent = np.log(columns[COMPUTE][of_e])
        groups = _groups(spent, tolerance, n_budgets) if requested is None else _numbered(requested[of_e])
        for rows in (of_e[groups == group] for group in np.unique(groups)):
            size, tokens, compute, loss = (values[rows] for values in columns.values())
            if len(np.unique(size)) < 3:
                too_few_sizes += [*rows]
                continue
            everyone = BudgetRuns(int(e), rows, size, tokens, compute, np.log(loss) if log_loss else loss)
            runs = _carried(everyone) if trim else everyone
            trimmed += [*np.setdiff1d(rows, runs.rows)]
            valley = fitted_valley(runs, None if weights is None else weights[:, runs.rows])
            fitted.append(_in_nats(valley) if log_loss else valley)
    if not fitted:
        raise InputError(
            f"{table.source}: no budget has runs of three sizes, but an isoFLOP analysis needs models of several "
            f"{n_column} at equal {COMPUTE}; widen `tolerance`, or fit a law to all runs"
        )
    fitted.sort(key=lambda valley: (valley.n_experts, valley.train_flops))
    left_out = {
        f"no positive {', '.join(columns)}": np.flatnonzero(~positive),
        "in no budget with three sizes of model": np.array(sorted(too_few_sizes), dtype=int),
        _TRIMMED: np.array(sorted(trimmed), dtype=int),
    }
    left_out_rows = tuple((reason, rows) for reason, rows in left_out.items() if rows.size)
    return Valleys(table, n_column, log_loss, tuple(fitted), left_out_rows)


def _groups(log_compute: Array, tolerance: float, n_budgets: int | None) -> Integers:
    """A group number for each run: windows of the tolerance, the fullest first; or `n_budgets` groups."""
    if n_budgets is not None and len(log_compute) > 1:
        return np.asarray(fcluster(linkage(log_compute[:, None], "complete"), n_budgets, "maxclust"), dtype=int)
    group, width = np.zeros(len(log_compute), dtype=int), 2.0 * np.log1p(tolerance)
    while (ungrouped := np.flatnonzero(group == 0)).size:
        after = log_compute[ungrouped] - log_compute[ungrouped][:, None]
        window = (after >= 0.0) & (after <= width)  # of each run: those with up to the tolerance more compute
        group[ungrouped[window[np.argmax(window.sum(axis=1))]]] = group.max() + 1
    return group


def _requested(table: RunTable, column: str | None) -> Array | None:
    """The budget that each run was planned for; None where no column says so."""
    if column is not None and column not in table.frame:
        raise InputError(f"{table.source}: `budget_column`: no column {column!r}")
    for name in (column,) if column is not None else REQUESTED:
        if name in table.frame:
            values = pd.to_numeric(table.frame[name], errors="coerce").to_numpy(dtype=float)
            if np.all(np.isfinite(values) & (values > 0)):
                return values
            if column is not None:
                row = int(np.argmin(np.isfinite(values) & (values > 0)))
                raise InputError(
                    f"{table.source}: column {column}: run {row + 1} of those read has no positive number; without "
                    "`budget_column` budgets are found by compute"
                )
    return None


def _numbered(values: Array) -> Integers:
    return np.asarray(np.unique(values, return_inverse=True)[1] + 1, dtype=int)


def _carried(runs: BudgetRuns) -> BudgetRuns:
    """The runs within the window that a parabola carries around its own minimum; all where too few would stay.

    The window starts around the lowest run, since a parabola through a window that is too wide misplaces its minimum.
    """
    log_n = np.log(runs.size)
    kept = np.ones(len(log_n), dtype=bool)
    place = float(log_n[np.argmin(runs.loss)])
    if not _window_flags(log_n, runs.loss, _vertex(log_n, runs.loss) or place):
        return runs
    for _ in range(_TRIMS):
        before, kept = kept, np.abs(log_n - place) <= np.log(WIDEST) * (1 + 1e-9)
        sides = np.array([place - log_n[kept].min(), log_n[kept].max() - place]) if kept.any() else np.zeros(2)
        if sides.min() > 0:
            kept &= np.abs(log_n - place) <= _LOPSIDED * sides.min() * (1 + 1e-9)
        if kept.sum() < _FEWEST_POINTS or len(np.unique(log_n[kept])) < 3:
            return runs
        if np.array_equal(kept, before):
            break
        vertex = _vertex(log_n[kept], runs.loss[kept])
        if vertex is None:
            return runs
        place = vertex
    return BudgetRuns(
        runs.n_experts, runs.rows[kept], runs.size[kept], runs.tokens[kept], runs.compute[kept], runs.loss[kept]
    )


def _vertex(log_n: Array, loss: Array) -> float | None:
    """ln N at the minimum of the parabola; None where it opens downward."""
    curvature, slope, _ = np.polyfit(log_n - log_n.mean(), loss, 2)
    return float(log_n.mean() - slope / (2 * curvature)) if curvature > 0 else None


def fitted_valley(runs: BudgetRuns, weights: Array | None) -> Valley:
    """The parabola through the runs of one budget; `weights` (draws, runs) are resamples, None for the delta method."""
    log_n, loss = np.log(runs.size), runs.loss
    centre = float(log_n.mean())
    u = log_n - centre
    design = np.stack([np.ones_like(u), u, u * u], axis=1)
    c0, c1, c2 = (float(c) for c in np.linalg.lstsq(design, loss, rcond=None)[0])
    budget = float(np.exp(np.log(runs.compute).mean()))
    flags = [f"fewer than {_FEWEST_POINTS} points"] if len(u) < _FEWEST_POINTS else []
    if runs.compute.max() > _SCATTERED * runs.compute.min():
        flags.append(f"compute differs more than {_SCATTERED:g} times within the budget")
    place = depth = deviation = float("nan")
    intervals = None
    # Smaller curvature may be rounding error.
    if c2 * np.ptp(u) ** 2 > 1e-12 * np.abs(loss).max():
        place, depth = -c1 / (2 * c2), c0 - c1 * c1 / (4 * c2)
        flags += _window_flags(u, loss, place)
        intervals = _by_delta(design, loss, (c0, c1, c2))
        if intervals is not None:
            deviation = float(np.ptp(intervals[1])) / 2 / float(stats.t.ppf(0.975, len(loss) - 3))
        if weights is not None:
            intervals = _by_resampling(design, loss, weights)
    else:
        flags.append("the parabola opens downward")
    # D at the vertex from C = kappa N D, with the kappa of the runs (6 where C is counted as 6 N D).
    kappas = np.polyfit(u, np.log(runs.compute / (runs.size * runs.tokens)), 1)
    kappa = float(np.exp(np.polyval(kappas, place)))
    n_opt, n_interval, loss_interval = float(np.exp(np.clip(centre + place, *_LOG_SIZES))), None, None
    if intervals is not None:
        (low, high), loss_interval = intervals
        low, high = (float(np.clip(centre + end, *_LOG_SIZES)) for end in (low, high))
        n_interval = (float(np.exp(low)), float(np.exp(high)))
    return Valley(
        runs=runs,
        n_opt=n_opt,
        n_interval=n_interval,
        d_opt=budget / (kappa * n_opt),
        d_interval=None if n_interval is None else (budget / (kappa * n_interval[1]), budget / (kappa * n_interval[0])),
        loss=depth,
        loss_interval=loss_interval,
        loss_deviation=deviation,
        centre=centre,
        coefficients=(c0, c1, c2),
        flags=tuple(flags),
    )


def _window_flags(u: Array, loss: Array, place: float) -> list[str]:
    low, high = float(u.min()), float(u.max())
    flags = []
    if not low <= place <= high:
        flags.append("the vertex lies outside the sampled sizes")
    elif max(high - place, place - low) > _LOPSIDED * min(high - place, place - low):
        flags.append(f"the window is lopsided: its sides differ more than {_LOPSIDED:g} times in ln N")
    if u[np.argmin(loss)] in (low, high):
        flags.append("the lowest run is at the edge of the sampled sizes")
    if (high - low) / 2 > np.log(WIDEST) * (1 + 1e-9):
        flags.append(f"the window is wider than a factor {WIDEST:g} either side of its centre")
    return flags


def _by_delta(design: Array, loss: Array, parabola: tuple[float, float, float]) -> tuple[Interval, Interval] | None:
    """95 % intervals of place and depth of the vertex: variance g' Cov g, Student's t with n - 3 degrees of freedom."""
    freedom = len(loss) - 3
    if freedom < 1:
        return None
    c0, c1, c2 = parabola
    place, depth = -c1 / (2 * c2), c0 - c1 * c1 / (4 * c2)
    covariance = np.sum((loss - design @ np.array(parabola)) ** 2) / freedom * np.linalg.inv(design.T @ design)
    half = stats.t.ppf(0.975, freedom)
    gradients = (np.array([0.0, -0.5 / c2, c1 / (2 * c2**2)]), np.array([1.0, place, place**2]))
    by_place, by_depth = (half * float(np.sqrt(g @ covariance @ g)) for g in gradients)
    return (place - by_place, place + by_place), (depth - by_depth, depth + by_depth)


def _by_resampling(design: Array, loss: Array, weights: Array) -> tuple[Interval, Interval] | None:
    """95 % percentile intervals of place and depth over resamples; None where too many have no minimum."""
    sizes = (design[:, None, 1] == np.unique(design[:, 1])).astype(float)
    fits = weights[((weights @ sizes) > 0).sum(axis=1) >= 3]
    gram = np.einsum("bi,ip,iq->bpq", fits, design, design)
    c0, c1, c2 = np.linalg.solve(gram, (fits @ (design * loss[:, None]))[..., None])[..., 0].T
    bowl = c2 > 0
    if bowl.sum() < ENOUGH_DRAWS * len(weights):
        return None
    place, depth = -c1[bowl] / (2 * c2[bowl]), c0[bowl] - c1[bowl] ** 2 / (4 * c2[bowl])
    return percentile_interval(place), percentile_interval(depth)


def percentile_interval(draws: Array | list[float]) -> Interval:
    """The 95 % interval between the percentiles of draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _in_nats(valley: Valley) -> Valley:
    """The valley of a parabola of ln loss, with its depth as a loss."""
    ends = valley.loss_interval
    interval = None if ends is None else (float(np.exp(ends[0])), float(np.exp(ends[1])))
    loss = float(np.exp(valley.loss))
    return replace(valley, loss=loss, loss_interval=interval, loss_deviation=loss * valley.loss_deviation)
