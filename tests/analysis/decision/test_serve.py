"""What a model costs to serve: one estimator, the split of the price, the front, intervals, memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.decision.serve import serve
from analysis.latency.speeds import with_speed
from scaling.errors import InputError
from scaling.serving.devices import device
from scaling.serving.families import architecture_family
from scaling.serving.precision import served_in
from scaling.serving.public_models import public_model
from scaling.serving.replicas import layouts, offer, replica
from scaling.serving.service import Layout, ModelSizes, Service

H200 = device("h200")
LENGTHS = Service(prompt=2_000, generated=500, utilisation=1.0)
SERVICE, SPEEDS = with_speed(LENGTHS, "h200")
FP8 = served_in(SERVICE, H200, weights="fp8")
DEEPSEEK = public_model("deepseek-v3")


@pytest.fixture(scope="module")
def found():
    return serve(DEEPSEEK, H200, FP8, SPEEDS)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("speed", ["published:vllm-h200", "assumed"])
def test_input_and_output_together_cost_what_a_request_does(speed, apart):
    """p in + n out = n USD per generated token of a replica of the same batch and layout (`replicas.offer`)."""
    service = replace(with_speed(LENGTHS, "h200", speed)[0], apart=apart)
    model = public_model("qwen3-30b-a3b")
    for point in serve(model, H200, service).ladder[::4]:
        layout = Layout(point.n_devices, point.experts_split)
        same = replace(service, max_batch=point.concurrency)
        each = float(offer(ModelSizes.of_architecture(model), H200, same, layout).usd_per_token)
        paid = service.prompt * point.usd_per_million_input + service.generated * point.usd_per_million_output
        assert paid / 1e6 == pytest.approx(service.generated * each, rel=1e-9)
        assert point.usd_per_million_input > 0


def test_cached_prompts_cost_less_and_outputs_the_same():
    half = replace(FP8, prefix_hit=0.5)
    first, second = (serve(DEEPSEEK, H200, service).ladder[4] for service in (FP8, half))
    assert second.usd_per_million_input < 0.6 * first.usd_per_million_input
    assert second.usd_per_million_output == pytest.approx(first.usd_per_million_output)


def test_no_layout_beats_the_front_and_the_ladder_is_the_cheapest_layout(found):
    sizes = ModelSizes.of_architecture(DEEPSEEK)
    every = layouts(FP8, 256)
    for point in found.ladder[:12:3]:
        rates = []
        for n_devices, by_expert in zip(every.n_devices, every.by_expert, strict=True):
            at_most = replace(FP8, max_batch=point.concurrency)
            held = replica(sizes, H200, at_most, Layout(float(n_devices), bool(by_expert)))
            if float(held.batch) == point.concurrency:
                rates.append(float(held.output_throughput) / float(n_devices))
                beaten = [
                    each
                    for each in found.front
                    if each.tokens_per_s_per_user >= (1 - 1e-9) / float(held.tpot_s)
                    and each.tokens_per_s_per_device >= rates[-1] * (1 - 1e-9)
                ]
                assert beaten
        assert point.tokens_per_s_per_device == pytest.approx(max(rates))
    users = [point.tokens_per_s_per_user for point in found.front]
    assert users == sorted(users, reverse=True)
    devices = [point.tokens_per_s_per_device for point in found.front]
    assert devices == sorted(devices)


def test_limits_bind_and_what_cannot_be_is_refused():
    limited = serve(DEEPSEEK, H200, replace(FP8, tpot_s=0.03))
    assert all(point.tpot_ms <= 30 for point in (*limited.ladder, *limited.front))
    assert limited.cheapest.tokens_per_s_per_device < serve(DEEPSEEK, H200, FP8).cheapest.tokens_per_s_per_device
    with pytest.raises(InputError, match="`tpot_ms`"):
        serve(DEEPSEEK, H200, replace(FP8, tpot_s=1e-4))
    with pytest.raises(InputError, match="does not fit"):
        serve(DEEPSEEK, H200, replace(SERVICE, max_devices=4))


def test_each_device_holds_its_share_of_weights_and_cache(found):
    first = found.ladder[0]
    weights = 671e9 / first.n_devices
    assert 1e9 * first.memory_gb == pytest.approx(weights + 2 * 35_136 * FP8.mean_context, rel=0.01)  # MLA is copied
    assert all(point.memory_gb <= 141 for point in (*found.ladder, *found.front))
    assert found.kv_bytes_per_token == 70_272


def test_intervals_hold_the_estimate_and_are_as_wide_as_the_scatter(found):
    for point in found.ladder:
        low, high = point.tpot_ms_interval
        assert low < point.tpot_ms < high
        assert np.log(high / low) == pytest.approx(2 * 1.96 * FP8.engine.scatter, rel=0.35)
    assert serve(DEEPSEEK, H200, replace(FP8, engine=None)).ladder[0].tpot_ms_interval is None


def test_a_family_at_a_members_size_is_served_as_that_member():
    member = public_model("mixtral-8x7b")
    counted = float(member.n_active() - member.parameters()["router"])
    of_family = serve(architecture_family("mixtral").model(counted, 8), H200, FP8)
    published = serve(member, H200, FP8)
    assert [p.tpot_ms for p in of_family.ladder] == pytest.approx([p.tpot_ms for p in published.ladder], rel=1e-6)
