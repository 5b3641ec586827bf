"""Serving with grouped-query, latent and windowed attention, and with other number formats: closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from served import SHEET, TOY

from scaling.architecture import Architecture, Experts, HeadAttention, Layers, Mlp
from scaling.errors import InputError
from scaling.serving.devices import device
from scaling.serving.precision import served_in
from scaling.serving.public_models import public_model
from scaling.serving.service import SERVICE, Layout, ModelSizes, Service
from scaling.serving.steps import decode_work, largest_batch, prefill_work, weight_bytes, weight_bytes_read


def toy(attention, mlp, vocabulary=50_304):
    return Architecture("toy", 2048, vocabulary, (Layers(24, attention, mlp),), tied=True)


def test_a_described_model_is_served_as_its_counts_are():
    described = ModelSizes.of_architecture(toy(HeadAttention(16, 16, 128), Experts(64, 8, 1024)))
    norms = 2048 * 49
    plain = replace(TOY, n_active=TOY.n_active + norms, n_total=TOY.n_total + norms)
    for layout in (Layout(), Layout(4), Layout(4, by_expert=True)):
        for work in (decode_work(described, SHEET, 8, 640, SERVICE, layout),):
            judge = decode_work(plain, SHEET, 8, 640, SERVICE, layout)
            assert work.bytes == pytest.approx(judge.bytes, rel=1e-12)
            assert work.flops == pytest.approx(judge.flops, rel=1e-12)
        assert largest_batch(described, SHEET, SERVICE, layout) == pytest.approx(
            largest_batch(plain, SHEET, SERVICE, layout), rel=1e-12
        )
    assert prefill_work(described, SHEET, 1, SERVICE).flops == pytest.approx(
        prefill_work(plain, SHEET, 1, SERVICE).flops, rel=1e-12
    )


def test_grouped_queries_hold_more_sequences_by_the_ratio_of_heads():
    many, few = (
        ModelSizes.of_architecture(toy(HeadAttention(16, groups, 128), Experts(64, 8, 1024))) for groups in (16, 2)
    )
    room = [SHEET.memory - weight_bytes(sizes, SERVICE) for sizes in (many, few)]
    batches = [largest_batch(sizes, SHEET, SERVICE) for sizes in (many, few)]
    assert batches[1] / batches[0] == pytest.approx(8 * room[1] / room[0])


def test_tensor_parallelism_divides_a_cache_by_its_heads_and_a_latent_cache_not_at_all():
    latent = ModelSizes.of_architecture(public_model("deepseek-v3"))
    grouped = ModelSizes.of_architecture(public_model("llama-3.1-70b"))
    on = replace(device("h200"), memory=1e15)
    for sizes, divided in ((latent, 1), (grouped, 8)):
        cache = 1_000 * sizes.kv_elements_per_token * 2
        for devices, share in ((8, min(8, divided)), (16, min(16, divided))):
            layout = Layout(devices)
            read = decode_work(sizes, on, 1, 1_000, SERVICE, layout).bytes
            assert read - weight_bytes_read(sizes, 1, SERVICE, layout) == pytest.approx(cache / share, rel=1e-9)
    # With attention data-parallel, each device holds the sequences that it serves.
    spread = largest_batch(latent, on, SERVICE, Layout(8, by_expert=True))
    whole = largest_batch(latent, on, SERVICE, Layout(8))
    assert spread / whole == pytest.approx(8, rel=0.01), "weights are small beside this memory"


def test_a_window_bounds_cache_and_attention():
    sizes = ModelSizes.of_architecture(toy(HeadAttention(16, 16, 128, window=100), Mlp(4096)))
    full = ModelSizes.of_architecture(toy(HeadAttention(16, 16, 128), Mlp(4096)))
    short, long = (decode_work(sizes, SHEET, 1, context, SERVICE) for context in (100, 10_000))
    assert (short.bytes, short.flops) == (long.bytes, long.flops)
    assert decode_work(full, SHEET, 1, 100, SERVICE).bytes == short.bytes
    # A token of a prompt attends to w - w^2 / (2 p) tokens on average: by the sum over its positions.
    prompt, window = 1_000, 100
    mean = np.mean(np.minimum(np.arange(prompt) + 0.5, window))
    service = Service(prompt=prompt)
    windowed, whole = (prefill_work(one, SHEET, 1, service).flops for one in (sizes, full))
    assert (whole - windowed) == pytest.approx(prompt * 4 * 24 * 2048 * (prompt / 2 - mean), rel=1e-3)


def test_an_embedding_is_held_and_not_read():
    tied = ModelSizes.of_architecture(
        Architecture("t", 64, 1000, (Layers(2, HeadAttention(4, 4, 16), Mlp(128)),), tied=True)
    )
    apart = ModelSizes.of_architecture(Architecture("t", 64, 1000, (Layers(2, HeadAttention(4, 4, 16), Mlp(128)),)))
    assert weight_bytes(apart, SERVICE) - weight_bytes(tied, SERVICE) == 2 * 64 * 1000
    assert weight_bytes_read(apart, 1, SERVICE) == weight_bytes_read(tied, 1, SERVICE)


def test_formats_count_their_scales_and_multiply_in_their_own_arithmetic():
    on = device("b200")
    sizes = ModelSizes.of_architecture(public_model("gpt-oss-120b"))
    served = served_in(SERVICE, on, weights="bf16", experts="mxfp4", kv="fp8")
    experts = public_model("gpt-oss-120b").parameters()["experts"]
    everything = sizes.n_total + sizes.n_router
    assert weight_bytes(sizes, served) == pytest.approx(2 * (everything - experts) + 4.25 / 8 * experts)
    assert largest_batch(sizes, on, served) > largest_batch(sizes, on, replace(served, bytes_per_kv=2.0)) * 1.9
    dense = ModelSizes.of_architecture(public_model("llama-3.1-8b"))
    half, eighth = (
        decode_work(dense, on, 64, 0, served_in(SERVICE, on, weights=name)).flops for name in ("fp8", "nvfp4")
    )
    whole = decode_work(dense, on, 64, 0, SERVICE).flops
    assert whole / half == pytest.approx(2.0)
    assert whole / eighth == pytest.approx(4.0)
    with pytest.raises(InputError, match=r"`weights`: device h100 multiplies no nvfp4"):
        served_in(SERVICE, device("h100"), weights="nvfp4")
    with pytest.raises(InputError, match="`kv`"):
        served_in(SERVICE, on, kv="int4")
