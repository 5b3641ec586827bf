"""Families: exact counts between, beyond and outside the studied models, against the textbook formula."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import parse_fit
from analysis.fitting.fitted_to import counts, family_of
from analysis.laws import JOINT_MOE, model_family, studied_family
from analysis.laws.model_family import JOINT_MOE_2025, PolynomialFamily, TableFamily
from scaling.config import counts as cost
from scaling.config.model import ModelConfig
from scaling.errors import InputError
from scaling.values import FIT

COUNTS = ("n_active", "n_total", "n_active_nonembed", "n_total_nonembed", "n_dense_nonembed")
SHAPE = ("n_experts", "top_k", "d_model", "n_layers")


def rows_of(models):
    counts = [cost.parameters(model, 257) for model in models]
    return {name: np.array([getattr(row, name) for row in counts], dtype=float) for name in COUNTS} | {
        name: np.array([getattr(model, name) for model in models], dtype=float) for name in SHAPE
    }


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("experts", [(1, 4, 8), (4, 8), (1, 8)])
def test_models_that_were_not_studied_follow_exactly(top_k, experts):
    router = "switch" if top_k == 1 else "topk"
    width = {1: 2, 2: 1}[top_k]

    def model(e, d):
        return ModelConfig(n_experts=e, d_model=d, top_k=top_k, router=router, d_expert=width * d)

    family = studied_family.from_rows(rows_of([model(e, d) for e in experts for d in (32, 48, 64)]))
    assert isinstance(family, PolynomialFamily)
    for e, d in [(8, 80), (8, 160), (16, 96), (1, 112), (4, 16)]:  # between, beyond, another E, dense
        unseen = model(e, d)
        exact = cost.parameters(unseen, 257)
        sizes = family.sizes(np.array([float(exact.n_active)]), e)
        for name in COUNTS[1:]:
            assert getattr(sizes, name)[0] == pytest.approx(getattr(exact, name), rel=1e-9), name
        assert sizes.d_model[0] == pytest.approx(d, rel=1e-9)
        assert sizes.kv_elements_per_token[0] == pytest.approx(cost.kv_bytes_per_token(unseen) / 4, rel=1e-9)


def as_table(models):
    """The models as a study's rows hold them."""
    shape = {name: [getattr(model, name) for model in models] for name in (*SHAPE, "n_heads", "n_kv_heads")}
    return table_of(pd.DataFrame(rows_of(models)).assign(**shape, tokens=1e6, loss_val=3.0))


