"""Names of columns in serving benchmarks of other tools, and what each measures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.latency.cells import DTYPES
from analysis.latency.time_units import unit_of

# Ours first; then vLLM's and SGLang's serving benchmarks, their results, and the fields of hub configurations.
NAMES: Mapping[str, tuple[str, ...]] = {
    "n_active": ("n_active",),
    "n_total": ("n_total",),
    "n_layers": ("n_layers", "num_hidden_layers"),
    "d_model": ("d_model", "hidden_size"),
    "n_experts": ("n_experts", "num_experts", "num_local_experts", "n_routed_experts"),
    "top_k": ("top_k", "topk", "num_experts_per_tok"),
    "n_router": ("n_router",),
    "n_heads": ("n_heads", "num_attention_heads"),
    "n_kv_heads": ("n_kv_heads", "num_key_value_heads", "kv_heads"),
    "head_dim": ("head_dim",),
    "kv_elements_per_token": ("kv_elements_per_token",),
    # A concurrency that was measured is what there was; the limit on it may not have been reached.
    "batch": ("batch", "concurrency", "max_concurrency", "maximum_request_concurrency", "conc", "batch_size"),
    "prompt": ("prompt", "input_len", "random_input_len", "input_tokens", "isl", "input_sequence_length"),
    "generated": ("generated", "output_len", "random_output_len", "output_tokens", "osl", "output_sequence_length"),
    "n_devices": ("n_devices", "tensor_parallel_size", "tp_size", "tp", "num_gpus", "n_gpus"),
    "request_rate": ("request_rate",),
    "completed": ("completed", "successful_requests"),
    "total_input_tokens": ("total_input_tokens",),
    "total_output_tokens": ("total_output_tokens",),
}
WEIGHTS = ("quantization", "precision", "weight_dtype", "dtype")
CACHE = ("kv_dtype", "kv_cache_dtype")
_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
PRECISIONS: Mapping[str, str] = {
    **{word: _FORMATS[ours] for word, ours in DTYPES.items()},
    **dict.fromkeys(("fp8", "float8", "float8_e4m3fn", "float8_e4m3", "e4m3", "fp8_e4m3", "fp8_block"), "fp8"),
    **dict.fromkeys(("int8", "w8a8", "w8a8_int8"), "int8"),
    **dict.fromkeys(("int4", "awq", "gptq", "w4a16"), "int4"),
    **{word: word for word in ("mxfp4", "nvfp4", "fp4")},
}
"""Number formats of `scaling.serving.precision` by their spellings."""
SPLITS = ("pipeline_parallel_size", "pp_size", "pp", "data_parallel_size", "dp_size", "dp", "attention_dp_size")
"""Ways of splitting a replica, or of counting several as one, that are not modelled."""
DEVICES = ("device", "device_name", "device_kind", "gpu", "gpu_name", "gpu_type", "hardware", "hw", "accelerator")
TRAINING = (
    *("loss", "loss_val", "val_loss", "loss_train", "train_loss", "final_loss", "eval_loss", "train_flops"),
    *(
        "batch_tokens",
        "lr",
        "learning_rate",
        "warmup_tokens",
        "weight_decay",
        "grad_norm",
        "trunk_id",
        "train_s",
        "mfu",
    ),
)
"""Columns of a table of training runs."""

_PER_SECOND = r"(?:_?(?:per_s|per_sec|per_second|s))"
_TOKENS = rf"(?:tokens{_PER_SECOND}|tok{_PER_SECOND}|token_throughput(?:_tok_s)?|throughput(?:_tok_s)?|tps)"
_KINDS = (
    ("output", re.compile(rf"(?:output|generated|generation|decode)_{_TOKENS}")),
    ("total", re.compile(rf"total_{_TOKENS}")),
    ("requests", re.compile(rf"(?:request_throughput(?:_req_s)?|requests?{_PER_SECOND}|req{_PER_SECOND}|rps|qps)")),
    ("generic", re.compile(rf"(?:tokens{_PER_SECOND}|tok{_PER_SECOND}|tps|token_throughput)")),
)
_SHARED = re.compile(r"(?P<rate>.+?)_(?:per_)?(?P<by>gpu|device|chip|accelerator|user)")
_TIMES = {
    "tpot": ("tpot", "mean_tpot", "median_tpot", "p50_tpot", "avg_tpot", "time_per_output_token"),
    "ttft": ("ttft", "mean_ttft", "median_ttft", "p50_ttft", "avg_ttft", "time_to_first_token"),
}


@dataclass(frozen=True)
class Measure:
    """What a column measures. `kind`: output, total, requests or generic (tokens or requests per second), tpot, ttft.

    `by`: what a rate is of: "" a replica, "device" one device of it, "user" one sequence. `unit`: milliseconds of a
    time's unit.
    """

    column: str
    kind: str
    by: str = ""
    unit: float = 1.0


def plain_name(column: str) -> str:
    """A column's name in lower case, with underscores between its words."""
    return re.sub(r"[^0-9a-zµμ]+", "_", column.strip().lower()).strip("_")


def measure_of(column: str) -> Measure | None:
    """What a column measures, by its name; None where it is none of the measures that are known."""
    name = plain_name(column)
    for kind, bases in _TIMES.items():
        unit = unit_of(name, bases)
        if unit is not None:
            return Measure(column, kind, unit=unit)
    shared = _SHARED.fullmatch(name)
    rate, by = (name, "") if shared is None else (str(shared["rate"]), "user" if shared["by"] == "user" else "device")
    of_rate = next((kind for kind, pattern in _KINDS if pattern.fullmatch(rate)), None)
    return None if of_rate is None else Measure(column, of_rate, by)


def without_unit(column: str) -> str | None:
    """tpot or ttft for a column that is one by name and does not say its unit."""
    name = plain_name(column)
    return next((kind for kind, bases in _TIMES.items() if name in bases), None)
