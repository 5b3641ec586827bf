"""Draws of an engine's speed: about the estimate, as wide as its scatter, more alike within a lineage than without."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.latency.speeds import EngineSpeeds
from scaling.serving.published_speeds import published_speed
from scaling.serving.service import Service

SPEED = published_speed("published:vllm-h100")


def test_services_at_draws_have_engines_about_the_estimate():
    speeds = EngineSpeeds.of(SPEED, 2_000)
    services = speeds.services(Service(engine=SPEED), 64)
    drawn = np.log([service.engine.coefficients for service in services]) - np.log(SPEED.coefficients)
    assert np.median(drawn) == pytest.approx(0.0, abs=0.02)
    least = np.log(SPEED.draws(2_000)).std(axis=0)  # the fit's own, to which the scatter of an unseen model is added
    assert drawn.std(axis=0) == pytest.approx(np.hypot(least, SPEED.scatter), rel=0.05)


def test_half_of_the_scatter_is_common_to_all_expert_counts():
    speeds = EngineSpeeds.of(SPEED, 2_000)
    logs = np.log([speeds.ratios_of(e) for e in (1, 8, 64)])
    assert logs.std(axis=1) == pytest.approx(SPEED.scatter, rel=0.05)
    assert np.corrcoef(logs)[np.triu_indices(3, 1)] == pytest.approx(0.5, abs=0.07)


def test_a_service_without_an_engine_is_left_alone():
    assert EngineSpeeds.of(SPEED, 3).services(Service(), 8) == [Service()] * 3
