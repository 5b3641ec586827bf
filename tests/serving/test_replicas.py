"""Replicas, fleets and prices against worked examples of the laws sheet (4.1 and 4.4), brute force and hand counts."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from served import IDEAL, SHEET, TOY, dense

from scaling.errors import InputError
from scaling.serving.devices import device
from scaling.serving.replicas import (
    METRICS,
    SECONDS_A_MONTH,
    cheapest,
    demand_of,
    fewest_devices,
    layouts,
    least_price,
    offer,
    price,
    replica,
    sustained,
    throughput,
)
from scaling.serving.service import Layout, Service
from scaling.serving.step_time import Efficiency
from scaling.serving.steps import decode_seconds, largest_batch, prefill_seconds


@pytest.mark.parametrize(
    ("devices", "batch", "latency", "rate", "usd_per_million"),
    [(1, 474.0954, 0.114431, 4142.225, 0.134120), (2, 1109.8783, 0.130688, 8485.874, 0.130937)],
)
def test_steady_state_of_the_sheet(devices, batch, latency, rate, usd_per_million):
    # Section 4.1 with its synthetic latencies: L_P(x) = (.010 + .020 x) / G^.8, L_D(b) = (.020 + 1e-4 b) / G^.8.
    fits = largest_batch(TOY, SHEET, IDEAL, Layout(devices))
    assert fits == pytest.approx(batch, rel=1e-6)
    whole = np.floor(fits)
    prefill_s = (0.010 + 0.020 * whole / 256) / devices**0.8
    decode_s = (0.020 + 1e-4 * whole) / devices**0.8
    assert prefill_s + decode_s == pytest.approx(latency, rel=1e-5)
    assert throughput(whole, prefill_s, decode_s) == pytest.approx(rate, rel=1e-5)
    assert devices * 2 / 3600 / throughput(whole, prefill_s, decode_s) * 1e6 == pytest.approx(usd_per_million, rel=1e-5)


@pytest.mark.parametrize(
    ("demand", "replicas", "usd_per_million"),
    [(100, 1, 5.5556), (1000, 1, 0.55556), (7000, 1, 0.079365), (7001, 2, 0.158707), (70_000, 10, 0.079365),
     (100_000, 15, 0.083333)],
)  # fmt: skip
def test_price_at_demand_of_the_sheet(demand, replicas, usd_per_million):
    whole, usd = price(1, 1e4, SHEET, Service(utilisation=0.7), demand)
    assert whole == replicas
    assert usd * 1e6 == pytest.approx(usd_per_million, rel=1e-5)


def test_more_experts_of_one_size_never_cost_less():
    """At equal active parameters, and from 64 experts on, so that every number of devices can split them."""
    h100, each = device("h100"), (TOY.n_total - TOY.n_active) / 56
    more = [replace(TOY, n_experts=e, n_total=TOY.n_active + (e - 8) * each) for e in (64, 96, 128, 256, 512, 1024)]
    usd = [float(cheapest(sizes, h100).usd_per_token) for sizes in more]
    assert all(later >= earlier for earlier, later in pairwise(usd))
    assert usd[-1] > usd[0]


def test_the_offer_chosen_is_the_cheapest_of_all_layouts():
    sizes = replace(
        TOY, n_experts=600, n_total=TOY.n_active + 592 * TOY.n_expert
    )  # 182 GB in bf16: 4 of 80 GB at least
    best = cheapest(sizes, SHEET)
    every = layouts(Service(), 600)
    each = [offer(sizes, SHEET, layout=Layout(*row)) for row in zip(every.n_devices, every.by_expert, strict=True)]
    assert best.usd_per_token == min(one.usd_per_token for one in each)
    assert best.replica.n_devices >= 4
    assert np.isinf(each[0].usd_per_token)
    assert each[0].replica.batch == 0
    assert fewest_devices(sizes, SHEET) == 4


def test_a_price_is_devices_times_rent_over_tokens():
    """By hand for one layout: b = floor(b_max), an iteration decodes b and prefills b/256, replicas half busy."""
    service, layout = Service(max_batch=10**6), Layout(2)
    one = offer(TOY, SHEET, service, layout)
    batch = np.floor(largest_batch(TOY, SHEET, service, layout))
    step = decode_seconds(TOY, SHEET, batch, 640, service, layout) + prefill_seconds(
        TOY, SHEET, batch / 256, service, layout
    )
    assert one.replica.batch == batch
    assert one.replica.tpot_s == pytest.approx(step, rel=1e-12)
    assert one.usd_per_token == pytest.approx(2 * 2 / 3600 / (0.5 * batch / step), rel=1e-12)


def test_a_model_that_fits_nowhere_has_an_infinite_price():
    found = cheapest(replace(TOY, n_experts=10**6, n_total=1.5e14), SHEET)
    assert np.isinf(found.usd_per_token)
    assert found.replica.output_throughput == 0
    assert np.isinf(fewest_devices(replace(TOY, n_experts=10**6, n_total=1.5e14), SHEET))


def test_price_is_inverse_to_utilisation_and_linear_in_rent():
    half, full = (cheapest(TOY, SHEET, Service(utilisation=u)) for u in (0.5, 1.0))
    assert half.usd_per_token == pytest.approx(2 * full.usd_per_token)
    triple = cheapest(TOY, replace(SHEET, usd_per_hour=6.0), Service(utilisation=1.0))
    assert triple.usd_per_token == pytest.approx(3 * full.usd_per_token)


@pytest.mark.parametrize("limits", [{}, {"tpot_s": 0.02, "ttft_s": 0.2}])
def test_arrays_of_sizes_are_priced_one_by_one(limits):
    active, service = np.geomspace(1e7, 1e11, 9), Service(**limits)
    together = cheapest(replace(dense(1.0), n_active=active, n_total=active), SHEET, service)
    one_by_one = [cheapest(dense(n), SHEET, service) for n in active]
    np.testing.assert_allclose(together.usd_per_token, [one.usd_per_token for one in one_by_one], rtol=1e-12)
    np.testing.assert_array_equal(together.replica.n_devices, [one.replica.n_devices for one in one_by_one])


@pytest.mark.parametrize("limits", [{"tpot_s": 0.012}, {"ttft_s": 0.028}, {"tpot_s": 0.015, "ttft_s": 0.05}])
def test_the_batch_within_limits_is_the_largest_that_meets_them(limits):
    """Compared with every batch in turn."""
    service = Service(max_batch=200, **limits)
    found = replica(TOY, SHEET, service)

    def keeps(batch):
        one = replica(TOY, SHEET, Service(max_batch=batch))
        return one.tpot_s <= limits.get("tpot_s", 1e9) and one.ttft_s <= limits.get("ttft_s", 1e9)

    kept = [batch for batch in range(1, 201) if keeps(batch)]
    assert found.batch == max(kept)
    assert max(kept) < 200  # the limit binds
    assert found.tpot_s <= limits.get("tpot_s", np.inf)
    assert found.ttft_s <= limits.get("ttft_s", np.inf)
    assert found.request_goodput == pytest.approx(found.batch / found.tpot_s / 256)


def test_a_limit_that_cannot_be_met_leaves_no_replica():
    found = cheapest(TOY, SHEET, Service(tpot_s=1e-6))
    assert found.replica.batch == 0
    assert np.isinf(found.usd_per_token)


def test_tighter_limits_never_cost_less():
    usd = [float(cheapest(TOY, SHEET, Service(tpot_s=limit)).usd_per_token) for limit in np.geomspace(2e-3, 0.1, 12)]
    assert all(later <= earlier for earlier, later in pairwise(usd))


def test_an_idle_device_costs_as_much_as_a_busy_one():
    """Below one replica the monthly cost is the same at every load, so the price per token is inverse to the load."""
    month = [float(cheapest(TOY, SHEET, demand=d).usd_per_token) * d * SECONDS_A_MONTH for d in (1.0, 10.0, 100.0)]
    assert month == pytest.approx([2.0 * SECONDS_A_MONTH / 3600] * 3)


def test_at_a_large_load_the_price_approaches_that_at_the_utilisation():
    """Rounding up to whole replicas adds at most one in a thousand."""
    without_demand = cheapest(TOY, SHEET)
    demand = 1000 * float(without_demand.replica.output_throughput) * Service().utilisation
    at_demand = cheapest(TOY, SHEET, demand=demand)
    assert 1 <= at_demand.usd_per_token / without_demand.usd_per_token * (1 + 1e-9) <= 1.0011


def test_a_fleet_stays_within_max_fleet():
    """A demand for 10 replicas of one device each has a finite price with 10 devices and an infinite one with 9."""
    demand = 9.5 * float(replica(TOY, SHEET).output_throughput) * Service().utilisation
    assert price(1, replica(TOY, SHEET).output_throughput, SHEET, Service(max_fleet=10), demand)[0] == 10
    assert np.isfinite(offer(TOY, SHEET, Service(max_fleet=10), demand=demand).usd_per_token)
    assert np.isinf(offer(TOY, SHEET, Service(max_fleet=9), demand=demand).usd_per_token)


def test_a_replica_below_capacity_runs_at_the_batch_of_its_load():
    full = replica(TOY, SHEET)
    for share in (0.1, 0.5, 0.9):
        demand = share * float(full.output_throughput)
        found = sustained(TOY, SHEET, Service(), Layout(), demand)
        step = decode_seconds(TOY, SHEET, found.batch, 640, Service()) + prefill_seconds(
            TOY, SHEET, found.batch / 256, Service()
        )
        assert found.batch == pytest.approx(demand * step, rel=1e-9)
        assert found.tpot_s < full.tpot_s
    with pytest.raises(InputError, match="at most"):
        sustained(TOY, SHEET, Service(), Layout(), 2 * float(full.output_throughput))


def test_requests_of_a_month_by_hand():
    # 1e6 requests of 256 tokens in 365.25/12 days of 86,400 s.
    assert demand_of(1e6) == pytest.approx(2.56e8 / (30.4375 * 86_400))


def test_end_to_end_latency_is_ttft_plus_the_other_tokens():
    one = replica(TOY, SHEET)
    assert one.e2el_s == pytest.approx(one.ttft_s + 255 * one.tpot_s)
    assert (one.e2el_s - one.ttft_s) / 255 == pytest.approx(one.tpot_s)  # tpot as vLLM defines it
    assert set(METRICS) >= {"ttft", "tpot", "e2el", "output_throughput", "request_goodput"}


def test_terms_of_an_iteration_give_its_time_at_any_efficiency():
    """Draws of the efficiency are priced in this way."""
    other = Efficiency(0.3, 0.2, 1e-4, 1e-5)
    terms = replica(TOY, SHEET).terms
    assert other.coefficients() @ terms == pytest.approx(replica(TOY, SHEET, Service(efficiency=other)).tpot_s)


def test_a_price_without_a_load_is_refused():
    with pytest.raises(InputError, match="demand=0"):
        price(1, 1e4, SHEET, Service(), 0)


def test_a_price_does_not_depend_on_what_was_asked_before():
    """Capacity is kept between questions: under every rent, load and limit it equals the least over single layouts."""
    for service in (Service(tpot_s=0.02), Service(tpot_s=0.02, utilisation=1.0), Service(tpot_s=0.005)):
        for rent, demand in ((2.0, None), (6.0, None), (2.0, 1e4)):
            on, every = replace(SHEET, usd_per_hour=rent), layouts(service, TOY.n_experts)
            each = [Layout(*row) for row in zip(every.n_devices, every.by_expert, strict=True)]
            least = min(offer(TOY, on, service, layout, demand).usd_per_token for layout in each)
            assert cheapest(TOY, on, service, demand).usd_per_token == pytest.approx(least, rel=1e-12)
            assert least_price(TOY, on, service, demand) == pytest.approx(least, rel=1e-12)
