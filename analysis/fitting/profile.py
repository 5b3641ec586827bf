"""Profiles: the rise of the objective as one parameter is fixed away from its estimate and the others refitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import norm

from analysis.fitting.fit import Fit
from analysis.fitting.problem import Problem
from analysis.tables.runs import RunTable
from scaling.arrays import Array
from scaling.errors import InputError

_STEPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0)  # in standard deviations of the draws
_DRAWN = 2.5  # times the threshold: the largest rise shown


@dataclass(frozen=True)
class Profile:
    """The profile of one parameter.

    `values` ascend in the units of the parameter; `rise` is the minimum of the objective with the parameter fixed
    there, minus the overall minimum; `threshold` is the largest rise inside the 95 % `interval`. An end is None where
    the objective stays below the threshold within the range searched: the runs do not bound the parameter.
    """

    name: str
    values: tuple[float, ...]
    rise: tuple[float, ...]
    threshold: float
    interval: tuple[float | None, float | None]


def profile(fit: Fit, table: RunTable, name: str) -> Profile:
    """The profile and the 95 % profile interval of a free parameter of a fit that has draws.

    For a likelihood the threshold would be half a chi-squared quantile. The objective is not one, and runs of a trunk
    are not independent, so the threshold is the 95th percentile of the rise at the estimates of the resamples, widened
    for few trunks as BCa intervals are. To first order this is a bootstrap interval, but its ends follow the objective,
    so they show a valley that is flat on one side. Raises InputError for a parameter that is not free, a fit without
    draws, and another table than that of the fit.
    """
    if name not in fit.free:
        raise InputError(f"`profile` {name}: the free parameters of this fit are {', '.join(fit.free)}")
    if not fit.draws:
        raise InputError("`profile` needs the bootstrap draws: fit with `bootstrap`")
    law, (problem, estimate) = fit.definition, fit.problem(table)
    position = fit.free.index(name)
    centre, others = float(estimate[position]), np.delete(estimate, position)
    drawn = np.asarray(law.to_coordinates(name, np.array(fit.draws[name])), dtype=float)
    width = float(np.subtract(*np.quantile(drawn, [0.84, 0.16]))) / 2 or max(abs(centre), 1.0) * 1e-6
    lower, upper = (float(law.to_coordinates(name, end)) for end in law.parameter(name).bounds)
    held = replace(problem, free=tuple(other for other in fit.free if other != name))
    points = [(centre, 0.0)]
    for sign in (-1.0, 1.0):
        places = np.clip(centre + sign * width * np.array(_STEPS), lower, upper)
        points += _rises(held, name, others, list(dict.fromkeys(places.tolist())), float(fit.objective or 0.0))
    x, rise = (np.array(column) for column in zip(*sorted(points), strict=True))
    root = PchipInterpolator(x, np.sign(x - centre) * np.sqrt(rise))
    wider = float(fit.resampled.normal_quantile(0.975) / norm.ppf(0.975))  # as in `bca.quantiles`
    threshold = float(np.quantile(root(np.clip(drawn, x[0], x[-1])) ** 2, 0.95) * wider**2)
    ends = [_crossing(root, sign * np.sqrt(threshold), centre, end) for sign, end in ((-1.0, x[0]), (1.0, x[-1]))]
    low, high = (None if end is None else float(law.from_coordinates(name, end)) for end in ends)
    shown = rise <= max(_DRAWN * threshold, float(np.min(rise[rise > 0], initial=np.inf)))
    natural = law.from_coordinates(name, x[shown])
    return Profile(name, tuple(natural.tolist()), tuple(rise[shown].tolist()), threshold, (low, high))


def _rises(held: Problem, name: str, start: Array, places: list[float], lowest: float) -> list[tuple[float, float]]:
    """(coordinate, rise) at each place, outwards: refitted from the last solution and from the estimate."""
    rises: list[tuple[float, float]] = []
    nearby = start
    for place in places:
        problem = replace(held, pinned={**held.pinned, name: float(held.law.from_coordinates(name, place))})
        if len(start):
            end = problem.minimise(np.stack([nearby, start]), np.ones((2, problem.loss.size)), near=True)
            best = int(np.argmin(end.objective))
            value, nearby = float(end.objective[best]), end.theta[best]
        else:
            value = problem.value(problem.pinned)
        if np.isfinite(value):
            rises.append((place, max(0.0, value - lowest)))
    return rises


def _crossing(root: PchipInterpolator, level: float, centre: float, end: float) -> float | None:
    """Where the signed root of the rise reaches a level between the estimate and the last place; None where nowhere."""
    if (root(end) - level) * np.sign(level) < 0:
        return None
    return float(brentq(lambda x: float(root(x)) - level, centre, end))
