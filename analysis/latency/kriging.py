"""Kriging of a latency law: what the measured rows say of steps near them, beyond the law's few terms.

ln(measured / modelled) of each phase is a Gaussian process with the covariance of `scaling.serving.departures` and
independent noise of each row; its lengths, variance and noise are those of most posterior density (Rasmussen and
Williams 2006, eq. 5.8 and 5.9), lengths with a broad prior. What is drawn is the process without the noise: how fast
steps are, not what a stopwatch says once. Steps near measured ones are known better than the law alone knows them, and
steps that differ little depart alike, so prices that are compared share most of their error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from analysis.latency.table import LatencyTable
from scaling.arrays import Array, Booleans, Integers
from scaling.errors import InputError
from scaling.serving.departures import PLACE, Departures, Neighbours, PhaseDepartures, matern

PHASES = ("decode", "prefill")
_FEWEST_ROWS, _FEWEST_SHAPES = 24, 6  # of a phase, below which its departures are noise to us
_MOST_ROWS = 400  # of a phase: covariances have their square
_WAVES = 512  # of random Fourier features: covariances are right within 1 / sqrt(512) of the variance
_OUTLIER = 3.0  # robust standard deviations, to which larger departures are drawn
_LENGTH, _SPREAD = np.log(3.0), 1.5  # prior of ln length: 3 octaves, and a factor of 4.5 either way
_LEAST_NOISE = 0.01
_BOUNDS = [(np.log(0.1), np.log(100.0))] * len(PLACE) + [(-12.0, 0.0), (2 * np.log(_LEAST_NOISE), 0.0)]


@dataclass(frozen=True)
class Covariance:
    """Of departures: octaves over which they are alike by axis of `PLACE`, their variance, the noise's deviation."""

    lengths: tuple[float, ...]
    variance: float
    noise: float

    def __post_init__(self) -> None:
        if len(self.lengths) != len(PLACE) or not all(length > 0 for length in self.lengths):
            raise InputError(f"`lengths` are {len(PLACE)} positive numbers, found {list(self.lengths)}")
        if not self.variance >= 0 or not self.noise > 0:
            raise InputError(
                f"`variance` must be at least 0 and `noise` above, found {self.variance:g}, {self.noise:g}"
            )


@dataclass(frozen=True)
class MeasuredSteps:
    """Measured rows and how their departures covary.

    `design`: terms of the law over the measured time (rows, terms). `places`: log2 of `PLACE` (rows, 6). `decode`:
    whether a row is of decode, else of prefill. `covariances`: by phase; a phase that was measured too little has none.
    """

    design: Array
    places: Array
    decode: Booleans
    covariances: Mapping[str, Covariance]

    def __post_init__(self) -> None:
        rows = len(self.decode)
        if self.design.ndim != 2 or len(self.design) != rows or self.places.shape != (rows, len(PLACE)):
            raise InputError(
                f"`design` {self.design.shape}, `places` {self.places.shape} and `decode` ({rows},) are rows of the "
                f"same measurement; a place has {len(PLACE)} numbers"
            )
        if not (np.isfinite(self.design).all() and np.isfinite(self.places).all()):
            raise InputError("`design` and `places` are finite numbers")
        if unknown := [phase for phase in self.covariances if phase not in PHASES]:
            raise InputError(f"`covariances` of {unknown}; allowed: {', '.join(PHASES)}")

    def mean(self, coefficients: Array) -> Departures:
        """Departures from a law with these coefficients, as expected after the measurement."""
        return Departures(**{phase: rows.mean(coefficients) for phase, rows in self._phases.items()})

    def draws(self, coefficients: Array) -> list[Departures]:
        """A draw of the departures from each of several laws (laws, terms), by Matheron's rule (Wilson et al., arXiv
        2002.09309, eq. 9), the same whenever they are drawn."""
        rng = np.random.default_rng(len(self.decode))
        of_phases = {phase: rows.draws(coefficients, rng) for phase, rows in self._phases.items()}
        return [Departures(**{phase: drawn[i] for phase, drawn in of_phases.items()}) for i in range(len(coefficients))]

    @property
    def _phases(self) -> dict[str, _Phase]:
        rows = {phase: self.decode if phase == "decode" else ~self.decode for phase in self.covariances}
        return {
            phase: _Phase(self.design[rows[phase]], self.places[rows[phase]], covariance)
            for phase, covariance in self.covariances.items()
        }


