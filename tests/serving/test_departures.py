"""Departures from a law of time: kriging's closed forms, and prices that follow them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gamma, kv

from scaling.serving.departures import Departures, Neighbours, PhaseDepartures, matern, times
from scaling.serving.devices import device
from scaling.serving.replicas import cheapest
from scaling.serving.service import SERVICE, Layout, ModelSizes
from scaling.serving.steps import communication_seconds, decode_seconds, prefill_seconds

ON = device("a100")
SIZES = ModelSizes(np.array([1e9, 2e9]), np.array([7e9, 14e9]), 1e5, 24.0, 2048.0, n_experts=8, top_k=2)
LENGTHS = (2.0, 3.0, 4.0, 5.0, 1.0, 2.0)
EVERYWHERE = Neighbours(((0.0,) * 6,), (1e9,) * 6, 1.0)  # covariance 1 from end to end


def everywhere(factor: float) -> PhaseDepartures:
    return PhaseDepartures(EVERYWHERE, (float(np.log(factor)),))


def test_a_step_departs_by_the_weighted_covariances_with_those_measured():
    measured = np.log2([[8, 2, 64, 2, 1, 64], [32, 2, 128, 4, 8, 128]])
    departures = PhaseDepartures(Neighbours(tuple(map(tuple, measured.tolist())), LENGTHS, 0.04), (1.5, -0.5))
    asked = np.log2([16.0, 2.0, 128.0, 4.0, 8.0, 64.0])
    # Matern's covariance by its general form, with the modified Bessel function (Rasmussen and Williams, eq. 4.14).
    away = np.sqrt(3) * np.abs(asked - measured) / LENGTHS
    of_axes = 2**-0.5 / gamma(1.5) * np.maximum(away, 1e-9) ** 1.5 * kv(1.5, np.maximum(away, 1e-9))
    covariances = 0.04 * of_axes.prod(axis=1)
    expected = np.exp(1.5 * covariances[0] - 0.5 * covariances[1])
    assert times(departures, tuple(2.0**asked)) == pytest.approx(expected, rel=1e-12)
    assert times(departures, tuple(2.0 ** (asked + 500))) == pytest.approx(1.0, abs=1e-12), "the law alone, far away"
    assert times(None, tuple(2.0**asked)) == 1.0


def test_many_places_are_worked_out_in_pieces_of_the_same_numbers(monkeypatch):
    departures = PhaseDepartures(Neighbours(((1.0,) * 6, (3.0,) * 6), LENGTHS, 0.04), (1.5, -0.5))
    place = (8, 2.0, np.geomspace(64, 4096, 50)[:, None], 4.0, np.arange(1.0, 9.0), 100)
    whole = times(departures, place)
    monkeypatch.setattr("scaling.serving.departures._TOGETHER", 6)
    assert np.array_equal(times(departures, place), whole)
    assert whole.shape == (50, 8)
    one = times(departures, (8, 2.0, 64.0, 4.0, 3.0, 100))
    assert whole[0, 2] == pytest.approx(one, rel=1e-15)


def test_a_long_row_of_models_is_worked_out_between_nodes():
    departures = PhaseDepartures(Neighbours(((1.0, 1.0, 8.0, 2.0, 2.0, 6.0), (3.0,) * 6), LENGTHS, 0.04), (1.5, -0.5))
    width = np.geomspace(32, 4096, 1000)
    place = (8, 2.0, width, np.sqrt(width), np.arange(1.0, 4.0)[:, None], 100)
    found = times(departures, place)
    one_by_one = [
        times(departures, (8, 2.0, width[i : i + 1], np.sqrt(width[i : i + 1]), place[4], 100))
        for i in range(0, 1000, 37)
    ]
    # Linear between nodes h = .055 octaves apart is off by h^2 |f''| / 8, |f''| <= 3 |w| v / l^2 = .02 per axis.
    assert found[:, ::37] == pytest.approx(np.concatenate(one_by_one, axis=1), abs=1e-4)


def test_random_features_have_the_covariance_on_average():
    rng = np.random.default_rng(0)
    count = 200_000
    waves = np.column_stack([rng.standard_t(3, (count, 6)) / LENGTHS, rng.uniform(0, 2 * np.pi, count)])
    near = Neighbours((), LENGTHS, 0.04, tuple(map(tuple, waves.tolist())))
    places = rng.uniform(0, 4, (5, 6))
    features = near.features(places)
    # A product of two features has a standard deviation of at most 2 v / sqrt(count) = 1.8e-4 in the mean.
    assert features @ features.T == pytest.approx(0.04 * matern(places, places, LENGTHS), abs=8e-4)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_departure_that_is_the_same_everywhere_scales_the_price(overlap):
    plain = replace(SERVICE, overlap=overlap, max_devices=1)
    slower = replace(plain, departures=Departures(everywhere(1.25), everywhere(1.25)))
    # One prior observation at the origin with weight ln 1.25 departs by that wherever the covariance is 1.
    assert decode_seconds(SIZES, ON, 8.0, 512.0, slower) == pytest.approx(
        1.25 * decode_seconds(SIZES, ON, 8.0, 512.0, plain)
    )
    assert prefill_seconds(SIZES, ON, 2.0, slower) == pytest.approx(1.25 * prefill_seconds(SIZES, ON, 2.0, plain))
    prices = [np.asarray(cheapest(SIZES, ON, service).usd_per_token) for service in (plain, slower)]
    assert prices[1] == pytest.approx(1.25 * prices[0], rel=1e-9)


def test_phases_depart_by_themselves_and_communication_not_at_all():
    plain = replace(SERVICE, max_devices=1)
    decode = replace(plain, departures=Departures(decode=everywhere(2.0)))
    assert decode_seconds(SIZES, ON, 8.0, 512.0, decode) == pytest.approx(
        2 * decode_seconds(SIZES, ON, 8.0, 512.0, plain)
    )
    assert prefill_seconds(SIZES, ON, 2.0, decode) == pytest.approx(prefill_seconds(SIZES, ON, 2.0, plain), rel=1e-15)
    two = Layout(2)
    sent = communication_seconds(SIZES, ON, 8.0, two)
    times_two = decode_seconds(SIZES, ON, 8.0, 512.0, decode, two) - sent
    assert times_two == pytest.approx(2 * (decode_seconds(SIZES, ON, 8.0, 512.0, plain, two) - sent))
    assert np.all(np.asarray(sent) > 0)
