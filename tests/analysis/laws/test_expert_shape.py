"""The shape of experts, by each law's own definition: public models, and families of studied models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.decision.lineage import sizes_of_lineage
from analysis.laws import studied_family
from analysis.laws.expert_shape import shape_of_architecture
from analysis.laws.model_family import FINE_GRAINED_2024
from scaling.config import counts as cost
from scaling.config.counts import architecture_of
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from scaling.serving.families import FAMILIES
from scaling.serving.public_models import public_model


@pytest.mark.parametrize(
    ("name", "granularity", "active", "shared", "ratio"),
    [
        ("mixtral-8x7b", 2 * 4096 / 14336, 2, 0.0, 2 / 8),
        ("deepseek-v3", 2 * 7168 / 2048, 9, 1 / 9, 9 / 257),
        ("olmoe-1b-7b", 2 * 2048 / 1024, 8, 0.0, 8 / 64),
    ],
)
def test_public_models_have_the_shape_of_their_cards(name, granularity, active, shared, ratio):
    """d_model and d_expert are those of the models' `config.json`."""
    shape = shape_of_architecture(public_model(name))
    expected = {
        "granularity": granularity,
        "active_experts": active,
        "shared_share": shared,
        "activation_ratio": ratio,
    }
    assert {column: float(shape[column]) for column in expected} == pytest.approx(expected, rel=1e-12)


def test_a_lineage_divides_a_tokens_experts_and_keeps_the_widths_together():
    wanted = np.array([3e9, 30e9])
    for k in (1, 4, 8):
        family = replace(FAMILIES["olmoe"], top_k=k)
        sizes = sizes_of_lineage(family, wanted, 64)
        np.testing.assert_allclose(sizes.column("granularity"), 2 * 2048 / (8 * 1024) * k, rtol=1e-9)
        np.testing.assert_allclose(sizes.column("activation_ratio"), k / 64, rtol=1e-12)
        np.testing.assert_allclose(sizes.column("active_experts"), k, rtol=1e-12)
    dense = sizes_of_lineage(FAMILIES["deepseek"], wanted, 1)
    np.testing.assert_allclose(dense.column("granularity"), 2 * 7168 / (9 * 2048), rtol=1e-9)
    assert dense.column("activation_ratio").tolist() == [1.0, 1.0]
    assert dense.column("shared_share").tolist() == [0.0, 0.0]


def rows(models, **columns):
    names = ("n_active", "n_total")
    counts = [cost.parameters(model, 257) for model in models]
    found = {name: np.array([getattr(row, name) for row in counts], dtype=float) for name in names}
    shape = ("n_experts", "top_k", "d_model", "n_layers")
    found |= {name: np.array([getattr(model, name) for model in models], dtype=float) for name in shape}
    return found | {name: np.array(value, dtype=float) for name, value in columns.items()}


def test_families_of_runs_keep_what_all_their_models_agree_in():
    models = [ModelConfig(n_experts=e, d_model=d, top_k=2, router="topk", d_expert=d) for e in (4, 8) for d in (32, 64)]
    family = studied_family.from_rows(rows(models, granularity=[2.0] * 4, active_experts=[2] * 4, shared_share=[0] * 4))
    sizes = family.sizes(np.array([1e6, 1e7]), 16)
    assert [float(sizes.column(name)[1]) for name in ("granularity", "active_experts", "activation_ratio")] == [
        2.0,
        2.0,
        2 / 16,
    ]
    mixed = studied_family.from_rows(rows(models, granularity=[2.0, 2.0, 2.0, 4.0]))
    assert mixed.sizes(np.array([1e6]), 8).granularity is None


def test_the_run_table_counts_granularity_as_a_lineage_does():
    """2 d_model / d_expert in both, also where a dense model is a single wide expert."""
    for model in (
        ModelConfig(n_experts=8, d_model=64, top_k=2, router="topk", d_expert=48),
        ModelConfig(n_experts=1, d_model=64, d_expert=96),
    ):
        row = describe(RunConfig(model=model), "")
        assert float(shape_of_architecture(architecture_of(model, 257))["granularity"]) == row["granularity"]


@pytest.mark.parametrize("parts", [1, 4, 16])
def test_a_divided_family_is_the_table_of_krajewski(parts):
    """N and N_active of arXiv 2402.07871, section 5: d^2 (8 E + 4) n and 12 d^2 n, whatever G; a router of d E G."""
    n, width = 8.0, 512.0
    sizes = FINE_GRAINED_2024.divided(parts).sizes(np.array([12 * width**2 * n]), 64 * parts)
    assert (sizes.top_k, sizes.n_experts) == (parts, 64 * parts)
    expected = {
        "n_total": width**2 * (8 * 64 + 4) * n,
        "n_router": width * 64 * parts * n,
        "n_routing": 14 / 6 * width * 64 * parts * n,
        "granularity": parts,
        "active_experts": parts,
        "activation_ratio": 1 / 64,
        "d_model": width,
    }
    found = {name: float(getattr(sizes, name)[0]) for name in expected}
    assert found == pytest.approx(expected, rel=1e-9)