@dataclass(frozen=True)
class _Phase:
    """The rows of one phase."""

    design: Array
    places: Array
    covariance: Covariance

    def mean(self, coefficients: Array) -> PhaseDepartures:
        weights = self._weights(departures_of(self.design, coefficients)[:, None])
        return PhaseDepartures(self._near(), tuple(weights[:, 0].tolist()))

    def draws(self, coefficients: Array, rng: np.random.Generator) -> list[PhaseDepartures]:
        frequencies = rng.standard_t(3, (_WAVES, len(PLACE))) / np.array(self.covariance.lengths)
        near = self._near(np.column_stack([frequencies, rng.uniform(0.0, 2 * np.pi, _WAVES)]))
        of_waves = rng.standard_normal((_WAVES, len(coefficients)))
        noise = self.covariance.noise * rng.standard_normal((len(self.places), len(coefficients)))
        observed = np.stack([departures_of(self.design, row) for row in coefficients], axis=1)
        weights = self._weights(observed - near.features(self.places) @ of_waves - noise)
        return [
            PhaseDepartures(near, tuple(one), tuple(waves))
            for one, waves in zip(weights.T.tolist(), of_waves.T.tolist(), strict=True)
        ]

    def _near(self, waves: Array | None = None) -> Neighbours:
        rows, covariance = tuple(map(tuple, self.places.tolist())), self.covariance
        of_waves = () if waves is None else tuple(map(tuple, waves.tolist()))
        return Neighbours(rows, covariance.lengths, covariance.variance, of_waves)

    def _weights(self, departures: Array) -> Array:
        """(covariance + noise)^-1 times departures (rows, columns)."""
        own = self.covariance.variance * matern(self.places, self.places, self.covariance.lengths)
        own += self.covariance.noise**2 * np.eye(len(own))
        return np.asarray(cho_solve(cho_factor(own), departures))


def measured_steps(table: LatencyTable, design: Array, coefficients: Array) -> MeasuredSteps | None:
    """The rows of a table as what departures are read off; None where no phase has enough of them."""
    places, decode = places_of(table), table.frame["phase"].eq("decode").to_numpy(bool)
    kept = np.zeros(len(table), dtype=bool)
    covariances = {}
    for phase in PHASES:
        rows = np.flatnonzero(decode == (phase == "decode"))
        if len(rows) < _FEWEST_ROWS or len(np.unique(table.shapes.to_numpy()[rows])) < _FEWEST_SHAPES:
            continue
        kept[rows := _some(rows)] = True
        covariances[phase] = estimate(places[rows], departures_of(design[rows], coefficients))
    return MeasuredSteps(design[kept], places[kept], decode[kept], covariances) if covariances else None


def told(
    covariances: Mapping[str, Covariance], table: LatencyTable, design: Array, coefficients: Array, out: Booleans
) -> Array:
    """Measured over modelled time of the rows `out` of a table, as the other rows tell it."""
    places, decode = places_of(table), table.frame["phase"].eq("decode").to_numpy(bool)
    factors = np.ones(len(table))
    for phase, covariance in covariances.items():
        of_phase = decode == (phase == "decode")
        known, asked = _some(np.flatnonzero(of_phase & ~out)), of_phase & out
        if len(known) and asked.any():
            factors[asked] = _Phase(design[known], places[known], covariance).mean(coefficients).factor(places[asked])
    return factors[out]


def _some(rows: Integers) -> Integers:
    """At most `_MOST_ROWS` of rows, evenly among them."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).round().astype(int)]


def places_of(table: LatencyTable) -> Array:
    """log2 of `PLACE` of the rows; k is 1 where nothing is routed."""
    columns = {name: table.column(name) for name in PLACE}
    columns["top_k"] = np.where(columns["n_experts"] > 1, columns["top_k"], 1.0)
    return np.log2(np.stack([columns[name] for name in PLACE], axis=1))


def departures_of(design: Array, coefficients: Array) -> Array:
    """ln(measured / modelled) of rows; outliers, as of a disturbed machine, drawn to three robust deviations."""
    found = -np.log(design @ coefficients)
    centre = np.median(found)
    spread = _OUTLIER * np.median(np.abs(found - centre)) / 0.6745
    return np.asarray(np.clip(found, centre - spread, centre + spread))


def estimate(places: Array, departures: Array) -> Covariance:
    """The covariance under which these departures are most likely, with a prior of the lengths."""
    apart = np.abs(places[:, None] - places[None])
    start = np.r_[np.full(len(PLACE), _LENGTH), np.full(2, np.log(max(float(np.var(departures)) / 2, 1e-4)))]
    found = minimize(_against, start, (apart, departures), jac=True, method="L-BFGS-B", bounds=_BOUNDS).x
    return Covariance(tuple(np.exp(found[:-2]).tolist()), float(np.exp(found[-2])), float(np.sqrt(np.exp(found[-1]))))


def _against(logs: Array, apart: Array, departures: Array) -> tuple[float, Array]:
    """Minus the log posterior density of ln lengths, ln variance and ln noise^2, and its gradient."""
    lengths, (variance, noise) = np.exp(logs[:-2]), np.exp(logs[-2:])
    away = np.sqrt(3.0) * apart / lengths
    signal = variance * np.prod(1 + away, axis=-1) * np.exp(-away.sum(axis=-1))
    factor = cho_factor(signal + noise * np.eye(len(departures)), lower=True)
    weights = cho_solve(factor, departures)
    inverse = cho_solve(factor, np.eye(len(departures)))
    beyond = (logs[:-2] - _LENGTH) / _SPREAD
    value = 0.5 * departures @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * beyond @ beyond
    slope = 0.5 * (inverse - np.outer(weights, weights))
    # d ln((1 + a) exp(-a)) / d ln l = a^2 / (1 + a)
    of_lengths = np.array([np.sum(slope * signal * a**2 / (1 + a)) for a in np.moveaxis(away, -1, 0)])
    of_variances = [np.sum(slope * signal), noise * np.trace(slope)]
    return float(value), np.concatenate([of_lengths + beyond / _SPREAD, of_variances])
