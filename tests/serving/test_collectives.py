"""Communication between devices: published magnitudes, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.serving.collectives import (
    COLLECTIVES,
    HIGH_THROUGHPUT,
    LOW_LATENCY,
    all_reduce_seconds,
    collective_seconds,
    dispatch_and_combine,
    exchange_seconds,
)
from scaling.serving.devices import device

H200, H800 = device("h200"), device("h800")
TOKENS = np.geomspace(1, 1e5, 60)


def test_small_messages_take_the_microseconds_that_are_measured():
    """H200: an all-reduce over 8 devices 4.7 to 10 us up to 128 k elements; dispatch and combine 24.5 us of a token and
    103 us of 128 (d 7168, k 8)."""
    assert all_reduce_seconds(128.0, 8, H200) == pytest.approx(5.2e-6, rel=0.1)
    assert all_reduce_seconds(128e3, 8, H200) < 10e-6
    assert exchange_seconds(1.0, 8, 7168, 8, H200) == pytest.approx(24.5e-6, rel=0.2)
    assert exchange_seconds(128.0, 8, 7168, 8, H200) == pytest.approx(103e-6, rel=0.15)


@pytest.mark.parametrize(
    ("devices", "dispatch_us", "combine_us"), [(16, 118, 195), (32, 155, 273), (64, 173, 314), (256, 194, 360)]
)
def test_exchanges_over_nodes_agree_with_those_that_deepep_publishes(devices, dispatch_us, combine_us):
    """H800, 128 tokens, d 7168, k 8 (docs/legacy.md of DeepEP)."""
    there, back = dispatch_and_combine(LOW_LATENCY, 128.0, 8, 7168, devices, H800)
    assert 1e6 * there == pytest.approx(dispatch_us, rel=0.12)
    assert 1e6 * back == pytest.approx(combine_us, rel=0.12)


@pytest.mark.parametrize("devices", [2, 8, 32, 144])
def test_time_grows_with_tokens_and_the_kernels_of_throughput_win_at_many(devices):
    seconds = exchange_seconds(TOKENS, 8, 7168, devices, H800)
    assert (np.diff(seconds) > 0).all()
    fast, wide = (
        sum(dispatch_and_combine(which, TOKENS, 8, 7168, devices, H800)) for which in (LOW_LATENCY, HIGH_THROUGHPUT)
    )
    assert fast[0] < wide[0]
    if devices >= 8:  # on two devices k copies reach one other device, or half of them leave: alike
        assert wide[-1] < fast[-1]


def test_one_device_says_nothing_and_a_node_is_faster_than_the_fabric():
    assert exchange_seconds(64.0, 8, 4096, 1, H200) == 0
    for kind in COLLECTIVES.values():
        assert collective_seconds(kind, 1e6, 1, H200) == 0
        assert collective_seconds(kind, 1e6, 8, H200) < collective_seconds(kind, 1e6, 16, H200)
    assert exchange_seconds(64.0, 8, 4096, 8, H200) < exchange_seconds(64.0, 8, 4096, 16, H200)