@pytest.mark.parametrize(("groups", "unseen"), [(lambda d: 1, 80), (lambda d: d // 32, 128)], ids=["one", "half"])
def test_a_family_has_the_cache_of_the_heads_that_were_trained(groups, unseen):
    """One group whatever the width, and groups of two heads: for sizes between and beyond, exactly."""

    def model(e, d):
        return ModelConfig(n_experts=e, d_model=d, n_kv_heads=groups(d))

    family = family_of(as_table([model(e, d) for e in (1, 8) for d in (32, 64, 96)]))
    assert isinstance(family, PolynomialFamily)
    for e in (1, 8):
        exact = cost.parameters(model(e, unseen), 257)
        sizes = family.sizes(np.array([float(exact.n_active)]), e)
        assert sizes.n_total[0] == pytest.approx(exact.n_total, rel=1e-9)
        assert sizes.kv_elements_per_token[0] == pytest.approx(cost.kv_bytes_per_token(model(e, unseen)) / 4, rel=1e-9)


def test_models_of_one_width_with_several_caches_are_no_family_and_multi_head_models_are_as_before():
    """Between them the cache is not a function of the size: beyond the largest it would grow without measure."""
    table = as_table([ModelConfig(n_experts=e, n_kv_heads=g) for e in (1, 8) for g in (1, 2, 4)])
    assert family_of(table) is None
    assert "d_model = 64 cache 32 to 128" in studied_family.contradiction(counts(table))
    plain = [ModelConfig(n_experts=e, d_model=d) for e in (1, 8) for d in (32, 64, 96)]
    assert family_of(as_table(plain)) == studied_family.from_rows(rows_of(plain))


def test_depth_that_grows_with_width_is_a_cubic():
    def model(e, d):
        return ModelConfig(n_experts=e, d_model=d, n_layers=d // 16, d_expert=2 * d)

    family = studied_family.from_rows(rows_of([model(e, d) for e in (1, 8) for d in (32, 48, 64, 96)]))
    unseen = cost.parameters(model(8, 128), 257)
    sizes = family.sizes(np.array([float(unseen.n_active)]), 8)
    assert sizes.n_total[0] == pytest.approx(unseen.n_total, rel=1e-9)
    assert sizes.n_layers[0] == pytest.approx(8)


@pytest.mark.parametrize(
    ("blocks", "e", "total", "active"),
    [(8, 1, 78_726_144, 78_726_144), (12, 8, 615_114_240, 169_207_296), (16, 32, 5_001_873_408, 321_030_144)],
)
def test_the_published_family_has_its_printed_counts(blocks, e, total, active):
    sizes = JOINT_MOE_2025.sizes(np.array([float(active)]), e)
    assert sizes.n_total[0] == pytest.approx(total, rel=1e-12)
    assert sizes.n_layers[0] == pytest.approx(blocks, rel=1e-12)
    assert sizes.kv_elements_per_token[0] == pytest.approx(2 * blocks * 64 * blocks, rel=1e-12)


def test_without_widths_counts_are_interpolated_and_unknown_experts_refused():
    frame = moe_grid(experts=(1, 8), widths=(32, 64, 128)).drop(columns=["d_model", "n_layers"])
    family = family_of(table_of(frame))
    assert isinstance(family, TableFamily)
    studied = frame[frame["n_experts"] == 8].drop_duplicates("n_active")
    sizes = family.sizes(studied["n_active"].to_numpy(dtype=float), 8)
    assert sizes.n_total == pytest.approx(studied["n_total"].to_numpy(dtype=float), rel=1e-12)
    assert sizes.kv_elements_per_token is None
    ends = studied["n_total"].to_numpy(dtype=float)
    middle = family.sizes(np.array([np.sqrt(studied["n_active"].iloc[0] * studied["n_active"].iloc[1])]), 8).n_total
    assert ends[0] < middle[0] < ends[1]
    with pytest.raises(InputError, match="n_experts=4 was not studied"):
        family.sizes(np.array([1e5]), 4)
    routed_only = family_of(table_of(frame[frame["n_experts"] == 8]))
    assert routed_only.sizes(np.array([1e5]), 1).n_total[0] == 1e5


def test_shapes_that_are_no_family_fall_back_to_interpolation():
    frame = moe_grid(experts=(1, 8), widths=(32, 48, 64, 96))
    odd = frame.assign(n_total=frame["n_total"] * np.where(frame["d_model"] == 48, 1.3, 1.0))
    assert isinstance(family_of(table_of(odd)), TableFamily)
    assert isinstance(family_of(table_of(frame)), PolynomialFamily)


def test_dense_studies_know_no_experts():
    family = family_of(table_of(moe_grid(experts=(1,), widths=(32, 48, 64))))
    assert family.sizes(np.array([1e5]), 1).n_total[0] == 1e5
    with pytest.raises(InputError, match="only dense models were studied"):
        family.sizes(np.array([1e5]), 8)


def test_fewer_experts_than_a_token_uses_are_refused():
    models = [
        ModelConfig(n_experts=e, d_model=d, top_k=4, router="topk", d_expert=d) for e in (8, 16) for d in (32, 48)
    ]
    family = studied_family.from_rows(rows_of(models))
    assert family.sizes(np.array([1e5]), 4).n_total[0] == pytest.approx(1e5)
    with pytest.raises(InputError, match="n_experts=2 is below top_k=4"):
        family.sizes(np.array([1e5]), 2)


def test_a_count_that_is_not_known_is_named():
    with pytest.raises(InputError, match="n_total does not follow from n_active at E = 4"):
        model_family.Sizes(4, 1, np.ones(1)).column("n_total")


@pytest.mark.parametrize(("columns", "kind"), [([], PolynomialFamily), (["d_model", "n_layers"], TableFamily)])
def test_a_family_survives_json(columns, kind):
    family = family_of(table_of(moe_grid(experts=(1, 8)).drop(columns=columns)))
    assert isinstance(family, kind)
    written = json.loads(json.dumps(FIT.document(Fit("hoffmann", {}, family=family))))
    assert parse_fit(written, "test").family == family


def test_a_table_without_active_sizes_has_no_family():
    assert studied_family.from_rows({"n_dense_nonembed": np.ones(3)}) is None


def two_kinds(frame):
    """Every model twice, with one expert a token and with two of half the size: N_active is the same."""
    expert = (frame["n_total"] - frame["n_active"]) / (frame["n_experts"] - 1).clip(lower=1)
    halves = frame.assign(top_k=2, n_total=frame["n_active"] + (frame["n_experts"] - 2) * expert / 2)
    return pd.concat([frame, halves[halves["n_experts"] > 1]], ignore_index=True)


def test_two_total_sizes_for_one_active_size_are_refused_and_said():
    frame = two_kinds(moe_grid(experts=(1, 8), widths=(32, 64, 128)))
    table = table_of(frame)
    assert family_of(table) is None
    smallest = frame.loc[frame["n_experts"] == 8, "n_active"].min()
    said = [warning for warning in fit(table, JOINT_MOE, pin=PLANTED_MOE).warnings if "n_total from" in warning]
    assert len(said) == 1
    assert said[0].startswith(f"E = 8: models of n_active = {smallest:.6g} have n_total from")
    chosen = table_of(frame[frame["top_k"] == 1])
    assert family_of(chosen) is not None
    assert not any("n_total from" in warning for warning in fit(chosen, JOINT_MOE, pin=PLANTED_MOE).warnings)


def test_a_width_that_the_active_size_does_not_determine_is_unknown():
    frame = moe_grid(experts=(1, 8), widths=(32, 64, 128))
    deeper = frame.assign(n_layers=4, d_model=frame["d_model"] // 2)
    family = family_of(table_of(pd.concat([frame, deeper], ignore_index=True)))
    sizes = family.sizes(np.array([1e5]), 8)
    assert sizes.n_total is not None
    assert sizes.n_layers is None
    assert sizes.kv_elements_per_token is None


@pytest.mark.parametrize("columns", [[], ["d_model", "n_layers"]])
@pytest.mark.parametrize("k", [0.0, np.nan, 1.0, 7.0])
def test_the_k_of_dense_models_hides_nothing(columns, k):
    """Whatever stands there: the shapes of the routed models are those of the table with k = 2 throughout."""
    frame = moe_grid(experts=(1, 8)).assign(top_k=2).drop(columns=columns)
    family = family_of(table_of(frame.assign(top_k=np.where(frame["n_experts"] == 1, k, 2.0))))
    as_given = family_of(table_of(frame))
    size = np.array([2e5])
    assert family.sizes(size, 8).top_k == as_given.sizes(size, 8).top_k == 2
    assert family.sizes(size, 8).n_total == pytest.approx(as_given.sizes(size, 8).n_total)
    assert family.sizes(size, 1).top_k is not None


def test_k_may_be_one_for_each_expert_count():
    frame = moe_grid(experts=(1, 8, 16))
    frame["top_k"] = frame["n_experts"].map({1: 1, 8: 2, 16: 4})
    family = family_of(table_of(frame))
    assert [family.sizes(np.array([2e5]), e).top_k for e in (1, 8, 16)] == [1, 2, 4]
    written = json.loads(json.dumps(FIT.document(Fit("hoffmann", {}, family=family))))
    assert parse_fit(written, "test").family == family
    mixed = frame.assign(top_k=np.where(frame["tokens"] > 1e6, 2, frame["top_k"]))
    assert family_of(table_of(mixed)).sizes(np.array([2e5]), 16).top_k is None
