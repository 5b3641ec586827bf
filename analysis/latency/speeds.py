"""Speeds: draws of how fast a device is, whatever measured it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist

import numpy as np

from analysis.latency.kriging import MeasuredSteps
from analysis.latency.speed_file import load_speed
from scaling.arrays import Array
from scaling.serving.departures import Departures
from scaling.serving.engine_speed import EngineSpeed
from scaling.serving.published_speeds import PREFIX, default_speed, published_speed
from scaling.serving.service import Service
from scaling.serving.step_time import ASSUMED, LEAST, Efficiency

MOST_SPEEDS = 48  # draws of a device's speed that are met; each has a table of its own
_QUANTILES = 101
ASSUMED_SPEED = "assumed"
"""The name of shares of the peaks that nobody measured (`scaling.serving.step_time.ASSUMED`)."""


@dataclass(frozen=True)
class Speeds:
    """How sure the speed of a device is: draws of `Efficiency.coefficients` without communication, one a row, and the
    scatter of what it makes of a shape that was not measured, quantiles of measured over modelled time.

    Every expert count is a shape of its own: it meets the draws with a scatter in an order of its own. With `steps`
    there is more to say than that scatter: each draw has departures of its own, conditioned on what was measured.
    """

    coefficients: Array
    ratios: Array
    steps: MeasuredSteps | None = None

    def some(self, most: int = MOST_SPEEDS) -> Speeds:
        """At most so many draws, evenly among them."""
        count = min(most, len(self.coefficients))
        rows = np.linspace(0, len(self.coefficients) - 1, count).round().astype(int)
        return replace(self, coefficients=self.coefficients[rows])

    def ratios_of(self, n_experts: int) -> Array:
        """The scatter of one expert count, a value for each draw: evenly spread quantiles in an order of its own."""
        count = len(self.coefficients)
        even = np.quantile(self.ratios, (np.arange(count) + 0.5) / count)
        return np.random.default_rng([n_experts, count]).permutation(even)

    @cached_property
    def _departures(self) -> list[Departures]:
        return [] if self.steps is None else self.steps.draws(self.coefficients)

    def services(self, service: Service, n_experts: int) -> list[Service]:
        """The service at the speed of each draw, with the scatter of models of this E."""
        scatter = self.ratios_of(n_experts) if self.steps is None else np.ones(len(self.coefficients))
        within = np.maximum(self.coefficients * scatter[:, None], LEAST[:-1])  # no draw is faster than the data sheet
        departures = self._departures or [service.departures] * len(within)
        source = service.efficiency.source
        return [
            replace(service, efficiency=Efficiency.of(coefficients, source), departures=departed)
            for coefficients, departed in zip(within, departures, strict=True)
        ]


@dataclass(frozen=True)
class EngineSpeeds(Speeds):
    """The same of a serving engine: draws of the coefficients of `EngineSpeed`, and its scatter.

    Models of one lineage that differ in E alone are more alike than two models of the measurement: half of the variance
    of the scatter is taken as common to all E, the other half is each E's own. That half is an assumption.
    """

    @classmethod
    def of(cls, speed: EngineSpeed, count: int = MOST_SPEEDS) -> EngineSpeeds:
        """So many draws about an engine's speed."""
        normal = _normal_quantiles((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
        return cls(speed.draws(count), np.exp(speed.scatter * normal))

    def ratios_of(self, n_experts: int) -> Array:
        common, own = np.log(super().ratios_of(0)), np.log(super().ratios_of(n_experts))
        return np.exp(np.sqrt(0.5) * (common + own))

    def services(self, service: Service, n_experts: int) -> list[Service]:
        if service.engine is None:
            return [service] * len(self.coefficients)
        drawn = self.coefficients * self.ratios_of(n_experts)[:, None]
        return [
            replace(service, engine=replace(service.engine, coefficients=tuple(row.tolist()), without=()))
            for row in drawn
        ]


def _normal_quantiles(levels: Array) -> Array:
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def with_speed(
    service: Service, device: str, speed: EngineSpeed | str | Path | None = None
) -> tuple[Service, Speeds | None]:
    """The service at an engine's speed, and the draws of that speed; None: nothing was measured.

    `speed` is one, its name (`published:vllm-h100`), a file of one, or `assumed`; None: the published speed of the
    device where it has one, unless the service has a speed of its own. Raises InputError.
    """
    if speed is None:
        if service.engine is not None:
            speed = service.engine
        elif service.efficiency == ASSUMED:
            speed = default_speed(device)
    elif isinstance(speed, Path) or (isinstance(speed, str) and speed != ASSUMED_SPEED):
        speed = published_speed(str(speed)) if str(speed).startswith(PREFIX) else load_speed(speed)
    if speed is None or isinstance(speed, str):
        return service, None
    return replace(service, engine=speed), EngineSpeeds.of(speed) if speed.without else None
