"""Families of continuous size: members are reproduced, N_active is met, proportions are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scaling.architecture import HeadAttention
from scaling.errors import InputError
from scaling.serving.families import FAMILIES, architecture_family, family_like
from scaling.serving.public_models import public_model
from scaling.serving.service import ModelSizes


def in_the_tables(model):
    """N_active as the run table counts it: embeddings and head in, routers out."""
    return float(model.n_active() - model.parameters()["router"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_through_its_members(name):
    for member in FAMILIES[name].members:
        again = FAMILIES[name].architecture(np.array([in_the_tables(member)]), member.n_experts)
        for found, published in (
            (again.n_total, member.n_total),
            (again.d_model, member.d_model),
            (again.n_layers, member.n_layers),
            (again.cache_elements(4096), member.cache_elements(4096)),
            (again.attention_flops(4096, decode=True), member.attention_flops(4096, decode=True)),
        ):
            assert np.ravel(found)[0] == pytest.approx(float(published), rel=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_n_active_is_met_at_every_size_whatever_e_and_k(name):
    wanted = np.geomspace(1e4, 1e15, 301)
    for experts, top_k in ((1, None), (4, None), (256, None), (64, 1), (64, 16)):
        sizes = architecture_family(name, top_k).sizes(wanted, experts)
        assert np.abs(np.asarray(sizes.n_active) / wanted - 1).max() < 1e-9
        assert np.all(np.diff(sizes.n_total) > 0)
        assert np.all(np.diff(sizes.kv_elements_per_token) >= 0)


def test_proportions_beyond_a_member_are_its_own():
    """Four times as wide: four times as deep, heads of the same width and eight groups of them."""
    member = public_model("mixtral-8x22b")
    large = FAMILIES["mixtral"].architecture(np.array([1e13]), 8)
    factor = float(large.d_model[0]) / member.d_model
    assert factor > 2
    attention = large.groups[0].attention
    assert isinstance(attention, HeadAttention)
    assert float(large.n_layers[0]) == pytest.approx(factor * member.n_layers)
    assert float(attention.n_heads[0]) == pytest.approx(factor * 48)
    assert (float(attention.n_kv_heads[0]), float(attention.head_dim[0])) == pytest.approx((8, 128))
    assert float(large.groups[0].mlp.width[0]) == pytest.approx(factor * 16_384)


def test_k_divides_the_width_that_a_token_uses():
    """16 experts of which one is taken hold what 128 of an eighth hold of which eight are."""
    fine, coarse = (architecture_family("qwen3", k).sizes(np.array([3e9]), e) for k, e in ((8, 128), (1, 16)))
    assert float(fine.n_total[0]) == pytest.approx(float(coarse.n_total[0]))
    assert float(fine.n_expert[0]) == pytest.approx(float(coarse.n_expert[0]) / 8)


def test_the_cache_of_a_latent_family_grows_with_depth_alone():
    small, large = (FAMILIES["deepseek"].architecture(np.array([n]), 64) for n in (1e9, 1e11))
    for model in (small, large):
        assert float(model.cache_elements_per_token[0]) == pytest.approx(576 * float(model.n_layers[0]))


def test_a_family_like_one_model_is_that_model_at_its_size():
    for name in ("olmoe-1b-7b", "qwen3-8b", "deepseek-v2-lite"):
        member = public_model(name)
        again = family_like(member).sizes(in_the_tables(member), member.n_experts)
        published = ModelSizes.of_architecture(member)
        assert float(again.n_total) == pytest.approx(float(published.n_total))
        assert float(again.n_lookup) == pytest.approx(float(published.n_lookup))


def test_families_are_equal_by_what_they_describe():
    assert architecture_family("llama", 2) == architecture_family("llama", 2)
    assert architecture_family("llama", 2) != architecture_family("llama")
    with pytest.raises(InputError, match="mixtral, deepseek"):
        architecture_family("gpt")


@pytest.mark.parametrize("name", ["mixtral", "deepseek", "llama", "olmoe"])
def test_expert_width_and_shared_experts_are_as_asked_and_n_active_is_kept(name):
    """By the definitions: d_expert = 2 d_model / G; k + s experts of one width share what the members' are together."""
    for k, shared, granularity in ((4, 0, 8.0), (6, 2, None), (None, None, 16.0), (None, 1, 16.0)):
        family = replace(FAMILIES[name], top_k=k, n_shared=shared, granularity=granularity)
        model = family.architecture(np.array([1e9, 5e10]), 64)
        experts = model.routed[-1].mlp
        np.testing.assert_allclose(model.n_active() - model.parameters()["router"], [1e9, 5e10], rtol=1e-8)
        if granularity is not None:
            np.testing.assert_allclose(experts.width, 2 * model.d_model / granularity, rtol=1e-12)
        if shared is not None:
            np.testing.assert_allclose(experts.shared_width, shared * experts.width, rtol=1e-12)
        assert experts.top_k == family.k
        if k is None:  # the nearest whole number of experts: within half of one of the largest member's width
            largest = FAMILIES[name].architecture(np.array([1e13]), 1)
            found = (experts.top_k * experts.width + experts.shared_width) / model.d_model
            assert abs(found[-1] - (largest.groups[-1].mlp.width / largest.d_model)[0]) <= 0.51 * 2 / granularity


def test_fewer_experts_than_a_token_takes_are_refused_where_their_width_is_given():
    with pytest.raises(InputError, match="below `top_k` = 8"):
        replace(FAMILIES["olmoe"], top_k=8, granularity=4.0).architecture(np.array([1e9]), 4)
