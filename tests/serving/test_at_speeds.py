"""Prices at many speeds of one engine are those of each speed alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.latency.speeds import EngineSpeeds, Speeds
from scaling.serving.at_speeds import prices_and_steps
from scaling.serving.devices import device
from scaling.serving.families import architecture_family
from scaling.serving.published_speeds import published_speed
from scaling.serving.replicas import cheapest
from scaling.serving.service import Service
from scaling.serving.step_time import ASSUMED

H100, SPEED = device("h100"), published_speed("published:vllm-h100")
SIZES = np.geomspace(1e8, 1e11, 40)


@pytest.mark.parametrize("limits", [{}, {"tpot_s": 0.03}, {"ttft_s": 0.05}, {"tpot_s": 0.05, "apart": True}])
@pytest.mark.parametrize(("family", "experts"), [("deepseek", 64), ("llama", 1)])
def test_engines(limits, family, experts):
    sizes = architecture_family(family).sizes(SIZES, experts)
    services = EngineSpeeds.of(SPEED, 24).services(Service(engine=SPEED, **limits), experts)
    usd, steps = prices_and_steps(sizes, H100, services)
    for row in (0, 11, 23):  # beside each other in different batches of draws
        alone = cheapest(sizes, H100, services[row])
        held = np.isfinite(alone.usd_per_token)
        assert np.array_equal(np.isfinite(usd[row]), held)
        off = np.abs(usd[row][held] / alone.usd_per_token[held] - 1)
        assert np.median(off) < 1e-6
        assert np.quantile(off, 0.9) < 0.01
        if "tpot_s" in limits:
            assert (steps[row][held] <= limits["tpot_s"] * (1 + 1e-9)).all()


def test_a_load_takes_whole_replicas_at_every_speed():
    sizes = architecture_family("mixtral").sizes(SIZES[:8], 8)
    services = EngineSpeeds.of(SPEED, 3).services(Service(engine=SPEED), 8)
    for given, found in zip(services, prices_and_steps(sizes, H100, services, 1e5)[0], strict=True):
        assert found == pytest.approx(cheapest(sizes, H100, given, 1e5).usd_per_token, rel=1e-6)


def test_speeds_that_are_no_engines_are_priced_one_by_one():
    slow = replace(ASSUMED, bandwidth_share=0.3)
    services = Speeds(np.array([each.coefficients()[:-1] for each in (ASSUMED, slow)]), np.ones(3)).services(
        Service(), 8
    )
    sizes = architecture_family("mixtral").sizes(SIZES[:4], 8)
    usd, steps = prices_and_steps(sizes, H100, services)
    assert (usd[1] > usd[0]).all()
    assert steps[1] == pytest.approx(cheapest(sizes, H100, services[1]).replica.tpot_s)
