"""The columns of the tables, with type, unit and meaning: the contract between training and analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.errors import InputError
from scaling.files import write_atomically

SCHEMA_VERSION = 1
Table = Literal["runs", "evals", "curves", "latency"]


@dataclass(frozen=True)
class SchemaColumn:
    """One column of a table: Arrow type, unit ("" for a pure number or a name) and meaning.

    better: `lower` or `higher`, for a metric of a task whose direction is recorded; "" for any other column.
    """

    type: pa.DataType
    unit: str
    meaning: str
    better: str = ""


_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


RUNS: dict[str, SchemaColumn] = {
    "run_id": SchemaColumn(_TEXT, "", "content hash of what shapes the training"),
    "trunk_id": SchemaColumn(_TEXT, "", "the same hash without the token budget: rows of one trunk are correlated"),
    "configuration": SchemaColumn(_TEXT, "", "the same hash without seed and token budget: its runs are replicates"),
    "config": SchemaColumn(_TEXT, "", "everything that shaped the training, as JSON; run_id is its hash"),
    "study": SchemaColumn(_TEXT, "", "name of the study"),
    "task": SchemaColumn(_TEXT, "", "name of the task (`scaling.tasks`): lm, the language model, or another"),
    "status": SchemaColumn(_TEXT, "", "ok, diverged, oom, timeout or error; only ok rows have a loss"),
    "error": SchemaColumn(_TEXT, "", "error message, empty when ok"),
    "seed": SchemaColumn(_INT, "", "seed of initial weights and data order"),
    "n_experts": SchemaColumn(_INT, "", "E, experts per MoE layer"),
    "top_k": SchemaColumn(_INT, "", "k, experts per token"),
    "d_model": SchemaColumn(_INT, "", "width of the residual stream"),
    "n_layers": SchemaColumn(_INT, "", "Transformer blocks (attention and MLP)"),
    "n_heads": SchemaColumn(_INT, "", "attention heads"),
    "n_kv_heads": SchemaColumn(
        _INT, "", "groups of heads that share keys and values (arXiv 2305.13245); n_heads where none do"
    ),
    "d_head": SchemaColumn(_INT, "", "width of a head; d_model / n_heads in rows without it"),
    "d_expert": SchemaColumn(_INT, "", "hidden units of one expert"),
    "vocab_size": SchemaColumn(_INT, "", "symbols of the tokeniser, including the separator"),
    "router": SchemaColumn(_TEXT, "", "how tokens choose experts; dense at E = 1"),
    "dispatch": SchemaColumn(_TEXT, "", "how tokens reach experts; dense at E = 1"),
    "experts": SchemaColumn(_TEXT, "", "what an expert is: mlp, shared, cp, ring, lora; mlp at E = 1"),
    "granularity": SchemaColumn(
        _REAL, "", "G, 2 d_model / d_expert: experts that make up the default dense MLP (arXiv 2402.07871, section 3)"
    ),
    "tokens": SchemaColumn(_INT, "tokens", "D, training tokens (achieved, in whole batches)"),
    "tokens_requested": SchemaColumn(_INT, "tokens", "training tokens that the grid requested"),
    "tokens_own": SchemaColumn(
        _INT, "tokens", "training tokens of this cell alone; it shares the rest with its trunk (arXiv 2405.18392)"
    ),
    "epochs": SchemaColumn(_REAL, "", "tokens over the tokens of the training split"),
    "batch_tokens": SchemaColumn(_INT, "tokens", "tokens per optimiser step"),
    "seq_len": SchemaColumn(_INT, "tokens", "context length of training and evaluation"),
    "steps": SchemaColumn(_INT, "", "optimiser steps"),
    "lr": SchemaColumn(_REAL, "", "peak learning rate"),
    "optimiser": SchemaColumn(_TEXT, "", "adamw, lion, muon or adafactor; null in rows from before there was a choice"),
    "parametrisation": SchemaColumn(_TEXT, "", "standard, or mup (arXiv 2203.03466); null as above"),
    "tie_embeddings": SchemaColumn(_FLAG, "", "whether the head is the transposed embedding; null as above"),
    "warmup_tokens": SchemaColumn(_INT, "tokens", "tokens over which the learning rate rises to its peak"),
    "weight_decay": SchemaColumn(_REAL, "", "weight decay of AdamW, multiplied by the learning rate in each step"),
    "n_active": SchemaColumn(
        _INT, "parameters", "the parameters that one token uses, with embeddings and head, no routers"
    ),
    "n_total": SchemaColumn(_INT, "parameters", "all parameters in memory, with embeddings and head, no routers"),
    "n_active_nonembed": SchemaColumn(_INT, "parameters", "n_active without embeddings and head"),
    "n_total_nonembed": SchemaColumn(_INT, "parameters", "n_total without embeddings and head"),
    "n_dense_nonembed": SchemaColumn(
        _INT, "parameters", "the dense backbone: same layers and width, one expert per layer"
    ),
    "n_router": SchemaColumn(_INT, "parameters", "routers alone"),
    "train_flops": SchemaColumn(_REAL, "FLOP", "counted, forward and backward, including causal attention and routers"),
    "train_flops_6nd": SchemaColumn(_REAL, "FLOP", "6 n_active tokens, for comparison only"),
    "prefill_flops_per_token": SchemaColumn(_REAL, "FLOP", "forward pass, mean over a context of seq_len tokens"),
    "decode_flops_per_token": SchemaColumn(_REAL, "FLOP", "forward pass of one token with seq_len tokens cached"),
    "weight_bytes": SchemaColumn(_INT, "bytes", "all parameters, including routers, in the dtype of the products"),
    "kv_bytes_per_token": SchemaColumn(_INT, "bytes", "keys and values of one cached token, in that dtype"),
    "loss_val": SchemaColumn(_REAL, "nats/token", "held-out loss after the cooldown"),
    "loss_val_se": SchemaColumn(_REAL, "nats/token", "its standard error, clustered by document"),
    "leak": SchemaColumn(
        _REAL,
        "nats/token",
        "what a non-causal router gains from later tokens at inference: held-out loss with these tokens replaced, "
        "minus the held-out loss; null for causal routers, which gain nothing",
    ),
    "loss_floor": SchemaColumn(
        _REAL,
        "nats/token",
        "exact Bayes-optimal loss on the same held-out windows; null unless the source is known",
    ),
    "entropy_rate": SchemaColumn(_REAL, "nats/token", "exact entropy rate of the source; null unless it is known"),
    "bits_per_byte": SchemaColumn(_REAL, "bits/byte", "held-out loss per byte of text"),
    "loss_train": SchemaColumn(_REAL, "nats/token", "training loss, mean over the last tenth of the steps"),
    "heldout_docs": SchemaColumn(_INT, "", "evaluated documents"),
    "heldout_tokens": SchemaColumn(_INT, "tokens", "evaluated tokens"),
    "balance_loss": SchemaColumn(_REAL, "", "mean over the last tenth of the steps; 1 when balanced, E/k at collapse"),
    "load_cv": SchemaColumn(
        _REAL,
        "",
        "held-out: standard deviation of expert loads over their mean; mean over layers and batches of batch_tokens",
    ),
    "max_load": SchemaColumn(
        _REAL,
        "",
        "held-out: largest load over the mean load; mean over layers and batches of batch_tokens; 1 when balanced",
    ),
    "max_vio": SchemaColumn(_REAL, "", "held-out: MaxVio (arXiv 2408.15664), max_load - 1; 0 when balanced"),
    "router_entropy": SchemaColumn(_REAL, "", "held-out: mean entropy of the gates over ln E; 1 when uniform"),
    "dropped_frac": SchemaColumn(_REAL, "", "held-out: assignments that reached no expert; 0 for dropless dispatch"),
    "utilisation": SchemaColumn(
        _REAL, "", "held-out: Jain's index of the loads, 1 / (1 + load_cv^2), between 1/E and 1"
    ),
    "experts_per_token": SchemaColumn(_REAL, "", "held-out: mean number of experts per token; top_k for most routers"),
    "gate_sum": SchemaColumn(_REAL, "", "held-out: mean sum of a token's gate weights"),
    "distinct_1": SchemaColumn(_REAL, "", "held-out: experts of a layer that one token activates"),
    "distinct_8": SchemaColumn(
        _REAL, "", "held-out: experts that 8 unrelated tokens activate, as in a decode step of 8"
    ),
    "distinct_64": SchemaColumn(_REAL, "", "held-out: experts that 64 unrelated tokens activate"),
    "saturation_5": SchemaColumn(
        _REAL, "", "share of the final experts already chosen after 5 % of training; null before the first probe"
    ),
    "saturation_50": SchemaColumn(_REAL, "", "the same after half of training"),
    "change_rate": SchemaColumn(
        _REAL,
        "",
        "share of the experts chosen at the last probe that were not chosen at the previous one, a seventh to a "
        "quarter of the steps earlier",
    ),
    "specialisation": SchemaColumn(
        _REAL,
        "",
        "share of a token's class (letter, digit, ...) that its expert reveals: I(class; expert) / H(class)",
    ),
    "capacity_factor": SchemaColumn(
        _REAL, "", "rows of an expert over the mean load, achieved in a training step; null for dropless dispatch"
    ),
    "corpus": SchemaColumn(_TEXT, "", "name of the text"),
    "corpus_hash": SchemaColumn(_TEXT, "", "content hash of text, tokeniser and split"),
    "code_version": SchemaColumn(_TEXT, "", "version and source hash of this package"),
    "versions": SchemaColumn(_TEXT, "", "versions of Python, JAX, Flax, Optax, NumPy"),
    "schema_version": SchemaColumn(_INT, "", "version of these tables"),
    "platform": SchemaColumn(_TEXT, "", "cpu, gpu or tpu"),
    "device_kind": SchemaColumn(_TEXT, "", "device name in JAX"),
    "dtype": SchemaColumn(_TEXT, "", "type of weights and matrix products"),
    "threads": SchemaColumn(_INT, "", "CPU threads of the run; null on a GPU"),
    "devices": SchemaColumn(_INT, "", "devices over which sequences and experts were split; a CPU thread is one"),
    "kernel": SchemaColumn(
        _TEXT, "", "how grouped dispatch computed the experts: loop, batched, ragged, hopper, tokamax; null for others"
    ),
    "attention": SchemaColumn(
        _TEXT, "", "how attention over whole sequences was computed: xla (writes its scores) or cudnn (fused)"
    ),
    "trunks_together": SchemaColumn(_INT, "", "trunks that this process trained as one program"),
    "peak_memory_bytes": SchemaColumn(_INT, "bytes", "peak of one device in a training step, as allocated by XLA"),
    "executor": SchemaColumn(_TEXT, "", "ray or inline"),
    "started_at": SchemaColumn(_TEXT, "UTC", "ISO 8601"),
    "wall_s": SchemaColumn(
        _REAL, "s", "time that the cell added: its own steps, evaluation, and compilation for the first of a trunk"
    ),
    "compile_s": SchemaColumn(_REAL, "s", "tracing and compilation; 0 if another cell of the trunk compiled"),
    "train_s": SchemaColumn(
        _REAL, "s", "all training steps, including those shared with the trunk, without compilation"
    ),
    "tokens_per_s": SchemaColumn(_REAL, "tokens/s", "tokens over train_s"),
}

_LOADS = ("load_cv", "max_load", "max_vio", "router_entropy", "utilisation", "dropped_frac")
_PROBED = ("distinct_1", "distinct_8", "distinct_64", "saturation", "change_rate", "specialisation")
CHANCES: dict[str, SchemaColumn] = {
    f"{name}_chance": SchemaColumn(_REAL, "", f"{name} of independent uniform choices of as many experts")
    for name in (*_LOADS, *_PROBED)
}
"""The chance level of each router metric, at the same experts per token and tokens per batch."""
RUNS |= CHANCES

EVALS: dict[str, SchemaColumn] = {
    "document": SchemaColumn(_TEXT, "", "held-out document"),
    "n_tokens": SchemaColumn(_INT, "tokens", "evaluated tokens of the document"),
    "n_bytes": SchemaColumn(_INT, "bytes", "bytes of text in those tokens"),
    "loss": SchemaColumn(_REAL, "nats/token", "mean over those tokens"),
}

REPLICATES: dict[str, SchemaColumn] = {
    "replicate": SchemaColumn(_INT, "", "number of the replicate, from 0"),
    "metric": SchemaColumn(_TEXT, "", "a metric of the task"),
    "value": SchemaColumn(_REAL, "", "of that metric in that replicate, in its unit; NaN where it has none"),
}
"""The table `evals` of tasks whose cells are many replicates, instead of the documents of a language model."""

CURVES: dict[str, SchemaColumn] = {
    "step": SchemaColumn(_INT, "", "last of the averaged steps"),
    "tokens": SchemaColumn(_INT, "tokens", "training tokens so far"),
    "lr": SchemaColumn(_REAL, "", "learning rate at that step"),
    "loss": SchemaColumn(_REAL, "nats/token", "training loss, mean since the previous row"),
    "balance_loss": SchemaColumn(_REAL, "", "mean over layers and since the previous row"),
    "z_loss": SchemaColumn(_REAL, "", "mean over layers and since the previous row"),
    "grad_norm": SchemaColumn(_REAL, "", "norm before clipping, mean since the previous row"),
    "max_load": SchemaColumn(_REAL, "", "largest expert load over the mean load, mean since the previous row"),
    "router_entropy": SchemaColumn(_REAL, "", "mean entropy of the gates over ln E, mean since the previous row"),
    "dropped_frac": SchemaColumn(_REAL, "", "assignments that reached no expert, mean since the previous row"),
    "load_cv": SchemaColumn(
        _REAL, "", "standard deviation of expert loads over their mean, mean since the previous row"
    ),
    "max_vio": SchemaColumn(_REAL, "", "MaxVio, max_load - 1, mean since the previous row"),
    "utilisation": SchemaColumn(_REAL, "", "Jain's index of the loads, mean since the previous row"),
    "experts_per_token": SchemaColumn(_REAL, "", "experts per token, mean since the previous row"),
    "gate_sum": SchemaColumn(_REAL, "", "sum of a token's gate weights, mean since the previous row"),
    **{
        name: SchemaColumn(_REAL, "", f"{RUNS[name].meaning}; at the latest probe since the previous row, else null")
        for name in _PROBED
        if name != "saturation"
    },
    "saturation": SchemaColumn(
        _REAL, "", "share of the final experts already chosen; at the latest probe since the previous row, else null"
    ),
    **CHANCES,
}

_SIZES = (
    "n_experts", "top_k", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_expert", "n_active",
    "n_total", "n_router",
)  # fmt: skip
LATENCY: dict[str, SchemaColumn] = {
    "run_id": SchemaColumn(_TEXT, "", "the cell that the row belongs to"),
    "shape_id": SchemaColumn(_TEXT, "", "hash of the measured shape; cells of one shape share a measurement"),
    **{name: RUNS[name] for name in (*_SIZES, "dispatch", "kernel", "attention")},
    "reads_all": SchemaColumn(_FLAG, "", "whether the kernel reads every expert, activated or not"),
    "phase": SchemaColumn(_TEXT, "", "prefill or decode"),
    "batch": SchemaColumn(_INT, "", "sequences per call"),
    "context": SchemaColumn(_INT, "tokens", "prefill: prompt length; decode: tokens in the cache"),
    "time_ms": SchemaColumn(_REAL, "ms", "median of the repeats: the whole prefill, or one decode step"),
    "time_q25_ms": SchemaColumn(_REAL, "ms", "first quartile of the repeats"),
    "time_q75_ms": SchemaColumn(_REAL, "ms", "third quartile of the repeats"),
    "repeats": SchemaColumn(_INT, "", "timed calls, after the warm-up calls"),
    "warmup": SchemaColumn(_INT, "", "warm-up calls before each round of repeats, without the compiling call"),
    "compile_s": SchemaColumn(
        _REAL, "s", "tracing and compilation, not part of the times above; of an earlier process if cached"
    ),
    "tokens_per_s": SchemaColumn(_REAL, "tokens/s", "batch x context over a prefill, batch over a decode step"),
    "flops": SchemaColumn(_REAL, "FLOP", "counted FLOPs of one call"),
    "bytes": SchemaColumn(_REAL, "bytes", "read in one call: weights of the activated experts (as observed) and cache"),
    "roofline_ms": SchemaColumn(
        _REAL,
        "ms",
        "lower bound: FLOPs over peak FLOP/s, bytes over bytes/s of the memory level that holds them; null if unknown",
    ),
    "distinct_experts": SchemaColumn(_REAL, "", "experts activated in one call, as observed, mean over layers"),
    "weights": SchemaColumn(_TEXT, "", "initial: routing is that of untrained weights"),
    "platform": SchemaColumn(_TEXT, "", "cpu, gpu or tpu"),
    "device_kind": SchemaColumn(_TEXT, "", "device name in JAX"),
    "dtype": SchemaColumn(_TEXT, "", "type of weights and cache"),
    "threads": SchemaColumn(_INT, "", "CPU threads"),
    "device": SchemaColumn(
        _TEXT, "", "device of roofline_ms as JSON: peak FLOP/s, bytes/s and caches; null if unknown"
    ),
    "busy_cores": SchemaColumn(
        _REAL, "", "cores that other processes used, the most observed after a round of the shape; null if unknown"
    ),
    "versions": SchemaColumn(_TEXT, "", "versions of Python, JAX, Flax, Optax, NumPy"),
}

TABLES: dict[Table, dict[str, SchemaColumn]] = {"runs": RUNS, "evals": EVALS, "curves": CURVES, "latency": LATENCY}
"""The tables of the language model."""

EVERY_TASK = (
    "run_id", "trunk_id", "configuration", "config", "study", "task", "status", "error", "seed", "train_flops",
    "corpus_hash", "code_version", "versions", "schema_version", "platform", "device_kind", "dtype", "threads",
    "devices", "peak_memory_bytes", "executor", "started_at", "wall_s", "compile_s", "train_s",
)  # fmt: skip
"""The columns of `runs` that rows of every task have; its settings, metrics and budget are the others."""


OTHER_TASK = "other_task"
"""The entry in the metadata of a table that was written by another task than the language model, in its own columns."""


def arrow_schema(table: Table, columns: Mapping[str, SchemaColumn] | None = None) -> pa.Schema:
    """The Arrow schema of a table, with unit and meaning in the metadata of each field.

    columns: those of another task than the language model, which the metadata of the table then says.
    """
    fields = [pa.field(name, c.type, metadata=_metadata(c)) for name, c in (columns or TABLES[table]).items()]
    about = {"schema_version": str(SCHEMA_VERSION), "table": table} | ({OTHER_TASK: "1"} if columns else {})
    return pa.schema(fields, metadata=about)


def _metadata(column: SchemaColumn) -> dict[str, str]:
    about = {"unit": column.unit, "meaning": column.meaning}
    return about | ({"better": column.better} if column.better else {})


def to_arrow(
    table: Table, rows: list[dict[str, object]], columns: Mapping[str, SchemaColumn] | None = None
) -> pa.Table:
    """Rows as an Arrow table; a missing value is null. `columns` as of `arrow_schema`.

    Raises InputError for a column that the schema lacks and for a value of the wrong type.
    """
    known = columns or TABLES[table]
    if unknown := sorted({name for row in rows for name in row} - set(known)):
        raise InputError(f"{table}: unknown column {', '.join(unknown)}; the schema has {', '.join(known)}")
    try:
        return pa.Table.from_pylist(rows, schema=arrow_schema(table, columns))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{table}: {error}") from error


def write_parquet(path: Path, table: pa.Table, root: Path | None = None, **options: Any) -> None:
    """Write an Arrow table as `write_atomically` does, with its errors."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    write_atomically(path, memoryview(sink.getvalue()), root)
