"""Prices: the limits of memory that are kept are those that are said, and routers are carried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.decision.lifetime_cost import Pricing, memory_bytes, unknown_columns
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit import Fit, fit
from analysis.fitting.fitted_to import family_of
from analysis.fitting.published import published
from analysis.laws import JOINT_MOE
from scaling.errors import InputError
from scaling.serving import devices, replicas, service

JOINT = published("joint-moe-2025")
CACHED = "bf16 weights of all experts and 16,384 cached tokens in 80 GB (1e9 bytes)"


@pytest.mark.parametrize("served", [0.0, 1e12])
def test_a_device_holds_the_model_whether_it_is_served_or_not(served):
    """At 1e27 FLOPs the model of least loss has more than the 5.1 TB of 64 devices."""
    free = recommend(JOINT, Question(train_flops=1e27, n_experts=(32,))).recommendation
    most = 64 * devices.device("h100").memory
    assert 2 * free.n_total > most  # the premise of this test
    question = Question(train_flops=1e27, n_experts=(32,), device="h100", serve_tokens=served, minimise="loss")
    answer = recommend(JOINT, question)
    sizes = JOINT.family.sizes(np.array([answer.recommendation.n_active]), 32)
    request = 2 * service.Service().mean_context * sizes.kv_elements_per_token[0]
    assert 2 * sizes.n_total[0] + request <= most * (1 + 1e-6)
    assert sum("5120 GB, the memory of 64 devices" in line for line in answer.assumptions) == 1
    assert "memory was not considered" not in answer.assumptions


def test_what_fits_the_devices_is_what_serving_can_hold():
    sizes = JOINT.family.sizes(np.geomspace(1e9, 1e13, 4001), 32)
    pricing = Pricing(1.0, device=devices.device("a100"))
    assert np.array_equal(pricing.fits(sizes), np.isfinite(pricing.serve(sizes)))
    assert pricing.fits(sizes).any()
    assert not pricing.fits(sizes).all()


def test_nothing_is_said_to_be_served_or_held_that_is_not():
    alone = recommend(JOINT, Question(train_flops=1e20, device="h100")).assumptions
    assert "nothing is served" in alone
    assert not any(line.startswith("serving") for line in alone)
    bare = Fit("joint-moe", JOINT.params)
    assumptions = recommend(bare, Question(train_flops=1e20, n_experts=(8,), device="h100")).assumptions
    assert "memory was not considered" in assumptions  # the fit knows no total size
    assert "memory was not considered" in recommend(JOINT, Question(train_flops=1e20)).assumptions


def test_a_cache_that_is_not_known_is_not_said_to_be_in_the_memory():
    question = Question(train_flops=1e14, memory_gb=80.0)
    frame = moe_grid()
    assert CACHED in recommend(study(frame), question).assumptions
    for columns in (["d_model"], ["d_model", "n_layers"]):
        answer = recommend(study(frame.drop(columns=columns)), question)
        assert "bf16 weights of all experts in 80 GB (1e9 bytes)" in answer.assumptions
        assert not any("cached tokens" in line for line in answer.assumptions)
        known = recommend(study(frame), question).warnings
        assert [warning for warning in answer.warnings if warning not in known and "cache" in warning]


def study(frame):
    return fit(table_of(frame), JOINT_MOE, pin=PLANTED_MOE)


def with_routers(frame):
    routed = frame["n_experts"].where(frame["n_experts"] > 1, 0)
    return frame.assign(n_router=routed * frame["d_model"] * frame["n_layers"])


@pytest.mark.parametrize("columns", [[], ["n_layers", "d_model"]])
def test_routers_are_carried_into_memory(columns):
    frame = with_routers(moe_grid())
    family = family_of(table_of(frame.drop(columns=columns)))
    row = frame[(frame["n_experts"] == 8) & (frame["d_model"] == 64)].iloc[0]
    sizes = family.sizes(np.array([float(row["n_active"])]), 8)
    assert sizes.n_router[0] == pytest.approx(8 * 64 * 2, rel=1e-9)
    assert memory_bytes(sizes) - memory_bytes(replace(sizes, n_router=None)) == pytest.approx(2 * 8 * 64 * 2)
    assert family.sizes(np.array([float(row["n_active"])]), 1).n_router is None


def test_routers_are_priced_or_said_to_be_left_out():
    question = Question(train_flops=1e14, n_experts=(8,), serve_tokens=1e9, device="h100", reference_experts=8)
    without, given = (recommend(study(frame), question) for frame in (moe_grid(), with_routers(moe_grid())))
    left_out = "routers are left out of serving and memory: the fit does not know their size"
    assert left_out in without.assumptions
    assert left_out not in given.assumptions
    sizes = family_of(table_of(with_routers(moe_grid()))).sizes(np.array([given.recommendation.n_active]), 8)
    shape = service.ModelSizes(
        n_active=sizes.n_active, n_total=sizes.n_total, kv_elements_per_token=sizes.kv_elements_per_token,
        n_layers=sizes.n_layers, d_model=sizes.d_model, n_experts=8, top_k=1, n_router=sizes.n_router,
    )  # fmt: skip
    usd_per_token = replicas.cheapest(shape, devices.device("h100")).usd_per_token[0]
    assert given.recommendation.cost.serve == pytest.approx(1e9 * usd_per_token, rel=1e-9)


def test_what_a_price_lacks_is_named_and_never_replaced_by_flops():
    """A device is named, and the runs of E = 8 have two k: no price is made up, and no FLOPs are counted instead."""
    frame = moe_grid(experts=(1, 8, 16)).drop(columns=["n_layers"])
    frame["top_k"] = np.where((frame["n_experts"] == 8) & (frame["tokens"] > 1e6), 2, 1)
    found = fit(table_of(frame), JOINT_MOE, pin=PLANTED_MOE)
    question = Question(train_flops=1e13, serve_tokens=1e9, device="h100", n_experts=(8,))
    with pytest.raises(InputError, match="needs n_layers, top_k of models with E = 8"):
        recommend(found, question)
    assert unknown_columns(found.family.sizes(np.array([1e5]), 16)) == ["n_layers"]
    priced = fit(table_of(moe_grid(experts=(1, 8, 16))), JOINT_MOE, pin=PLANTED_MOE)
    assert recommend(priced, question).recommendation.cost.unit == "USD"
