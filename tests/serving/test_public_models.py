"""Public models: published totals and active counts, exact cache bytes, and what a configuration file must say."""

from __future__ import annotations

import json

import pytest
from planted import public_data

from scaling.architecture import Experts, HeadAttention, LatentAttention
from scaling.errors import InputError
from scaling.serving.hub_config import hub_architecture, read_hub_config
from scaling.serving.public_models import PUBLIC_MODELS, public_model

# Published totals in 1e9 parameters, active counts as printed, with the embedding and the head that they count, and
# bytes of the cache in bf16 per token (of full layers, before a window is full).
PUBLISHED = {
    "mixtral-8x7b": (46.7, ("12.9", True, True), 131_072),
    "mixtral-8x22b": (140.6, ("39.1", True, True), 229_376),
    "deepseek-v3": (671.0, ("37", False, True), 70_272),
    "kimi-k2": (1026.0, ("32", False, True), 70_272),
    "deepseek-v2-lite": (15.7, ("2.4", False, True), 31_104),
    "qwen3-30b-a3b": (30.5, ("3.3", True, True), 98_304),
    "qwen3-235b-a22b": (235.0, ("22", True, True), 192_512),
    "qwen3-8b": (8.2, ("6.95", False, False), 147_456),
    "qwen3-32b": (32.8, ("31.2", False, False), 262_144),
    "gpt-oss-20b": (20.9, ("3.6", False, True), 49_152),
    "gpt-oss-120b": (116.8, ("5.1", False, True), 73_728),
    "llama-3.1-8b": (8.03, ("8.03", True, True), 131_072),
    "llama-3.1-70b": (70.6, ("70.6", True, True), 327_680),
    "llama-3.1-405b": (405.9, ("405.9", True, True), 516_096),
    "olmoe-1b-7b": (6.92, ("1.3", True, True), 131_072),
}


def test_every_model_has_its_published_counts():
    assert set(PUBLISHED) <= set(PUBLIC_MODELS)
    for name, (total, (active, embedding, head), cache) in PUBLISHED.items():
        model = public_model(name)
        assert model.n_total / 1e9 == pytest.approx(total, rel=0.01), name
        digits = len(active.partition(".")[2])
        counted = model.n_active(embedding=embedding, head=head) / 1e9
        # Some cards round and some cut off (3.35 is printed as 3.3, 2.45 as 2.4): less than one unit of the last digit.
        assert abs(counted - float(active)) < 10.0**-digits, (name, counted)
        assert 2 * model.cache_elements_per_token == cache, name


def test_gpt_oss_caches_half_its_layers_within_the_window_alone():
    model = public_model("gpt-oss-120b")
    assert 2 * model.cache_elements(100) == 100 * 73_728
    assert 2 * (model.cache_elements(5_000) - model.cache_elements(4_999)) == 36_864
    assert 2 * model.cache_elements(128) - 128 * 36_864 == 128 * 36_864


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Mixtral-8x7B-v0.1", "mixtral-8x7b"),
        ("Mixtral-8x22B-v0.1", "mixtral-8x22b"),
        ("DeepSeek-V3", "deepseek-v3"),
        ("Qwen3-30B-A3B", "qwen3-30b-a3b"),
        ("Qwen3-32B", "qwen3-32b"),
        ("gpt-oss-20b", "gpt-oss-20b"),
        ("gpt-oss-120b", "gpt-oss-120b"),
        ("Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("Meta-Llama-3.1-70B", "llama-3.1-70b"),
    ],
)
def test_a_public_configuration_gives_the_model_of_its_name(file, name):
    read = read_hub_config(public_data(f"serving/model_configs/{file}.json"))
    ours = public_model(name)
    assert read.parameters() == ours.parameters()
    for context in (1, 100, 4_096):
        assert read.cache_elements(context) == ours.cache_elements(context)
        for decode in (False, True):
            assert read.attention_flops(context, decode=decode) == ours.attention_flops(context, decode=decode)


MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "intermediate_size": 96,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}


def test_fields_nest_under_text_config_and_say_which_layers_are_routed():
    nested = hub_architecture({"model_type": "x", "text_config": MIXTRAL}, "m", "m")
    assert nested.parameters() == hub_architecture(MIXTRAL, "m", "m").parameters()
    first = hub_architecture({**MIXTRAL, "first_k_dense_replace": 1, "moe_intermediate_size": 32}, "m", "m")
    assert first.n_routed_layers == 3
    assert first.parameters()["dense"] == 3 * 64 * 96
    assert first.parameters()["experts"] == 3 * 8 * 3 * 64 * 32
    assert hub_architecture({**MIXTRAL, "decoder_sparse_step": 2}, "m", "m").n_routed_layers == 2
    assert hub_architecture({**MIXTRAL, "mlp_only_layers": [0, 3]}, "m", "m").n_routed_layers == 2
    shared = hub_architecture({**MIXTRAL, "n_shared_experts": 2, "moe_intermediate_size": 32}, "m", "m")
    assert shared.parameters()["shared"] == 4 * 3 * 64 * 64


def test_linear_attention_keeps_a_state_and_no_growing_cache():
    linear = {
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_num_value_heads": 4, "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    }  # fmt: skip
    model = hub_architecture({**MIXTRAL, **linear}, "m", "m")
    one_layer = 2 * 2 * 16
    assert model.cache_elements_per_token == one_layer
    growth = model.cache_elements(1_001) - model.cache_elements(1_000)
    assert growth == one_layer
    assert model.cache_elements(0) == 3 * (4 * 8 * 8 + (2 * 16 + 32) * 3)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"num_key_value_heads": 8}, "num_key_value_heads"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
        ({"layer_types": ["mamba"] * 4}, "mamba"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(change, field, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**MIXTRAL, **change}))
    with pytest.raises(InputError, match=field) as refused:
        read_hub_config(path)
    assert "config.json" in str(refused.value)


def test_attention_in_decode_works_on_the_latent_vector():
    latent = LatentAttention(128, 1536, 512, 128, 64, 128)
    assert latent.flops_per_pair(decode=True) == 2 * 128 * (2 * 512 + 64)
    assert latent.flops_per_pair(decode=False) == 2 * 128 * (128 + 64 + 128)
    assert HeadAttention(32, 8, 128).flops_per_pair(decode=True) == 4 * 32 * 128


def test_k_beyond_e_is_refused():
    with pytest.raises(InputError, match="top_k"):
        Experts(8, 9, 32)
