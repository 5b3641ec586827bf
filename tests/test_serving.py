"""The serving model against the arithmetic of the laws sheet (sections 0.5, 4.1, 4.2, 4.4) and known cost mistakes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import cost
from scaling.config import ModelConfig
from scaling.errors import InputError
from scaling.hardware import Device, device
from scaling.serving import (
    ModelSizes,
    Service,
    decode_seconds,
    distinct_experts,
    largest_batch,
    price_at_demand,
    serving_cost,
    throughput,
    training_usd,
    weight_bytes,
    weight_bytes_read,
)

# The toy model of section 4: d 2048, 24 layers, E 64, k 8, expert 3 d 1024, attention 4 d^2, router d E, vocabulary
# 50304 with tied head.
D, LAYERS, E, K = 2048, 24, 64, 8
EXPERT, SHARED, ROUTER = 3 * D * 1024, LAYERS * 4 * D * D + 50304 * D, LAYERS * D * E
TOY = ModelSizes(
    n_active=SHARED + LAYERS * K * EXPERT, n_total=SHARED + LAYERS * E * EXPERT, kv_elements_per_token=2 * LAYERS * D,
    n_layers=LAYERS, d_model=D, n_experts=E, top_k=K, n_router=ROUTER,
)  # fmt: skip
SHEET = Device("sheet", "as in section 4.2", 9.89e14, 3.35e12, 80e9, 2.0, "bfloat16", "laws sheet", "laws sheet")
IDEAL = Service(prompt=512, generated=256, bandwidth_share=1, flops_share=1, speedup_power=1, utilisation=1)


def test_the_toy_is_the_model_of_the_sheet():
    assert TOY.n_total + ROUTER == 10_172_497_920
    assert TOY.n_active + ROUTER == 1_716_781_056
    assert TOY.kv_elements_per_token * 2 == 196_608
    assert TOY.n_expert == pytest.approx(LAYERS * EXPERT)


@pytest.mark.parametrize(
    ("n_experts", "top_k", "batch", "touched"),
    [(8, 2, 1, 2.0), (8, 2, 4, 5.46875), (16, 2, 4, 6.62109375), (32, 2, 8, 12.904976837), (64, 8, 16, 56.443706431),
     (128, 8, 32, 111.771035344), (256, 8, 64, 222.442487686)],
)  # fmt: skip
def test_distinct_experts_of_the_sheet(n_experts, top_k, batch, touched):
    assert distinct_experts(n_experts, top_k, batch) == pytest.approx(touched, rel=1e-8)


def test_distinct_experts_against_counting():
    # Independent oracle: draw k of E for each of b tokens and count.
    rng = np.random.default_rng(0)
    draws = [len(np.unique([rng.choice(16, 3, replace=False) for _ in range(6)])) for _ in range(4000)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - distinct_experts(16, 3, 6)) < 4 * error


@given(st.integers(1, 256), st.integers(1, 16), st.integers(1, 4096))
def test_distinct_experts_lie_between_k_and_all(n_experts, top_k, batch):
    top_k = min(top_k, n_experts)
    touched = distinct_experts(n_experts, top_k, batch)
    assert top_k * (1 - 1e-9) <= touched <= n_experts * (1 + 1e-9)
    assert distinct_experts(n_experts, top_k, batch + 1) >= touched * (1 - 1e-12)


@pytest.mark.parametrize(
    ("batch", "weights_gb", "cache_gb", "memory_us", "compute_us", "rate", "usd_per_million"),
    [(1, 3.4336, 0.2013, 1085.04, 3.675, 921.6, 0.60280), (4, 9.0157, 0.8053, 2931.63, 14.701, 1364.4, 0.40717),
     (16, 18.0631, 3.2212, 6353.52, 58.805, 2518.3, 0.22061), (64, 20.3412, 12.8849, 9918.25, 235.220, 6452.8, 0.08610),
     (256, 20.3450, 51.5396, 21458.09, 940.881, 11930.2, 0.04657)],
)  # fmt: skip
def test_memory_bound_decode_of_the_sheet(batch, weights_gb, cache_gb, memory_us, compute_us, rate, usd_per_million):
    assert weight_bytes_read(TOY, batch, 2) / 1e9 == pytest.approx(weights_gb, rel=1e-4)
    assert batch * 1024 * TOY.kv_elements_per_token * 2 / 1e9 == pytest.approx(cache_gb, rel=3e-4)  # 4 digits
    seconds = decode_seconds(TOY, SHEET, batch, 1024, IDEAL)
    assert seconds * 1e6 == pytest.approx(memory_us, rel=1e-4)
    # The other ceiling alone: a device whose memory is infinitely fast.
    compute_s = decode_seconds(TOY, replace(SHEET, bandwidth=1e30), batch, 1024, IDEAL)
    assert compute_s * 1e6 == pytest.approx(compute_us, rel=1e-3)
    assert batch / seconds == pytest.approx(rate, rel=1e-4)
    assert 2 / 3600 / (batch / seconds) * 1e6 == pytest.approx(usd_per_million, rel=1e-4)


@pytest.mark.parametrize(
    ("devices", "batch", "latency", "rate", "usd_per_million"),
    [(1, 474.0954, 0.114431, 4142.225, 0.134120), (2, 1109.8783, 0.130688, 8485.874, 0.130937)],
)
def test_steady_state_of_the_sheet(devices, batch, latency, rate, usd_per_million):
    # Section 4.1 with its synthetic latencies: L_P(x) = (.010 + .020 x) / G^.8, L_D(b) = (.020 + 1e-4 b) / G^.8.
    fits = largest_batch(TOY, devices * 80e9, IDEAL)
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
    found, usd = price_at_demand(demand, capacity=1e4, n_devices=1, usd_per_hour=2.0, utilisation=0.7)
    assert found == replicas
    assert usd * 1e6 == pytest.approx(usd_per_million, rel=1e-5)


def dense(n: float) -> ModelSizes:
    return ModelSizes(n_active=n, n_total=n, kv_elements_per_token=2 * LAYERS * D, n_layers=LAYERS, d_model=D)


def test_batch_one_reads_k_experts_and_not_all():
    # The mistake of AlexsJones/llmfit#474, #921: decode speed from the total parameters.
    assert weight_bytes_read(TOY, 1, 2) == pytest.approx(2 * (TOY.n_active + ROUTER))


def test_memory_holds_every_expert():
    # The mistake of AlexsJones/llmfit#230: memory from the active parameters.
    assert weight_bytes(TOY, 2) == 2 * (TOY.n_total + ROUTER)


def test_batching_helps_a_dense_model_more_than_a_routed_one():
    # arXiv 2511.02237: decode follows the experts touched. The sheet: 1.48 from b = 1 to 4, a dense model about 4.
    def gain(sizes):
        return 4 * decode_seconds(sizes, SHEET, 1, 1024, IDEAL) / decode_seconds(sizes, SHEET, 4, 1024, IDEAL)

    assert gain(TOY) == pytest.approx(1.48, abs=0.005)
    assert gain(dense(1.7e9)) > 3


def test_a_routed_model_of_one_kind_of_expert_is_the_dense_one():
    # E = k: nothing is left to skip, so every price equals that of the dense model with the same counts.
    plain = dense(2e9)
    all_active = replace(plain, n_experts=4, top_k=4)
    for batch in (1, 7, 300):
        seconds = decode_seconds(all_active, SHEET, batch, 640, IDEAL)
        assert seconds == decode_seconds(plain, SHEET, batch, 640, IDEAL)


def test_more_total_parameters_at_equal_active_ones_never_cost_less():
    h100 = device("h100")
    larger = [replace(TOY, n_total=TOY.n_active + extra) for extra in np.geomspace(1e9, 1e11, 20)]
    usd = [serving_cost(sizes, h100).usd_per_token for sizes in larger]
    assert all(later >= earlier for earlier, later in pairwise(usd))
    assert usd[-1] > usd[0]


def test_the_chosen_number_of_devices_is_the_cheapest():
    service = Service()
    sizes = replace(TOY, n_total=9e10)  # 180 GB in bf16: needs at least 4 of 80 GB
    best = serving_cost(sizes, SHEET, service)
    alone = [serving_cost(sizes, replace(SHEET, memory=g * SHEET.memory, usd_per_hour=g * SHEET.usd_per_hour,
             bandwidth=g**0.8 * SHEET.bandwidth, peak_flops=g**0.8 * SHEET.peak_flops), replace(service, max_devices=1))
             for g in (1, 2, 4, 8, 16, 32, 64)]  # fmt: skip
    assert best.usd_per_token == pytest.approx(min(one.usd_per_token for one in alone), rel=1e-12)
    assert best.n_devices >= 4
    assert np.isinf(alone[0].usd_per_token)
    assert alone[0].batch == 0


def test_what_fits_nowhere_costs_infinitely_much():
    cost = serving_cost(replace(TOY, n_total=1e14), SHEET)
    assert np.isinf(cost.usd_per_token)
    assert cost.tokens_per_s == 0


def test_price_is_inverse_to_utilisation_and_linear_in_rent():
    half, full = serving_cost(TOY, SHEET, Service(utilisation=0.5)), serving_cost(TOY, SHEET, Service(utilisation=1.0))
    assert half.usd_per_token == pytest.approx(2 * full.usd_per_token)
    dear = serving_cost(TOY, replace(SHEET, usd_per_hour=6.0), Service(utilisation=1.0))
    assert dear.usd_per_token == pytest.approx(3 * full.usd_per_token)


def test_arrays_of_sizes_are_priced_one_by_one():
    active = np.geomspace(1e7, 1e11, 9)
    together = serving_cost(replace(dense(1.0), n_active=active, n_total=active), SHEET)
    one_by_one = [serving_cost(dense(n), SHEET) for n in active]
    np.testing.assert_allclose(together.usd_per_token, [one.usd_per_token for one in one_by_one], rtol=1e-12)
    np.testing.assert_array_equal(together.n_devices, [one.n_devices for one in one_by_one])


def test_training_price_by_hand():
    # 1e21 FLOP at 40 % of 9.89e14 FLOP/s: 2.5278e6 device-seconds = 702.17 hours at $2.
    assert training_usd(1e21, SHEET, mfu=0.4) == pytest.approx(1404.3, rel=1e-4)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ModelSizes(1e9, 5e8, 1, 1, 1), "n_active <= n_total"),
        (lambda: ModelSizes(1e9, 1e9, 1, 1, 1, 4, 8), "top_k=8"),
        (lambda: Service(utilisation=0.0), r"utilisation=0\.0"),
        (lambda: Service(generated=0), "generated=0"),
        (lambda: training_usd(1e20, SHEET, mfu=1.5), r"mfu=1\.5"),
        (lambda: price_at_demand(0, 1e4, 1, 2.0, 0.7), "demand=0"),
    ],
)
def test_wrong_input_is_named(build, says):
    with pytest.raises(InputError, match=says):
        build()


def test_bytes_of_a_decode_step_agree_with_the_structural_count():
    model = ModelConfig(n_experts=8, d_model=64)
    counts = cost.parameters(model, 257)
    sizes = ModelSizes(
        counts.n_active,
        counts.n_total,
        2 * model.n_layers * model.d_model,
        model.n_layers,
        model.d_model,
        8,
        1,
        counts.router,
    )
    for batch in (1, 4, 64):
        moved = weight_bytes_read(sizes, batch, 4) + batch * 128 * sizes.kv_elements_per_token * 4
        # The structural count reads only the embedding rows of the batch; a continuous size knows no vocabulary.
        rows = 4 * (counts.embedding - min(counts.embedding, batch * model.d_model))
        assert moved - rows == pytest.approx(
            cost.bytes_read(model, 257, batch=batch, new_tokens=1, context=128), rel=1e-12
        )
