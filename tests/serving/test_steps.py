"""The serving model against the worked examples of the laws sheet (sections 0.5, 4.1, 4.2, 4.4) and counting."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import EXPERT, IDEAL, LAYERS, ROUTER, SHEET, TOY, D, E, K, dense

from scaling.config.counts import bytes_read, parameters
from scaling.config.model import ModelConfig
from scaling.errors import InputError
from scaling.serving.device import roofline_seconds
from scaling.serving.expert_load import distinct_experts, skew_of
from scaling.serving.service import SERVICE, Layout, ModelSizes, Service
from scaling.serving.step_time import Efficiency
from scaling.serving.steps import (
    communication_seconds,
    decode_seconds,
    decode_work,
    prefill_seconds,
    prefill_work,
    weight_bytes,
    weight_bytes_read,
)


def test_the_toy_is_the_model_of_the_sheet():
    assert TOY.n_total + ROUTER == 10_172_497_920
    assert TOY.n_active + ROUTER == 1_716_781_056
    assert TOY.kv_elements_per_token * 2 == 196_608
    assert TOY.n_expert == pytest.approx(LAYERS * EXPERT)


@pytest.mark.parametrize(
    ("n_experts", "top_k", "batch", "activated"),
    [(8, 2, 1, 2.0), (8, 2, 4, 5.46875), (16, 2, 4, 6.62109375), (32, 2, 8, 12.904976837), (64, 8, 16, 56.443706431),
     (128, 8, 32, 111.771035344), (256, 8, 64, 222.442487686)],
)  # fmt: skip
def test_distinct_experts_of_the_sheet(n_experts, top_k, batch, activated):
    assert distinct_experts(n_experts, top_k, batch) == pytest.approx(activated, rel=1e-8)


def test_distinct_experts_against_counting():
    # Independently: draw k of E for each of b tokens and count.
    rng = np.random.default_rng(0)
    draws = [len(np.unique([rng.choice(16, 3, replace=False) for _ in range(6)])) for _ in range(4000)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - distinct_experts(16, 3, 6)) < 4 * error


@given(st.integers(1, 256), st.integers(1, 16), st.integers(1, 4096))
def test_distinct_experts_lie_between_k_and_all(n_experts, top_k, batch):
    top_k = min(top_k, n_experts)
    activated = distinct_experts(n_experts, top_k, batch)
    assert top_k * (1 - 1e-9) <= activated <= n_experts * (1 + 1e-9)
    assert distinct_experts(n_experts, top_k, batch + 1) >= activated * (1 - 1e-12)


@pytest.mark.parametrize(
    ("batch", "weights_gb", "cache_gb", "memory_us", "compute_us", "rate", "usd_per_million"),
    [(1, 3.4336, 0.2013, 1085.04, 3.675, 921.6, 0.60280), (4, 9.0157, 0.8053, 2931.63, 14.701, 1364.4, 0.40717),
     (16, 18.0631, 3.2212, 6353.52, 58.805, 2518.3, 0.22061), (64, 20.3412, 12.8849, 9918.25, 235.220, 6452.8, 0.08610),
     (256, 20.3450, 51.5396, 21458.09, 940.881, 11930.2, 0.04657)],
)  # fmt: skip
def test_memory_bound_decode_of_the_sheet(batch, weights_gb, cache_gb, memory_us, compute_us, rate, usd_per_million):
    assert weight_bytes_read(TOY, batch, IDEAL) / 1e9 == pytest.approx(weights_gb, rel=1e-4)
    assert batch * 1024 * TOY.kv_elements_per_token * 2 / 1e9 == pytest.approx(cache_gb, rel=3e-4)  # 4 digits
    seconds = decode_seconds(TOY, SHEET, batch, 1024, IDEAL)
    assert seconds * 1e6 == pytest.approx(memory_us, rel=1e-4)
    # Compute alone: a device with infinitely fast memory.
    compute_s = decode_seconds(TOY, replace(SHEET, bandwidth=1e30), batch, 1024, IDEAL)
    assert compute_s * 1e6 == pytest.approx(compute_us, rel=1e-3)
    assert batch / seconds == pytest.approx(rate, rel=1e-4)
    assert 2 / 3600 / (batch / seconds) * 1e6 == pytest.approx(usd_per_million, rel=1e-4)


def test_batching_helps_a_dense_model_more_than_a_routed_one():
    # arXiv 2511.02237: decode time follows the activated experts. The sheet: 1.48 from b = 1 to 4, dense about 4.
    def gain(sizes):
        return 4 * decode_seconds(sizes, SHEET, 1, 1024, IDEAL) / decode_seconds(sizes, SHEET, 4, 1024, IDEAL)

    assert gain(TOY) == pytest.approx(1.48, abs=0.005)
    assert gain(dense(1.7e9)) > 3


def test_a_routed_model_with_all_experts_active_takes_the_time_of_the_dense_one():
    plain = dense(2e9)
    all_active = replace(plain, n_experts=4, top_k=4)
    for batch in (1, 7, 300):
        seconds = decode_seconds(all_active, SHEET, batch, 640, IDEAL)
        assert seconds == decode_seconds(plain, SHEET, batch, 640, IDEAL)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ModelSizes(1e9, 5e8, 1, 1, 1), "n_active <= n_total"),
        (lambda: ModelSizes(1e9, 1e9, 1, 1, 1, 4, 8), "top_k=8"),
        (lambda: Service(utilisation=0.0), "`utilisation` .*found 0"),
        (lambda: Service(generated=0), "`generated` .*found 0"),
        (lambda: Service(tpot_s=-1.0), "`tpot_s` .*found -1"),
        (lambda: Service(skew=-0.1), r"`skew` .*found -0\.1"),
        (lambda: Efficiency(bandwidth_share=1.5), r"`bandwidth_share` .*found 1\.5"),
        (lambda: Efficiency(layer_s=-1e-6), "`layer_s` .*found -1e-06"),
        (lambda: Layout(0), "0 devices"),
    ],
)
def test_wrong_input_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_bytes_of_a_decode_step_agree_with_the_structural_count():
    model = ModelConfig(n_experts=8, d_model=64)
    counts = parameters(model, 257)
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
        moved = (
            weight_bytes_read(sizes, batch, Service(bytes_per_weight=4)) + batch * 128 * sizes.kv_elements_per_token * 4
        )
        # The structural count reads only the embedding rows of the batch; `ModelSizes` has no vocabulary.
        rows = 4 * (counts.embedding - min(counts.embedding, batch * model.d_model))
        assert moved - rows == pytest.approx(bytes_read(model, 257, batch=batch, new_tokens=1, context=128), rel=1e-12)


def test_time_is_the_sum_of_its_terms_by_hand():
    """b = 1 of the sheet: 3.4336 GB of weights and .2013 GB of cache over 3.35e12 bytes/s are 1085.04 us, 3.675 us
    compute. With shares .5 and .25, 10 us per step, 1 us per layer (24), .1 us per activated expert (24 x 8) and 1 ps
    per written element (24 x 2048 x (20 + 10 k)): 2 x 1085.04 + 4 x 3.675 + 10 + 24 + 19.2 + 4.9 us."""
    reached = Efficiency(0.5, 0.25, 10e-6, 1e-6, expert_s=0.1e-6, activation_s=1e-12)
    seconds = decode_seconds(TOY, SHEET, 1, 1024, Service(efficiency=reached))
    by_hand = 2 * 1085.04 + 4 * 3.675 + 10 + 24 + 0.1 * LAYERS * K + 1e-6 * LAYERS * D * (20 + 10 * K)
    assert seconds * 1e6 == pytest.approx(by_hand, rel=1e-5)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 1e-3), st.integers(1, 512), st.integers(1, 8192))
def test_no_time_is_below_the_roofline(bandwidth, flops, overhead, batch, context):
    """Shares of at most 1 and overheads of at least 0 only add to max(bytes/bandwidth, FLOPs/peak)."""
    service = Service(efficiency=Efficiency(bandwidth, flops, overhead))
    work = decode_work(TOY, SHEET, batch, context, service)
    floor = max(work.bytes / SHEET.bandwidth, work.flops / SHEET.peak_flops)
    assert work.seconds(SHEET, service.efficiency) >= floor * (1 - 1e-12)
    assert work.seconds(SHEET, service.efficiency, overlap=True) >= floor * (1 - 1e-12)


def test_the_roofline_uses_the_memory_that_holds_the_working_set():
    quick = replace(SHEET, levels=((1e6, 1e14), (1e8, 1e13)))
    for moved, speed in ((5e5, 1e14), (5e7, 1e13), (5e9, SHEET.bandwidth)):
        assert roofline_seconds(0.0, moved, quick) == pytest.approx(moved / speed, rel=1e-12)


def test_skewed_routers_activate_fewer_experts():
    uniform = distinct_experts(64, 8, 16)
    skewed = [distinct_experts(64, 8, 16, skew) for skew in (0.0, 0.5, 1.0, 2.0)]
    assert skewed[0] == uniform
    assert skewed == sorted(skewed, reverse=True)
    assert skewed[-1] >= 8


def test_skewed_routers_against_counting():
    """The mean number of experts chosen by 5 independent tokens with probabilities proportional to 1 / rank, k = 1."""
    rng = np.random.default_rng(1)
    chances = 1 / np.arange(1, 17)
    chances /= chances.sum()
    hits = [len(np.unique(rng.choice(16, 5, p=chances))) for _ in range(4000)]
    assert abs(np.mean(hits) - distinct_experts(16, 1, 5, 1.0)) < 4 * np.std(hits) / np.sqrt(len(hits))


@pytest.mark.parametrize("skew", [0.0, 0.3, 1.2])
def test_the_skew_is_recovered_from_activated_experts(skew):
    batches = np.array([1.0, 8.0, 64.0])
    assert skew_of(32, 2, batches, distinct_experts(32, 2, batches, skew)) == pytest.approx(skew, abs=1e-4)


def test_shares_of_devices_add_up():
    """G devices together hold and read what one does; a split by expert adds G - 1 copies of the shared parts."""
    service, one = Service(), ModelSizes(TOY.n_active, TOY.n_total, TOY.kv_elements_per_token, LAYERS, D, E, K, ROUTER)
    experts = 2 * E * LAYERS * EXPERT
    alone = weight_bytes(one, SERVICE)
    assert 4 * weight_bytes(one, SERVICE, Layout(4)) == pytest.approx(alone)
    assert 4 * weight_bytes(one, SERVICE, Layout(4, True)) == pytest.approx(alone + 3 * (alone - experts))
    whole = decode_work(one, SHEET, 64, 1024, service)
    for by_expert in (False, True):
        work = decode_work(one, SHEET, 64, 1024, service, Layout(4, by_expert))
        assert 4 * work.flops == pytest.approx(whole.flops)
        assert (4 if by_expert else 1) * work.experts == pytest.approx(whole.experts)
    assert 4 * decode_work(one, SHEET, 64, 1024, service, Layout(4)).bytes == pytest.approx(
        decode_work(one, SHEET, 64, 1024, service).bytes
    )


def test_communication_by_hand():
    """Four devices, b = 64, d = 2048, 24 layers, a link of 450e9 bytes/s whose latency is that of the measured one.

    By matrix: two all-reduces per layer, each 2 (3/4) 64 x 2048 x 2 bytes. By expert: a dispatch in FP8 and a combine
    in 16 bits per layer, each of (3/4) (64/4) 8 x 2048 elements."""
    linked = replace(SHEET, link=450e9, link_latency_s=5e-6)
    tensor = 2 * 24 * (1.46 * 2 * 0.75 * 64 * 2048 * 2 / 450e9 + 4.2e-6 + 2 * 0.33e-6)
    expert = 24 * (2 * 10.3e-6 + (1.85 + 2 * 2.03) * 0.75 * 16 * 8 * 2048 / 450e9)
    assert communication_seconds(TOY, linked, 64, Layout(4)) == pytest.approx(tensor, rel=1e-12)
    assert communication_seconds(TOY, linked, 64, Layout(4, True)) == pytest.approx(expert, rel=1e-12)
    assert communication_seconds(TOY, linked, 64, Layout(1)) == 0
    assert communication_seconds(dense(1e9), linked, 64, Layout(4, True)) == 0


def test_part_of_a_request_costs_that_part_of_its_prefill():
    whole = prefill_seconds(TOY, SHEET, 1.0, IDEAL)
    assert prefill_seconds(TOY, SHEET, 0.25, IDEAL) == pytest.approx(0.25 * whole, rel=1e-12)
    assert prefill_seconds(TOY, SHEET, 2.0, IDEAL) > whole


def test_one_prompt_is_not_split_over_devices_that_split_experts():
    """32 devices by expert: attention and shared parts of a prompt occupy one of them; 32 prompts take no longer."""
    service, layout = Service(prompt=2048), Layout(32, True)
    shared = TOY.n_active + ROUTER - K * LAYERS * EXPERT
    alone = prefill_work(TOY, SHEET, 1.0, service, layout)
    by_hand = 2048 * (2 * shared + 2 * LAYERS * 2048 * D + 2 * K * LAYERS * EXPERT / 32)
    assert alone.flops == pytest.approx(by_hand, rel=1e-12)
    assert prefill_work(TOY, SHEET, 32.0, service, layout).flops == pytest.approx(
        2048 * (2 * shared + 2 * LAYERS * 2048 * D + 2 * K * LAYERS * EXPERT), rel=1e-12
    )


def test_more_devices_than_the_link_joins_use_the_fabric():
    linked = replace(SHEET, link=450e9, link_latency_s=0.0, fabric=50e9, link_devices=8)
    within, beyond = (communication_seconds(TOY, linked, 64, Layout(g)) for g in (8, 16))
    assert beyond / within == pytest.approx(9 * (15 / 16) / (7 / 8))
