"""Rates estimated from a table of replicates: slopes by arms over the stated window and all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.rates.arms import Arm, arms_of, theory_of
from analysis.rates.optimum import Minima, minima
from analysis.rates.question import FEWEST_LEVELS, RateQuestion
from analysis.rates.rates import Point, Rate, Rates
from analysis.rates.resampling import FEW, FEWEST, Averages, averages
from analysis.rates.slopes import change, estimated, neighbours, slopes_of, windows
from analysis.rates.table import ReplicateTable
from scaling.arrays import Array, Booleans, Integers
from scaling.errors import InputError
from scaling.formatting import listed, percent, plural, si

DRAWS = 2_000
_MANY_AT_EDGE = 0.05  # share of resamples beyond which an interval of best values is doubted


def estimate_rates(
    table: ReplicateTable, question: RateQuestion, rng: np.random.Generator, draws: int = DRAWS
) -> Rates:
    """The rates of every arm of a table, with 95 % intervals from so many resamples of replicates (0: none).

    Raises InputError as `arms_of` does, and where no arm has two levels in its window.
    """
    if draws < 0:
        raise InputError(f"`bootstrap` must be at least 0, found {draws}")
    rates, warnings, short = list[Rate](), list[str](), list[str]()
    for arm in arms_of(table, question):
        measured = _measured(arm, table, question, draws, rng)
        warnings += measured.warnings
        stated = np.flatnonzero(arm.inside[measured.used])
        if len(stated) < FEWEST_LEVELS:
            short.append(_too_short(arm, question, measured))
            continue
        window = (int(stated[0]), int(stated[-1]))
        rates.append(_rate(arm, measured, window, question, theory_of(arm, question, table.source)))
    if not rates:
        raise InputError(f"{table.source}: {'; '.join(short[:3])}; a slope needs {FEWEST_LEVELS} levels")
    warnings += [f"no slope: {reason}" for reason in short]
    if table.blank:
        share = percent(table.blank / (table.blank + len(table)))
        warnings.append(f"{share} of the values of {table.metric} are no finite number: averages are of the others")
    notes = [f"left out: {plural(count, 'row')} ({reason})" for reason, count in table.dropped]
    return Rates(
        question=replace(question, by=tuple(rates[0].arm)),
        rates=tuple(rates),
        source=table.source,
        unit=table.unit if question.optimum_over is None else "",
        n_draws=draws,
        warnings=tuple(dict.fromkeys([*warnings, *_doubts(rates, draws)])),
        notes=(*notes, *table.notes),
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """ln y of each level of an arm, with its draws; of best values, those that are at an end of what was run, and ln of
    the ones that were run."""

    of: Averages
    edge: Booleans
    log_grid: Array | None
    warnings: tuple[str, ...]

    @property
    def used(self) -> Integers:
        """The levels that slopes rest on."""
        return np.flatnonzero(~self.edge & np.isfinite(self.of.estimate))


def _measured(
    arm: Arm, table: ReplicateTable, question: RateQuestion, draws: int, rng: np.random.Generator
) -> _Measured:
    cells = [cell for level in arm.levels for cell in level.cells]
    of = averages(cells, question.average, draws, rng)
    warnings = []
    if blank := int(np.isnan(of.estimate).sum()):
        warnings.append(f"{arm.name}: the average of {plural(blank, 'cell')} is not positive, and left out")
    elif (share := float(np.isnan(of.draws).any(axis=1).mean()) if draws else 0.0) > 0:
        warnings.append(f"{arm.name}: an average is not positive in {percent(share)} of the resamples, left out there")
    if question.optimum_over is None:
        return _Measured(of, np.zeros(len(cells), dtype=bool), None, tuple(warnings))
    sign = 1.0 if table.better == "lower" else -1.0
    ends = np.cumsum([0, *(len(level.cells) for level in arm.levels)])
    curves = [
        (np.log(level.over), slice(first, last)) for level, first, last in zip(arm.levels, ends, ends[1:], strict=False)
    ]

    def best(rows: Array) -> list[Minima]:
        return [minima(log_m, sign * rows[:, place]) for log_m, place in curves]

    at, drawn, without = best(of.estimate[None]), best(of.draws), best(of.without)
    edge = np.array([bool(one.edge[0]) for one in at])
    for level, one, is_edge in zip(arm.levels, drawn, edge, strict=True):
        share = float(one.edge.mean()) if draws else 0.0
        if not is_edge and share > _MANY_AT_EDGE:
            warnings.append(
                f"{arm.name}: at {question.axis} = {si(level.x)} the best {question.optimum_over} is the smallest or "
                f"largest that was run in {percent(share)} of the resamples: its interval is too narrow"
            )
    found = replace(
        of,
        estimate=np.array([one.log_m[0] for one in at]),
        draws=np.stack([one.log_m for one in drawn], axis=1),
        without=np.stack([one.log_m for one in without], axis=1),
        known=np.array([bool(of.known[place].all()) for _, place in curves]),
    )
    return _Measured(found, edge, np.array([one.log_grid[0] for one in at]), tuple(warnings))


def _rate(arm: Arm, measured: _Measured, stated: tuple[int, int], question: RateQuestion, theory: float | None) -> Rate:
    """The rate of an arm; `stated` is the window among the levels that are used."""
    used, grid = measured.used, measured.log_grid
    kept = _only(measured.of, used)
    x = np.array([level.x for level in arm.levels])[used]
    slope, *others = estimated(x, kept, [stated, *windows(len(used), question.least_levels)])
    inside = slice(stated[0], stated[1] + 1)
    log_x, log_y = np.log(x), kept.estimate
    log_coefficient = float(np.mean(log_y[inside] - slope.slope * log_x[inside]))
    residual = log_y[inside] - log_coefficient - slope.slope * log_x[inside]
    bend, bend_interval = change(x, kept)
    grid_slope = None if grid is None else float(slopes_of(log_x, grid[used], [stated])[0])
    return Rate(
        arm=arm.settings,
        points=_points(arm, measured),
        stated=slope,
        log_coefficient=log_coefficient,
        rmse_log=float(np.sqrt(np.mean(residual**2))),
        windows=tuple(others),
        local=estimated(x, kept, neighbours(len(used))),
        change=bend,
        change_interval=bend_interval,
        theory=theory,
        grid_slope=grid_slope,
    )


def _only(of: Averages, places: Integers) -> Averages:
    """The averages of some levels."""
    return replace(
        of,
        estimate=of.estimate[places],
        draws=of.draws[:, places],
        without=of.without[:, places],
        known=of.known[places],
    )


def _points(arm: Arm, measured: _Measured) -> tuple[Point, ...]:
    of, grid = measured.of, measured.log_grid
    ends = of.interval(of.estimate, of.draws, of.without) if len(of.draws) else None
    points = []
    for place, level in enumerate(arm.levels):
        interval = None
        if ends is not None and of.known[place] and np.isfinite(of.estimate[place]):
            interval = (float(np.exp(ends[0][place])), float(np.exp(ends[1][place])))
        points.append(
            Point(
                x=level.x,
                value=float(np.exp(of.estimate[place])),
                interval=interval,
                replicates=min(len(cell.identities) for cell in level.cells),
                inside=bool(arm.inside[place]),
                on_grid=None if grid is None else float(np.exp(grid[place])),
                edge=bool(measured.edge[place]),
            )
        )
    return tuple(points)


def _too_short(arm: Arm, question: RateQuestion, measured: _Measured) -> str:
    """Why an arm has no slope."""
    levels = plural(len(arm.levels), "level")
    inside = "" if question.window is None else f", {int(arm.inside.sum())} of them in the stated window"
    at_end = int(measured.edge.sum())
    ends = f", {at_end} with the best {question.optimum_over} at an end of what was run" if at_end else ""
    return f"{arm.name} has {levels} of {question.axis}{inside}{ends}"


def _doubts(rates: Sequence[Rate], draws: int) -> list[str]:
    """What to doubt of the intervals, and of the choice of levels."""
    doubts = []
    too_few = [rate.name for rate in rates if rate.replicates < FEWEST]
    alike = [rate.name for rate in rates if rate.replicates >= FEWEST and rate.interval is None]
    few = [rate.name for rate in rates if FEWEST <= rate.replicates < FEW]
    if too_few and draws:
        doubts.append(f"fewer than {FEWEST} replicates, so no interval: {listed(too_few, most=4)}")
    if alike and draws:
        doubts.append(f"the replicates of a level do not differ, so there is no interval: {listed(alike, most=4)}")
    if few and draws:
        doubts.append(f"fewer than {FEW} replicates, so intervals are rough: {listed(few, most=4)}")
    edges = [rate.name for rate in rates if any(point.edge for point in rate.points)]
    if edges:
        doubts.append(f"levels whose best value is at an end of what was run are left out: {listed(edges, most=4)}")
    bent = [f"{rate.name} ({rate.change:+.3f})" for rate in rates if rate.bent]
    if bent:
        doubts.append(
            f"the slope changes along the axis, by more than chance from the first half of the levels to the second: "
            f"{listed(bent, most=4)}; it depends on the window"
        )
    return doubts
