"""The architecture of a public model from its configuration file in the format of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.architecture import (
    Architecture,
    Attention,
    Experts,
    HeadAttention,
    LatentAttention,
    Layers,
    LinearAttention,
    Mlp,
)
from scaling.bounds import MOST_EXPERTS
from scaling.errors import InputError
from scaling.json_text import read_json

_MOST = 10_000_000  # of any width, rank or vocabulary
_MOST_LAYERS = 10_000
# Model types whose MLP has two matrices; of all others the third gates.
_NOT_GATED = frozenset({
    "bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt", "nemotron", "opt", "phi",
    "starcoder2",
})  # fmt: skip
# Model types that tie embedding and head unless they say otherwise.
_TIED = frozenset({
    "bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_bigcode",
    "gpt_neo", "mpt", "opt",
})  # fmt: skip
# Fields of architectures whose layers are none of those described here, with what they are.
_UNREADABLE = {
    "attn_layer_period": "layers of Mamba between attention",
    "mamba_d_state": "layers of Mamba",
    "hybrid_override_pattern": "layers of Mamba between attention",
    "ssm_cfg": "a state-space model",
    "rwkv_version": "RWKV",
    "ffn_config": "a nested ffn_config",
    "block_configs": "layers that differ one by one",
    "encoder_layers": "an encoder beside the decoder",
    "num_decoder_layers": "an encoder beside the decoder",
    "index_topk": "sparse attention that an indexer chooses",
}
_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"


def read_hub_config(path: str | Path) -> Architecture:
    """The architecture in a `config.json`; the model is called as the file, or as its folder.

    Read are width, layers, heads, head width, vocabulary; grouped-query or latent attention; sliding windows and linear
    attention by `layer_types`; routed and shared experts, and leading or interleaved dense layers; all of it also where
    it nests in `text_config`. Raises InputError naming the file and the field that is missing, wrong or not understood.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    try:
        document = read_json(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: a model's configuration is an object of fields")
    name = path.parent.name if path.stem == "config" and path.parent.name else path.stem
    return hub_architecture(document, name, str(path))


def hub_architecture(document: Mapping[str, Any], name: str, source: str) -> Architecture:
    """The architecture that a hub configuration describes; `source` is named in messages."""
    nested = document.get("text_config")
    fields = _Fields({**document, **nested} if isinstance(nested, dict) else document, source)
    for key, what in _UNREADABLE.items():
        if fields.given(key):
            raise InputError(f"{source}: `{key}`: {what}: this architecture cannot be read")
    d_model, n_layers = fields.whole("hidden_size", "n_embd", "d_model"), fields.layers()
    kinds, mlps = _attentions(fields, d_model, n_layers), _mlps(fields, n_layers)
    vocabulary = fields.whole("vocab_size")
    tied, notes = fields.value("tie_word_embeddings"), []
    if tied is None:
        tied = fields.model_type in _TIED
        notes.append(f"tie_word_embeddings is not given: {'tied' if tied else 'not tied'} assumed")
    if not isinstance(tied, bool):
        raise InputError(f"{source}: `tie_word_embeddings` must be true or false, found {tied!r}")
    return Architecture(name, d_model, vocabulary, _grouped(kinds, mlps), tied, source, tuple(notes))


class _Fields:
    """The fields of a configuration, checked as they are asked for."""

    def __init__(self, document: Mapping[str, Any], source: str) -> None:
        self.document, self.source = document, source
        self.model_type = str(document.get("model_type", ""))

    def value(self, name: str) -> Any:
        return self.document.get(name)

    def given(self, name: str) -> bool:
        return self.document.get(name) is not None

    def whole(self, *names: str, default: int | None = None, least: int = 1, most: int = _MOST) -> int:
        """The first of these fields that is given, as a whole number. Raises InputError where none is."""
        for name in names:
            value = self.document.get(name)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                    raise InputError(
                        f"{self.source}: `{name}` must be a whole number from {least} to {most}, found {value!r}"
                    )
                return value
        if default is None:
            raise InputError(f"{self.source}: the field `{names[0]}` is missing")
        return default

    def layers(self) -> int:
        return self.whole("num_hidden_layers", "n_layer", "n_layers", most=_MOST_LAYERS)


def _attentions(fields: _Fields, d_model: int, n_layers: int) -> list[Attention]:
    """The attention of every layer."""
    types = _layer_types(fields, n_layers)
    full = _full_attention(fields, d_model)
    made: dict[str, Attention] = {_FULL: full}
    if _SLIDING in types:
        if not isinstance(full, HeadAttention):
            raise InputError(f"{fields.source}: `layer_types`: latent attention with a window cannot be read")
        window = fields.whole("sliding_window", "attention_chunk_size")
        made[_SLIDING] = HeadAttention(full.n_heads, full.n_kv_heads, full.head_dim, window, full.gated)
    if _LINEAR in types:
        made[_LINEAR] = _linear_attention(fields, d_model)
    return [made[kind] for kind in types]


def _layer_types(fields: _Fields, n_layers: int) -> list[str]:
    """Full, sliding or linear attention, by layer."""
    given = fields.value("layer_types")
    if given is None:
        window = fields.value("sliding_window")
        if window is None or fields.value("use_sliding_window") is False:
            return [_FULL] * n_layers
        period = fields.value("sliding_window_pattern") or {"gemma2": 2, "gpt_oss": 2}.get(fields.model_type)
        if period:
            sliding_first = fields.model_type == "gpt_oss"
            period = fields.whole("sliding_window_pattern", default=period)
            full = [
                (i % period == 1) if sliding_first and period == 2 else (i + 1) % period == 0 for i in range(n_layers)
            ]
            return [_FULL if each else _SLIDING for each in full]
        first = fields.whole("max_window_layers", default=0, least=0) if fields.given("use_sliding_window") else 0
        return [_FULL] * min(first, n_layers) + [_SLIDING] * max(n_layers - first, 0)
    names = {_FULL: _FULL, "attention": _FULL, _SLIDING: _SLIDING, "chunked_attention": _SLIDING, _LINEAR: _LINEAR}
    if not isinstance(given, list) or len(given) != n_layers:
        raise InputError(f"{fields.source}: `layer_types` must list the kinds of all {n_layers} layers")
    unknown = next((kind for kind in given if kind not in names), None)
    if unknown is not None:
        raise InputError(
            f"{fields.source}: `layer_types` names {unknown!r}, which is not known; known: {', '.join(names)}"
        )
    return [names[kind] for kind in given]


def _full_attention(fields: _Fields, d_model: int) -> Attention:
    heads = fields.whole("num_attention_heads", "n_head", "num_heads")
    if fields.given("kv_lora_rank"):
        return LatentAttention(
            n_heads=heads,
            q_lora_rank=fields.whole("q_lora_rank", default=0, least=0),
            kv_lora_rank=fields.whole("kv_lora_rank"),
            qk_nope_head_dim=fields.whole("qk_nope_head_dim"),
            qk_rope_head_dim=fields.whole("qk_rope_head_dim"),
            v_head_dim=fields.whole("v_head_dim"),
        )
    width = fields.whole("head_dim", default=d_model // heads)
    groups = fields.whole("num_key_value_heads", default=1 if fields.value("multi_query") is True else heads)
    if groups > heads:
        raise InputError(f"{fields.source}: `num_key_value_heads` = {groups} of `num_attention_heads` = {heads}")
    return HeadAttention(heads, groups, width, gated=fields.value("attn_output_gate") is True)


def _linear_attention(fields: _Fields, d_model: int) -> LinearAttention:
    """Gated DeltaNet as in Qwen3-Next: a key x value matrix a head, and a short convolution."""
    keys = fields.whole("linear_num_key_heads") * fields.whole("linear_key_head_dim")
    heads = fields.whole("linear_num_value_heads")
    values = heads * fields.whole("linear_value_head_dim")
    kernel = fields.whole("linear_conv_kernel_dim", default=4)
    convolved = 2 * keys + values
    weights = d_model * (convolved + values + 2 * heads) + convolved * kernel + values * d_model
    state = heads * fields.whole("linear_key_head_dim") * fields.whole("linear_value_head_dim")
    return LinearAttention(float(weights), float(state + convolved * (kernel - 1)))


def _mlps(fields: _Fields, n_layers: int) -> list[Mlp | Experts]:
    """The MLP or the experts of every layer."""
    gated = fields.model_type not in _NOT_GATED
    experts = fields.whole(
        "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", default=1, most=MOST_EXPERTS
    )
    default_width = 4 * fields.whole("hidden_size", "n_embd", "d_model") if not gated else None
    inner = fields.whole("intermediate_size", "n_inner", "ffn_dim", default=default_width)
    if experts == 1:
        return [Mlp(inner, gated)] * n_layers
    top_k = fields.whole("num_experts_per_tok", "experts_per_token", "moe_topk", "num_experts_per_token", most=experts)
    width = fields.whole("moe_intermediate_size", "expert_ffn_hidden_size", default=inner)
    shared = fields.whole("shared_expert_intermediate_size", default=0, least=0)
    shared = shared or width * fields.whole("n_shared_experts", "num_shared_experts", default=0, least=0)
    if fields.model_type.startswith("llama4"):
        shared = inner  # one shared expert of the width of a routed one, which no field names
    dense = Mlp(fields.whole("intermediate_size_mlp", default=inner), gated)
    routed = Experts(experts, top_k, width, shared, gated)
    return [routed if each else dense for each in _routed_layers(fields, n_layers)]


def _routed_layers(fields: _Fields, n_layers: int) -> list[bool]:
    """Which layers have experts: all but leading dense ones, those listed, or every so many."""
    listed = fields.value("mlp_only_layers")
    dense = {each for each in listed if isinstance(each, int)} if isinstance(listed, list) else set()
    first = fields.whole("first_k_dense_replace", "moe_layer_start_index", default=0, least=0)
    period = fields.whole("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", default=1)
    late = not fields.given("moe_layer_freq")  # steps count layers from 1, DeepSeek's frequency from 0
    return [
        layer >= first and layer not in dense and (layer + late) % period == 0 for layer in range(n_layers)
    ]  # fmt: skip


def _grouped(kinds: list[Attention], mlps: list[Mlp | Experts]) -> tuple[Layers, ...]:
    """Equal layers together, in the order of their first."""
    counts: dict[tuple[int, int], tuple[Attention, Mlp | Experts, int]] = {}
    for attention, mlp in zip(kinds, mlps, strict=True):
        key = id(attention), id(mlp)
        counts[key] = (attention, mlp, counts[key][2] + 1 if key in counts else 1)
    return tuple(Layers(count, attention, mlp) for attention, mlp, count in counts.values())
