"""Architectures of public models by name, as numbers from their published configurations.

Each total is within 1 % of the count that its authors publish (`tests/serving/test_public_models.py`).
"""

from __future__ import annotations

from scaling.architecture import Architecture, Experts, HeadAttention, LatentAttention, Layers, Mlp
from scaling.distribution import Registry
from scaling.errors import InputError

_LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


def _grouped_query(heads: int, groups: int, head_dim: int, window: int | None = None) -> HeadAttention:
    return HeadAttention(heads, groups, head_dim, window)


def _gpt_oss(name: str, layers: int, experts: int) -> Architecture:
    """Every other layer attends to 128 tokens (arXiv 2508.10925)."""
    routed = Experts(experts, 4, 2880)
    groups = tuple(Layers(layers // 2, _grouped_query(64, 8, 64, window), routed) for window in (128, None))
    return Architecture(name, 2880, 201_088, groups, source="arXiv 2508.10925; openai/gpt-oss")


def _like_deepseek_v3(name: str, heads: int, experts: int, dense: int, vocabulary: int, source: str) -> Architecture:
    attention = LatentAttention(heads, q_lora_rank=1536, **_LATENT)
    groups = (Layers(dense, attention, Mlp(18_432)), Layers(61 - dense, attention, Experts(experts, 8, 2048, 2048)))
    return Architecture(name, 7168, vocabulary, groups, source=source)


def _uniform(
    name: str, d_model: int, layers: int, attention: HeadAttention, mlp: Mlp | Experts, vocabulary: int, source: str
) -> Architecture:
    return Architecture(name, d_model, vocabulary, (Layers(layers, attention, mlp),), source=source)


_V3 = "arXiv 2412.19437, without the multi-token-prediction layer"
_LLAMA, _QWEN3, _MIXTRAL = "arXiv 2407.21783", "arXiv 2505.09388", "arXiv 2401.04088; mistralai/"
_TABLE = (
    _uniform("mixtral-8x7b", 4096, 32, _grouped_query(32, 8, 128), Experts(8, 2, 14_336), 32_000,
             f"{_MIXTRAL}Mixtral-8x7B-v0.1"),
    _uniform("mixtral-8x22b", 6144, 56, _grouped_query(48, 8, 128), Experts(8, 2, 16_384), 32_000,
             f"{_MIXTRAL}Mixtral-8x22B-v0.1"),
    _like_deepseek_v3("deepseek-v3", 128, 256, 3, 129_280, _V3),
    _like_deepseek_v3("kimi-k2", 64, 384, 1, 163_840, "arXiv 2507.20534"),
    Architecture("deepseek-v2-lite", 2048, 102_400, (
        Layers(1, LatentAttention(16, 0, **_LATENT), Mlp(10_944)),
        Layers(26, LatentAttention(16, 0, **_LATENT), Experts(64, 6, 1408, 2 * 1408)),
    ), source="arXiv 2405.04434"),
    _uniform("qwen3-30b-a3b", 2048, 48, _grouped_query(32, 4, 128), Experts(128, 8, 768), 151_936, _QWEN3),
    _uniform("qwen3-235b-a22b", 4096, 94, _grouped_query(64, 4, 128), Experts(128, 8, 1536), 151_936, _QWEN3),
    _uniform("qwen3-8b", 4096, 36, _grouped_query(32, 8, 128), Mlp(12_288), 151_936, _QWEN3),
    _uniform("qwen3-32b", 5120, 64, _grouped_query(64, 8, 128), Mlp(25_600), 151_936, _QWEN3),
    _gpt_oss("gpt-oss-20b", 24, 32),
    _gpt_oss("gpt-oss-120b", 36, 128),
    _uniform("llama-3.1-8b", 4096, 32, _grouped_query(32, 8, 128), Mlp(14_336), 128_256, _LLAMA),
    _uniform("llama-3.1-70b", 8192, 80, _grouped_query(64, 8, 128), Mlp(28_672), 128_256, _LLAMA),
    _uniform("llama-3.1-405b", 16_384, 126, _grouped_query(128, 8, 128), Mlp(53_248), 128_256, _LLAMA),
    _uniform("olmoe-1b-7b", 2048, 16, _grouped_query(16, 16, 128), Experts(64, 8, 1024), 50_304, "arXiv 2409.02060"),
)  # fmt: skip
PUBLIC_MODELS = Registry("scaling.models", Architecture, {model.name: model for model in _TABLE})
"""Architectures by name; other distributions register theirs with entry points of the group `scaling.models`."""


def public_model(name: str) -> Architecture:
    """The architecture of a public model. Raises InputError listing the names."""
    if name.lower() not in PUBLIC_MODELS:
        raise InputError(f"`model`: found {name!r}; allowed: {', '.join(PUBLIC_MODELS)}, or a config.json")
    return PUBLIC_MODELS[name.lower()]
