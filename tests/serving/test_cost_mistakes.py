"""Mistakes of public calculators about the cost of mixtures of experts, one test each.

The list and the threads are from the project's ecosystem sheet, section 4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from served import IDEAL, LAYERS, ROUTER, SHEET, TOY, E, K
from synthetic_latency import time_interval

from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.published import published
from analysis.latency import table
from analysis.latency.law import load_latency_law
from scaling.config.counts import bytes_read, parameters, prefill_flops_by_group, prefill_flops_per_token, train_flops
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.serving import replicas
from scaling.serving.expert_load import distinct_experts
from scaling.serving.service import SERVICE, ModelSizes, Service
from scaling.serving.step_time import ASSUMED
from scaling.serving.steps import decode_work, weight_bytes, weight_bytes_read

STUDY = Path(__file__).parents[2] / "results" / "latency-cpu"


@pytest.fixture(scope="module")
def measured():
    return table.read_latency(STUDY)


def test_decode_speed_does_not_follow_total_parameters():
    """AlexsJones/llmfit#474 (2.2 times too slow), #921 (13 times): one sequence reads k experts."""
    assert weight_bytes_read(TOY, 1, IDEAL) == pytest.approx(2 * (TOY.n_active + ROUTER))


def test_memory_does_not_follow_active_parameters():
    """AlexsJones/llmfit#230: every expert is resident."""
    assert weight_bytes(TOY, SERVICE) == 2 * (TOY.n_total + ROUTER)


def test_experts_are_resident_and_a_kernel_that_visits_all_reads_all():
    """AlexsJones/llmfit#449 (3 times too fast): every expert needs memory, and `reads_all` reads every expert."""
    small = replace(SHEET, memory=weight_bytes(TOY, SERVICE) * 0.99)
    assert replicas.replica(TOY, small).batch == 0  # active experts alone would fit
    assert 2 * TOY.n_active < small.memory
    assert weight_bytes_read(TOY, 1, Service(reads_all=True)) == pytest.approx(2 * (TOY.n_total + ROUTER))


def test_there_is_one_estimator():
    """AlexsJones/llmfit#805 (two copies, 4 times apart): a recommendation has the price of `cheapest`, and the bytes of
    `bench` are those of `serving`."""
    question = Question(train_flops=1e21, serve_tokens=1e12, device="h100", n_experts=(8,), reference_experts=8)
    best = recommend(published("joint-moe-2025"), question).recommendation
    sizes = published("joint-moe-2025").family.sizes(np.array([best.n_active]), 8)
    shape = ModelSizes(
        best.n_active, best.n_total, sizes.kv_elements_per_token[0], sizes.n_layers[0], sizes.d_model[0], 8, 1
    )
    each = float(replicas.cheapest(shape, question.pricing.rented).usd_per_token)
    assert best.cost.serve == pytest.approx(1e12 * each, rel=1e-9)
    assert best.served.usd_per_million == pytest.approx(1e6 * each, rel=1e-9)
    model = ModelConfig(n_experts=8, d_model=64)
    counts = parameters(model, 257)
    ours = ModelSizes(counts.n_active, counts.n_total, 2 * model.n_layers * 64, model.n_layers, 64, 8, 1, counts.router)
    looked_up = 4 * (counts.embedding - 16 * 64)  # `bench` knows the vocabulary and reads 16 rows of the embedding
    service = Service(bytes_per_weight=4, bytes_per_kv=4)
    read = float(decode_work(ours, SHEET, 16, 128, service).bytes) - looked_up
    assert read == pytest.approx(bytes_read(model, 257, batch=16, new_tokens=1, context=128), rel=1e-12)


def test_the_batch_decides_how_many_experts_are_read():
    """arXiv 2511.02237: 64 experts, k = 4 give 4.0 at a batch of 1 and 55.9 at 32."""
    assert distinct_experts(64, 4, 1) == pytest.approx(4.0)
    assert distinct_experts(64, 4, 32) == pytest.approx(55.9, abs=0.05)


def test_no_measured_time_is_below_the_roofline(measured):
    """GitM-Labs/runtime#78 (a bound 3.3 times slower than observed), on the shipped study as stored."""
    floors = pd.to_numeric(measured.frame["roofline_ms"])
    assert floors.notna().all()
    assert (measured.frame["time_ms"] >= floors).all()


def test_the_latency_law_predicts_better_than_the_roofline(measured):
    """Blaizzy/mlx-vlm#1547, vllm-project/vllm-xpu-kernels#509: steps cost more than bytes and FLOPs explain."""
    law = load_latency_law(STUDY / "latency.json")
    assert law.efficiency.overhead_s + law.efficiency.layer_s > 0
    floor_error = np.median(np.abs(measured.frame["roofline_ms"] / measured.frame["time_ms"] - 1))
    assert law.after.median < floor_error


def test_every_measured_speed_has_an_interval(measured):
    """Andyyyy64/whichllm#42: the price on a measured device has the uncertainty of its speed."""
    law = load_latency_law(STUDY / "latency.json")
    low, high = time_interval(law, table.works(measured))
    assert (low < high).all()
    assert set(law.intervals) == set(vars(ASSUMED)) - {"source"}


def test_versions_are_in_every_row(measured):
    """vllm-project/vllm#41306 (21 % between releases)."""
    assert measured.frame["versions"].str.contains("jax").all()


def test_training_compute_is_counted_by_group():
    """marin-community/marin#2243, #9287 (-17 % to +18 % by the ratio of active parameters): routers, attention and
    output projection are included, and 6 N D is not used."""
    config = RunConfig(
        model=ModelConfig(n_experts=8, top_k=2, d_model=64, router="topk"), train=TrainConfig(seq_len=128)
    )
    groups = prefill_flops_by_group(config.model, config.data.vocab_size, 128)
    assert all(groups[name] > 0 for name in ("head", "projections", "attention", "experts", "router"))
    counts = parameters(config.model, config.data.vocab_size)
    multiplied = counts.n_active - counts.embedding - counts.norms  # without look-ups and elementwise products
    per_token = 6 * multiplied + 3 * (groups["attention"] + groups["router"])
    tokens = config.steps * config.train.batch_tokens
    assert train_flops(config) == pytest.approx(per_token * tokens)
    assert per_token != pytest.approx(6 * counts.n_active, rel=5e-3)


def test_training_is_not_its_forward_pass():
    """stanford-crfm/levanter `flop_utils.py`: a forward count that callers have to triple. Here training counts 3."""
    config = RunConfig(model=ModelConfig(n_experts=4, d_model=64), train=TrainConfig(seq_len=128))
    tokens = config.steps * config.train.batch_tokens
    forward = prefill_flops_per_token(config.model, config.data.vocab_size, 128)
    assert train_flops(config) == pytest.approx(3 * forward * tokens)


def test_the_toy_has_idle_experts():
    """The premise of the tests above: 64 experts of which 8 are active."""
    assert TOY.n_total - TOY.n_active == pytest.approx((E - K) * TOY.n_expert)
    assert TOY.n_expert == pytest.approx(LAYERS * 3 * 2048 * 1024)
