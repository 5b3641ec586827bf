"""The coefficients of an engine's time, fitted to end-to-end measurements of several public models.

A robust fit of ln(time) with non-negative coefficients: each has a log-normal prior about what its physics says, of a
width that lets the data move it threefold, and models weigh alike however many rows they have. Errors that count are
those on a model that was left out, since the next architecture is none of these. A user's own rows, perhaps of a
single model, shrink to a published speed instead of to physics alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from analysis.latency.end_to_end import EndToEnd
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.serving.engine_speed import TERMS, EngineSpeed

# What each coefficient is before measurements: peaks are reached to 85 % in streaming and to 60 % in products,
# attention of prompts to 40 %; a layer launches some ten kernels of 4 microseconds; communication takes what it takes
# alone.
_PRIOR = {
    "shared weights": 1.15,
    "expert weights": 1.25,
    "cache": 1.2,
    "products": 1.6,
    "prompt attention": 2.5,
    "decode attention": 1.5,
    "layers": 40e-6,
    "routed layers": 30e-6,
    "communication": 1.0,
    "sequences": 0.1e-6,
}
_WIDTH, _WIDTH_OF_PUBLISHED = 0.5, 0.25  # of ln(coefficient), about physics and about a published speed
_STRENGTH = 20.0  # rows that the prior counts as, of the hundreds of correlated rows of a model
_CORNER = 0.1  # of ln(time): larger residuals count linearly
_TAILS = (0.025, 0.975)
_LEAST = 1e-12  # of a published coefficient that is 0


@dataclass(frozen=True)
class HeldOutErrors:
    """Of one group left out: rows, median and 90th percentile of abs(predicted/measured - 1), the median of
    predicted/measured, and rows inside the 95 % prediction interval that the other groups give."""

    group: str
    rows: int
    median: float
    p90: float
    ratio: float
    inside: int


@dataclass(frozen=True, eq=False)
class EngineFit:
    """Coefficients in the order of `scaling.serving.engine_speed.TERMS`, and the errors on groups left out.

    `without` are the coefficients without each model, one a row; `interval` are the factors of a prediction between
    which 95 % of measurements of other models lie.
    """

    coefficients: Array
    without: Array
    interval: tuple[float, float]
    models_left_out: tuple[HeldOutErrors, ...]
    devices_left_out: tuple[HeldOutErrors, ...]
    in_sample: HeldOutErrors

    def seconds(self, terms: Array) -> Array:
        """Predicted seconds of rows of terms."""
        return np.asarray(terms @ self.coefficients)

    @property
    def scatter(self) -> float:
        """Standard deviation of ln(time) of a new model that the interval stands for."""
        low, high = np.log(self.interval)
        return float((high - low) / (2 * 1.96))

    def speed(self, name: str, source: str, date: str) -> EngineSpeed:
        """The fit as a speed that serving is priced with."""
        error = float(np.mean([one.median for one in self.models_left_out])) if self.models_left_out else float("nan")
        without = tuple(tuple(float(value) for value in row) for row in self.without)
        coefficients = tuple(map(float, self.coefficients))
        return EngineSpeed(name, coefficients, without, self.scatter, source, date, error)


def fit_engines(rows: EndToEnd, published: EngineSpeed | None = None) -> EngineFit:
    """The coefficients that all rows share, with errors of every model and every device left out.

    With a `published` speed the coefficients shrink to it, and a model left out is predicted by it and the other
    models. Without one, raises InputError for fewer than three models: an error on models left out, and an interval,
    then cannot be known.
    """
    models = rows.frame["model"].to_numpy(dtype=object)
    if not len(models):
        raise InputError("an engine's speed needs rows, found none")
    if published is None and len(set(models)) < 3:
        raise InputError(f"an engine's speed needs rows of three models, found {len(set(models))}")
    coefficients = _minimum(rows.iterations, rows.tpot_s, models, published)
    interval = _interval(rows, published)
    return EngineFit(
        coefficients=coefficients,
        without=_jackknife(rows, models, published),
        interval=interval,
        models_left_out=left_out_errors(rows, "model", published),
        devices_left_out=left_out_errors(rows, "device", published),
        in_sample=errors_of("none", rows.iterations @ coefficients, rows.tpot_s, interval),
    )


def _jackknife(rows: EndToEnd, models: Array, published: EngineSpeed | None) -> Array:
    """Coefficients without each model: of the rows, and of those that the published speed was fitted to."""
    without = [_minimum(*_rows(rows, models, ~out), published) for _, out in _each(models)]
    if published is not None:
        for centre in published.without:
            earlier = replace(published, coefficients=centre)
            without.append(_minimum(rows.iterations, rows.tpot_s, models, earlier))
    return np.array(without)


def left_out_errors(rows: EndToEnd, column: str, published: EngineSpeed | None = None) -> tuple[HeldOutErrors, ...]:
    """Errors on the rows of each value of a column, predicted from those of the others, and of a published speed."""
    groups = rows.frame[column].to_numpy(dtype=object)
    models = rows.frame["model"].to_numpy(dtype=object)
    errors = []
    for name, out in _each(groups):
        rest = rows.only(~out)
        if published is None and rest.frame["model"].nunique() < 2:
            continue
        predicted = rows.iterations[out] @ _minimum(*_rows(rows, models, ~out), published)
        errors.append(errors_of(str(name), predicted, rows.tpot_s[out], _interval(rest, published)))
    return tuple(errors)


def errors_of(group: str, predicted: Array, measured: Array, interval: tuple[float, float]) -> HeldOutErrors:
    """The errors of predictions, and how many measurements lie inside `interval` times the prediction."""
    ratio = predicted / measured
    error = np.abs(ratio - 1)
    inside = (measured >= interval[0] * predicted) & (measured <= interval[1] * predicted)
    return HeldOutErrors(
        group, len(ratio), float(np.median(error)), float(np.quantile(error, 0.9)), float(np.median(ratio)),
        int(inside.sum()),
    )  # fmt: skip


def _interval(rows: EndToEnd, published: EngineSpeed | None = None) -> tuple[float, float]:
    """Factors between which 95 % of measured times over predicted lie on models left out, each model weighing alike.

    The number of models is small, so the tails are stretched as Student's t is against the normal for that number;
    of fewer than three, the interval is at least that of the published speed.
    """
    models = rows.frame["model"].to_numpy(dtype=object)
    residuals, weights = [], []
    for _, out in _each(models):
        if (~out).sum() == 0 and published is None:
            continue
        predicted = rows.iterations[out] @ _minimum(*_rows(rows, models, ~out), published)
        residuals.append(np.log(rows.tpot_s[out] / predicted))
        weights.append(np.full(int(out.sum()), 1.0 / out.sum()))
    least = 1.96 * published.scatter if published is not None and len(residuals) < 3 else 0.0
    if not residuals:
        return float(np.exp(-least)), float(np.exp(least))
    pooled, weight = np.concatenate(residuals), np.concatenate(weights)
    order = np.argsort(pooled)
    place = (np.cumsum(weight[order]) - 0.5 * weight[order]) / weight.sum()
    low, high = np.interp(_TAILS, place, pooled[order])
    stretch = np.sqrt(1.0 + 1.0 / len(residuals))
    return float(np.exp(min(low * stretch, -least))), float(np.exp(max(high * stretch, least)))


def _minimum(
    terms: Array, seconds: Array, models: Sequence[object] | Array, published: EngineSpeed | None = None
) -> Array:
    """The coefficients of least robust misfit of ln(time)."""
    if published is None:
        centre, width = np.log([_PRIOR[name] for name in TERMS]), _WIDTH
    else:
        centre, width = np.log(np.maximum(published.coefficients, _LEAST)), _WIDTH_OF_PUBLISHED
    if not len(seconds):
        return np.exp(centre)
    names, place, count = np.unique(np.asarray(models, dtype=str), return_inverse=True, return_counts=True)
    weight = np.sqrt(len(place) / (len(names) * count[place]))
    observed = np.log(seconds)

    def residuals(log_c: Array) -> Array:
        off = (np.log(terms @ np.exp(log_c)) - observed) / _CORNER
        robust = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off * off) - 1))
        return np.concatenate([weight * robust, np.sqrt(_STRENGTH) * (log_c - centre) / width])

    def slopes(log_c: Array) -> Array:
        parts = terms * np.exp(log_c)
        total = parts.sum(axis=1)
        off = (np.log(total) - observed) / _CORNER
        root = np.sqrt(1 + off * off)
        robust = np.sqrt(2 * (root - 1))
        # d sqrt(2 (sqrt(1 + u^2) - 1)) / du = |u| / (root sqrt(2 (root - 1))), 1 at u = 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(np.abs(off) > 1e-6, np.abs(off) / (root * robust), 1.0)
        return np.concatenate([
            (weight * slope / _CORNER)[:, None] * parts / total[:, None],
            np.sqrt(_STRENGTH) / width * np.eye(len(centre)),
        ])  # fmt: skip

    return np.exp(least_squares(residuals, centre, slopes, max_nfev=200).x)


def _each(groups: Array) -> Iterator[tuple[object, Booleans]]:
    for name in pd.unique(pd.Series(groups)):
        yield name, groups == name


def _rows(rows: EndToEnd, models: Array, kept: Booleans) -> tuple[Array, Array, Array]:
    return rows.iterations[kept], rows.tpot_s[kept], models[kept]
